//! Server engines. No gRPC, no SQL, no wall clock: `now` is an argument everywhere (Unix seconds).
//!
//! * [`ca`]: the authorities a server signs with: [`ca::CaManager`] drives a pure state machine
//!   ([`ca::state`]) against the key manager and the datastore, and signs.
//! * [`admission`]: how many signatures run at once and who goes first.
//! * [`federation`]: when other trust domains' bundles are fetched, and what of them is accepted.
//! * [`index`]: [`index::EntryIndex`], which entries an agent may have, kept incrementally.
//! * [`view`]: [`view::View`] follows the datastore's change log and serves reads and subscriptions.
//!
//! Parameters of signing carry a [`admission::Priority`]; `Default` is the one for a workload that waits.

pub mod admission;
pub mod ca;
pub mod federation;
pub mod index;
pub mod view;

#[cfg(test)]
mod fake;
