//! What a server keeps, and the port through which it is kept.
//!
//! * [`model`]: entries, agents, tokens, bundles, journals.
//! * [`Datastore`]: the port. Every write takes the next [`Revision`] of the change log in its own transaction.
//! * [`Change`], [`Snapshot`]: how a server follows the log (docs/ARCHITECTURE.md, "The change log").
//! * [`conformance`]: the suite every implementation runs.

pub mod conformance;
mod error;
mod log;
pub mod model;
mod port;

pub use error::{Error, Result};
pub use log::{Change, ChangedBundle, Logged, Revision, Snapshot};
pub use port::{
    AgentFilter, AgentUpdate, BundleDeleteMode, BundleMask, Created, Datastore, EntryFilter, EntryMask, Match, Page, PageRequest,
    PrunedBundle,
};
