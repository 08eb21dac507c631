//! Agent engines: node identity, entry sync, SVID and JWT caches, rotation. No gRPC, no wall clock.
//!
//! | module | what it decides |
//! |---|---|
//! | [`node`] | when the agent attests, renews, attests again, or gives up its identity |
//! | [`agent_data`] | what SPIRE's `agent-data.json` holds, read and written |
//! | [`view`] | which entries and bundles are in force; never an older view of the same log |
//! | [`cache`] | which X.509-SVIDs need signing, in what order, and what each workload receives |
//! | [`explain`] | which entries nearly match a workload, and what they lack |
//! | [`jwt_cache`] | which JWT-SVIDs can be handed out again |
//! | [`budget`] | which SVIDs go when they take too many bytes |
//! | [`wit_cache`] | WIT-SVIDs and the keys that they are bound to |
//! | [`snapshot`] | what an agent that starts again goes on with |
//! | [`rotation`] | when an SVID is due for replacement |
//! | [`batch`] | how many CSRs go into one call |
//!
//! Everything is a plain state machine: time comes in as [`Millis`], what to do comes out as a value. The caller does
//! the I/O (`steeple-agent-api`).

pub mod agent_data;
pub mod batch;
pub mod budget;
pub mod cache;
pub mod entry;
pub mod explain;
pub mod jwt_cache;
pub mod node;
pub mod rotation;
pub mod snapshot;
pub mod view;
pub mod wit_cache;

pub use cache::{Cache, CacheConfig, SignJob, Subscription, Update};
pub use entry::{Entry, Selector, SelectorSet};
pub use view::{Changes, Delta, View};

/// Unix time in milliseconds.
pub type Millis = i64;

/// Seconds, as certificates and tokens count, to [`Millis`].
pub const fn millis(seconds: i64) -> Millis {
    seconds.saturating_mul(1000)
}
