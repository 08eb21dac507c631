//! What a server keeps, and the port through which it is kept.
//!
//! * [`model`]: entries, agents, tokens, bundles, journals.
//! * [`Datastore`]: the port. Every write takes the next [`Revision`] of the change log in its own transaction.
//! * [`Change`], [`Snapshot`]: how a server follows the log (docs/ARCHITECTURE.md, "The change log").
//! * [`validate`], [`merge`], [`authority`]: the rules that every implementation shares.
//! * [`conformance`]: the suite every implementation runs.
//! * [`memory`]: an implementation that forgets, for tests of what stands on the port.

pub mod authority;
pub mod conformance;
mod error;
mod federation;
mod log;
pub mod memory;
pub mod merge;
pub mod model;
mod port;
pub mod validate;

pub use authority::{AuthorityAction, AuthorityChange, AuthorityKind};
pub use error::{Error, Result};
pub use federation::{EndpointProfile, FederationMask, FederationRelationship, RefreshedBundle};
pub use log::{Change, ChangedBundle, Logged, Revision, RotatedAgent, Snapshot};
pub use port::{
    AgentFilter, AgentUpdate, BundleDeleteMode, BundleMask, Created, Datastore, EntryFilter, EntryIds,
    EntryMask, Match, Page, PageRequest, PrunedBundle,
};
