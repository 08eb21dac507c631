//! The change log: one total order over every write to entries, agents and bundles.

use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{SpiffeId, TrustDomain};

use crate::model::{Agent, Entry};

/// Position in the change log. Commit order is revision order; there are no gaps; 0 is "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// What one revision changed, with the new value so that a reader need not ask again.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Created or updated.
    EntrySet(Box<Entry>),
    /// As `EntrySet`, with a higher revision number: its SVIDs are to be issued again at once.
    EntryRotated(Box<Entry>),
    /// Deleted or pruned.
    EntryGone { id: String },
    /// Attested, renewed, banned (empty serial) or its selectors changed.
    AgentSet(Box<Agent>),
    /// Evicted or pruned.
    AgentGone { id: SpiffeId },
    /// The agent is to renew its SVID, and every SVID it holds, at once. Nothing stored changes.
    AgentRotated(RotatedAgent),
    /// A bundle, own or federated, was created or changed. Bundles are large and few: readers fetch the value.
    BundleSet(ChangedBundle),
    /// A federated bundle was deleted.
    BundleGone { trust_domain: TrustDomain },
    /// A federation relationship was created, changed or deleted. Few: readers fetch them all.
    Federation { trust_domain: TrustDomain },
    /// Something that no index follows (join tokens, journals).
    Other,
}

/// See [`Change::BundleSet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedBundle {
    pub trust_domain: TrustDomain,
    pub sequence_number: u64,
}

/// See [`Change::AgentRotated`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotatedAgent {
    pub id: SpiffeId,
    /// Unix seconds: what the agent got later is new enough.
    pub ordered_at: i64,
}

/// One row of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    pub revision: Revision,
    pub change: Change,
}

impl Change {
    pub fn bundle_set(bundle: &Bundle) -> Self {
        Self::BundleSet(ChangedBundle {
            trust_domain: bundle.trust_domain.clone(),
            sequence_number: bundle.sequence_number,
        })
    }
}

/// All that an index needs, read in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The newest revision that the snapshot contains.
    pub revision: Revision,
    /// Identifies the log: a restored or replaced database starts a new one.
    pub log_id: String,
    pub entries: Vec<Entry>,
    pub agents: Vec<Agent>,
    pub bundles: Vec<Bundle>,
    /// Orders that are still in the log, oldest first: an agent that was away has yet to hear of them.
    pub rotated_agents: Vec<RotatedAgent>,
}
