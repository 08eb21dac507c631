//! What a follower of the log knows.

use std::collections::BTreeMap;

use steeple_spiffe::{SpiffeId, TrustDomain};

use crate::model::{Agent, Entry};
use crate::{Change, Logged, Revision, Snapshot};

/// A snapshot that changes are applied to.
#[derive(Clone, Debug, PartialEq)]
pub struct Replica {
    pub revision: Revision,
    pub entries: BTreeMap<String, Entry>,
    pub agents: BTreeMap<SpiffeId, Agent>,
    /// Sequence numbers: the log does not carry bundles.
    pub bundles: BTreeMap<TrustDomain, u64>,
}

impl Replica {
    pub fn of(snapshot: Snapshot) -> Self {
        Self {
            revision: snapshot.revision,
            entries: snapshot.entries.into_iter().map(|entry| (entry.id.clone(), entry)).collect(),
            agents: snapshot.agents.into_iter().map(|agent| (agent.id.clone(), agent)).collect(),
            bundles: snapshot
                .bundles
                .into_iter()
                .map(|bundle| (bundle.trust_domain.clone(), bundle.sequence_number))
                .collect(),
        }
    }

    /// Applies the next revision; panics if it is not the next.
    pub fn apply(&mut self, logged: Logged) {
        assert_eq!(logged.revision.0, self.revision.0 + 1, "the log has a gap");
        self.revision = logged.revision;
        match logged.change {
            Change::EntrySet(entry) | Change::EntryRotated(entry) => {
                self.entries.insert(entry.id.clone(), *entry);
            }
            Change::EntryGone { id } => {
                self.entries.remove(&id);
            }
            Change::AgentSet(agent) => {
                self.agents.insert(agent.id.clone(), *agent);
            }
            Change::AgentGone { id } => {
                self.agents.remove(&id);
            }
            Change::BundleSet(changed) => {
                self.bundles.insert(changed.trust_domain, changed.sequence_number);
            }
            Change::BundleGone { trust_domain } => {
                self.bundles.remove(&trust_domain);
            }
            Change::AgentRotated(_) | Change::Federation { .. } | Change::Other => {}
        }
    }
}
