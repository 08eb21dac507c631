//! The only writer of a [`View`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use steeple_datastore::{Change, Datastore, Error, Logged, Result, Revision, Snapshot};
use steeple_spiffe::{Bundle, TrustDomain};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Bundles, Inner, Position, View};
use crate::index::Deltas;

/// Rows of the log that are applied in one step; readers wait no longer than that takes.
const BATCH: usize = 256;

/// The store tells when the log grows, other servers' writes too; it is asked all the same now and then, seldom: idle
/// servers are to leave the database alone.
const ASK_UNTOLD: Duration = Duration::from_secs(30);
/// How often it is asked once it tells no more.
const ASK_EVERY: Duration = Duration::from_secs(1);

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Follows the change log and keeps the view up to date.
pub struct Follower {
    view: Arc<View>,
    store: Arc<dyn Datastore>,
    head: watch::Receiver<Revision>,
}

impl Follower {
    pub(super) fn new(view: Arc<View>, store: Arc<dyn Datastore>, head: watch::Receiver<Revision>) -> Self {
        Self { view, store, head }
    }

    /// Never returns; drop the future to stop. While the datastore cannot be read the view stays as it is.
    pub async fn run(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            let told = *self.head.borrow_and_update();
            match self.catch_up().await {
                // What answered is behind what was told of: a standby, say.
                Ok(()) if self.view.revision() < told => {
                    sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
                Ok(()) => {
                    retry = FIRST_RETRY;
                    self.wait_for_news().await;
                }
                Err(error) => {
                    tracing::warn!(subsystem_name = "view", %error, "Could not follow the change log; retrying");
                    sleep(retry).await;
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    async fn wait_for_news(&mut self) {
        match timeout(ASK_UNTOLD, self.head.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            // The store no longer tells: ask.
            Ok(Err(_)) => sleep(ASK_EVERY).await,
        }
    }

    /// Applies everything that is in the log now.
    pub(super) async fn catch_up(&self) -> Result<()> {
        loop {
            let after = self.view.revision();
            let changes = match self.store.changes_since(after, BATCH).await {
                Ok(changes) => changes,
                // Also where the log ends before what was seen: another log, or a replica that lags.
                Err(Error::LogTruncated(_)) => return self.start_over().await,
                Err(error) => return Err(error),
            };
            let Some(first) = changes.first() else { return Ok(()) };
            // A log with a hole tells nothing about what was in it.
            let whole = changes.windows(2).all(|pair| pair[1].revision.0 == pair[0].revision.0 + 1);
            if first.revision.0 != after.0 + 1 || !whole {
                return self.start_over().await;
            }
            let bundles = self.changed_bundles(&changes).await?;
            let all = changes.len() < BATCH;
            self.view.apply(changes, bundles);
            // What came since is told: the log was marked as seen before it was asked.
            if all {
                return Ok(());
            }
        }
    }

    /// The log names changed bundles; their values may be newer than the log's row.
    async fn changed_bundles(&self, changes: &[Logged]) -> Result<HashMap<TrustDomain, Option<Bundle>>> {
        let mut bundles = HashMap::new();
        for logged in changes {
            let trust_domain = match &logged.change {
                Change::BundleSet(changed) => &changed.trust_domain,
                Change::BundleGone { trust_domain } => trust_domain,
                _ => continue,
            };
            if !bundles.contains_key(trust_domain) {
                bundles.insert(trust_domain.clone(), self.store.fetch_bundle(trust_domain).await?);
            }
        }
        Ok(bundles)
    }

    async fn start_over(&self) -> Result<()> {
        let snapshot = self.store.snapshot().await?;
        let here = self.view.position();
        if *here.log_id == *snapshot.log_id && snapshot.revision < here.revision {
            return Err(Error::Unavailable(format!(
                "snapshot at revision {} is older than {}, which was already seen",
                snapshot.revision.0, here.revision.0
            )));
        }
        self.view.replace(snapshot);
        Ok(())
    }
}

impl View {
    fn apply(&self, changes: Vec<Logged>, bundles: HashMap<TrustDomain, Option<Bundle>>) {
        let mut inner = self.write();
        inner.set_bundles(&self.trust_domain, bundles);
        let relationships = changes.iter().any(|logged| matches!(logged.change, Change::Federation { .. }));
        for logged in changes {
            inner.apply(logged.change);
            inner.position.revision = logged.revision;
        }
        self.publish(&inner);
        if relationships {
            self.relationships.send_modify(|count| *count += 1);
        }
    }

    /// Goes from what is here to what the snapshot holds.
    fn replace(&self, snapshot: Snapshot) {
        let mut inner = self.write();
        let entry_ids: HashSet<&str> = snapshot.entries.iter().map(|entry| entry.id.as_str()).collect();
        let gone: Vec<String> = (inner.index.entries().map(|entry| &entry.id))
            .filter(|id| !entry_ids.contains(id.as_str()))
            .cloned()
            .collect();
        let agent_ids: HashSet<_> = snapshot.agents.iter().map(|agent| &agent.id).collect();
        let agents_gone: Vec<_> = (inner.index.agents().map(|agent| &agent.id))
            .filter(|id| !agent_ids.contains(id))
            .cloned()
            .collect();
        let mut bundles: HashMap<_, _> =
            inner.bundles.keys().map(|trust_domain| (trust_domain.clone(), None)).collect();
        bundles
            .extend(snapshot.bundles.into_iter().map(|bundle| (bundle.trust_domain.clone(), Some(bundle))));

        inner.set_bundles(&self.trust_domain, bundles);
        for order in snapshot.rotated_agents {
            if inner.orders.get(&order.id).is_none_or(|known| *known < order.ordered_at) {
                inner.apply(Change::AgentRotated(order));
            }
        }
        for id in gone {
            inner.apply(Change::EntryGone { id });
        }
        for id in agents_gone {
            inner.apply(Change::AgentGone { id });
        }
        for agent in snapshot.agents {
            if inner.index.agent(&agent.id).is_none_or(|known| *known != agent) {
                inner.apply(Change::AgentSet(Box::new(agent)));
            }
        }
        for entry in snapshot.entries {
            if inner.index.entry(&entry.id).is_none_or(|known| *known != entry) {
                inner.apply(Change::EntrySet(Box::new(entry)));
            }
        }
        if *inner.position.log_id != *snapshot.log_id {
            inner.listeners.start_over();
        }
        inner.position = Position { revision: snapshot.revision, log_id: snapshot.log_id.into() };
        self.publish(&inner);
        self.relationships.send_modify(|count| *count += 1);
    }

    /// Tells waiters; called with the lock held so that none sees the position before what it stands for.
    fn publish(&self, inner: &Inner) {
        self.bundles.send_if_modified(|bundles| {
            let changed = !Arc::ptr_eq(bundles, &inner.bundles);
            if changed {
                bundles.clone_from(&inner.bundles);
            }
            changed
        });
        self.position.send_replace(inner.position.clone());
    }
}

impl Inner {
    fn apply(&mut self, change: Change) {
        let deltas = match change {
            Change::EntrySet(entry) => self.index.set_entry(*entry),
            Change::EntryRotated(entry) => {
                let id = entry.id.clone();
                let deltas = self.index.set_entry(*entry);
                for (agent, _) in &deltas {
                    self.listeners.entry_rotated(agent, &id);
                }
                deltas
            }
            Change::EntryGone { id } => self.index.remove_entry(&id),
            Change::AgentSet(agent) => {
                self.listeners.denied(&agent.id, agent.is_banned());
                self.index.set_agent(*agent)
            }
            Change::AgentRotated(order) => {
                self.listeners.agent_rotated(&order.id);
                self.orders.insert(order.id, order.ordered_at);
                Deltas::new()
            }
            Change::AgentGone { id } => {
                self.orders.remove(&id);
                self.listeners.denied(&id, true);
                self.index.remove_agent(&id)
            }
            Change::BundleSet(_) | Change::BundleGone { .. } | Change::Federation { .. } | Change::Other => {
                Deltas::new()
            }
        };
        for (agent, delta) in deltas {
            self.listeners.changed(&agent, &delta, &self.bundles);
        }
    }

    fn set_bundles(&mut self, own: &TrustDomain, changed: HashMap<TrustDomain, Option<Bundle>>) {
        let mut bundles: Option<Bundles> = None;
        for (trust_domain, bundle) in changed {
            if self.bundles.get(&trust_domain).map(Arc::as_ref) == bundle.as_ref() {
                continue;
            }
            let bundle = bundle.map(Arc::new);
            let next = Arc::make_mut(bundles.get_or_insert_with(|| Arc::clone(&self.bundles)));
            match &bundle {
                Some(bundle) => next.insert(trust_domain.clone(), Arc::clone(bundle)),
                None => next.remove(&trust_domain),
            };
            self.listeners.bundle_changed(own, &trust_domain, bundle.as_ref());
        }
        if let Some(bundles) = bundles {
            self.bundles = bundles;
        }
    }
}
