//! What the datastore holds, in memory and up to date: the change log's reader (DESIGN §3.2, §3.5).
//!
//! [`View::open`] reads one snapshot; [`Follower::run`] then follows the log, woken by each commit, and is the only
//! writer. Reads hold a lock for the look-up only and never across an await; what they return is immutable. A view
//! never goes back to an older revision; if the log no longer holds what comes next, a fresh snapshot is compared
//! with what is here, so nothing vanishes and comes back.

mod follow;
mod subscription;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use steeple_datastore::model::{Agent, Entry};
use steeple_datastore::{Datastore, EntryIds, Result, Revision};
use steeple_spiffe::{Bundle, SpiffeId, TrustDomain};
use tokio::sync::watch;

use crate::index::EntryIndex;

pub use follow::Follower;
pub use subscription::{Delta, Subscription};

/// Bundles by trust domain, the own one included.
pub type Bundles = Arc<HashMap<TrustDomain, Arc<Bundle>>>;

/// Where in which log a view is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub revision: Revision,
    /// A restored or replaced database starts a new log.
    pub log_id: Arc<str>,
}

/// See the module's documentation.
pub struct View {
    trust_domain: TrustDomain,
    inner: RwLock<Inner>,
    position: watch::Sender<Position>,
    bundles: watch::Sender<Bundles>,
    /// Counts changes of federation relationships; these are read where they are needed.
    relationships: watch::Sender<u64>,
}

/// What a change replaces in one step.
struct Inner {
    index: EntryIndex,
    bundles: Bundles,
    /// When agents were last told to renew all they hold, Unix seconds.
    orders: HashMap<SpiffeId, i64>,
    position: Position,
    listeners: subscription::Listeners,
}

impl View {
    /// Reads everything once. Run the follower for as long as the view is used.
    pub async fn open(store: Arc<dyn Datastore>, trust_domain: TrustDomain) -> Result<(Arc<Self>, Follower)> {
        // Before the snapshot, so that no commit in between goes unnoticed.
        let head = store.watch_head();
        let snapshot = store.snapshot().await?;
        let mut index = EntryIndex::new(trust_domain.clone());
        for agent in snapshot.agents {
            index.set_agent(agent);
        }
        for entry in snapshot.entries {
            index.set_entry(entry);
        }
        let bundles: Bundles = Arc::new(
            snapshot
                .bundles
                .into_iter()
                .map(|bundle| (bundle.trust_domain.clone(), Arc::new(bundle)))
                .collect(),
        );
        let orders = snapshot.rotated_agents.into_iter().map(|order| (order.id, order.ordered_at)).collect();
        let position = Position { revision: snapshot.revision, log_id: snapshot.log_id.into() };
        let view = Arc::new(Self {
            trust_domain,
            position: watch::Sender::new(position.clone()),
            bundles: watch::Sender::new(Arc::clone(&bundles)),
            relationships: watch::Sender::new(0),
            inner: RwLock::new(Inner {
                index,
                bundles,
                orders,
                position,
                listeners: subscription::Listeners::default(),
            }),
        });
        let follower = Follower::new(Arc::clone(&view), store, head);
        Ok((view, follower))
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The newest revision that reads here see.
    pub fn revision(&self) -> Revision {
        self.read().position.revision
    }

    /// The log that [`Self::revision`] counts in.
    pub fn log_id(&self) -> Arc<str> {
        Arc::clone(&self.read().position.log_id)
    }

    pub fn position(&self) -> Position {
        self.read().position.clone()
    }

    /// Number of entries.
    pub fn entry_count(&self) -> usize {
        self.read().index.len()
    }

    /// Number of agents. Walks over them all: for now and then.
    pub fn agent_count(&self) -> usize {
        self.read().index.agents().count()
    }

    pub fn agent(&self, id: &SpiffeId) -> Option<Arc<Agent>> {
        self.read().index.agent(id)
    }

    pub fn entry(&self, entry_id: &str) -> Option<Arc<Entry>> {
        self.read().index.entry(entry_id)
    }

    /// These entries, in order, if the view is where the ids were read. `None` = it is elsewhere (by now), or lacks one.
    pub fn entries_at(&self, ids: &EntryIds) -> Option<Vec<Arc<Entry>>> {
        let mut entries = Vec::with_capacity(ids.page.items.len());
        // In steps, so that a change does not wait for a long list.
        for some in ids.page.items.chunks(1000) {
            let inner = self.read();
            let here = &inner.position;
            if here.revision != ids.revision || *here.log_id != *ids.log_id {
                return None;
            }
            for id in some {
                entries.push(inner.index.entry(id)?);
            }
        }
        Some(entries)
    }

    /// The entries that the agent may have (SPIRE's authorized entries), each once, in no order.
    pub fn authorized_entries(&self, agent: &SpiffeId) -> Vec<Arc<Entry>> {
        self.read().index.authorized_entries(agent)
    }

    /// One of the above.
    pub fn authorized_entry(&self, agent: &SpiffeId, entry_id: &str) -> Option<Arc<Entry>> {
        self.read().index.authorized_entry(agent, entry_id)
    }

    /// Several look-ups at one revision.
    pub fn look<T>(&self, at: impl FnOnce(&EntryIndex, &Position) -> T) -> T {
        let inner = self.read();
        at(&inner.index, &inner.position)
    }

    /// When the agent was last told to renew all it holds, Unix seconds.
    pub fn rotation_order(&self, agent: &SpiffeId) -> Option<i64> {
        self.read().orders.get(agent).copied()
    }

    /// For the checks of admin and downstream callers.
    pub fn entries_by_spiffe_id(&self, id: &SpiffeId) -> Vec<Arc<Entry>> {
        self.read().index.entries_by_spiffe_id(id)
    }

    /// The bundle of the own or a federated trust domain.
    pub fn bundle(&self, trust_domain: &TrustDomain) -> Option<Arc<Bundle>> {
        self.read().bundles.get(trust_domain).cloned()
    }

    /// All bundles, now and whenever one changes.
    pub fn watch_bundles(&self) -> watch::Receiver<Bundles> {
        self.bundles.subscribe()
    }

    /// Moves whenever a federation relationship may have changed.
    pub fn watch_relationships(&self) -> watch::Receiver<u64> {
        self.relationships.subscribe()
    }

    /// Returns once reads see `revision`: what a caller that has just written waits for. Bound it with a timeout.
    pub fn wait_for(&self, revision: Revision) -> impl Future<Output = ()> + Send + use<> {
        let log_id = self.log_id();
        let mut position = self.position.subscribe();
        async move {
            // Fails only when the view itself is gone; a replaced log counts its revisions anew.
            let _ = position.wait_for(|now| now.revision >= revision || now.log_id != log_id).await;
        }
    }

    /// What the agent may have from now on: a complete view first, then changes. Several may listen for one agent.
    pub fn subscribe(self: &Arc<Self>, agent: &SpiffeId) -> Subscription {
        Subscription::new(Arc::clone(self), agent.clone())
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
