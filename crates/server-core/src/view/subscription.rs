//! What one listener still has to hear. A slow one gets the newest state, not a growing queue: changes to one
//! entry replace each other, and beyond [`MANY`] of them the complete view is sent instead.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use steeple_datastore::Revision;
use steeple_datastore::model::Entry;
use steeple_spiffe::{Bundle, SpiffeId, TrustDomain};
use tokio::sync::Notify;

use super::{Bundles, View};
use crate::index::AgentDelta;

/// More pending changes than this are replaced by the complete view.
const MANY: usize = 4096;

/// What a listener has to do to be at `revision`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    pub revision: Revision,
    /// A restored or replaced database starts a new log.
    pub log_id: String,
    /// This is the complete view: what it does not name is gone.
    pub snapshot: bool,
    /// New or changed.
    pub entries: Vec<Arc<Entry>>,
    /// Ids of entries that the agent may have no more.
    pub removed: Vec<String>,
    /// The own trust domain's bundle and those that the agent's entries federate with: new or changed.
    pub bundles: Vec<Arc<Bundle>>,
    /// Trust domains whose bundle is gone, or that no entry of the agent federates with any more.
    pub removed_bundles: Vec<TrustDomain>,
    /// Ids of entries whose SVIDs are to be issued again at once.
    pub rotated: Vec<String>,
    /// The agent is to renew all it holds at once.
    pub rotate_agent: bool,
    /// The agent was evicted or banned: the stream has to end.
    pub denied: bool,
}

/// Yields changes until it is dropped.
pub struct Subscription {
    view: Arc<View>,
    listener: Arc<Listener>,
}

impl Subscription {
    pub(super) fn new(view: Arc<View>, agent: SpiffeId) -> Self {
        let listener = {
            let mut inner = view.write();
            // A ban that came between the caller's authorization and now.
            let denied = inner.index.agent(&agent).is_some_and(|known| known.is_banned());
            let pending = Pending { snapshot: true, denied, ..Pending::default() };
            inner.index.track(&agent);
            let listener = Arc::new(Listener { agent, pending: Mutex::new(pending), wake: Notify::new() });
            inner.listeners.add(&listener);
            listener
        };
        Self { view, listener }
    }

    /// The next change; the complete view at first. Losing the future loses nothing.
    pub async fn next(&mut self) -> Delta {
        loop {
            if let Some(delta) = self.take() {
                return delta;
            }
            self.listener.wake.notified().await;
        }
    }

    /// What has changed since the last call, if anything.
    pub fn take(&mut self) -> Option<Delta> {
        // The follower fills in changes and moves the revision while it holds the write lock.
        let inner = self.view.read();
        let mut pending = self.listener.lock();
        if !pending.is_dirty() {
            return None;
        }
        let mut delta = if pending.snapshot {
            let entries = inner.index.authorized_entries(&self.listener.agent);
            pending.complete(entries, &inner.bundles, &self.view.trust_domain)
        } else {
            pending.changes()
        };
        delta.revision = inner.position.revision;
        inner.position.log_id.as_ref().clone_into(&mut delta.log_id);
        Some(delta)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut inner = self.view.write();
        if inner.listeners.remove(&self.listener) {
            inner.index.untrack(&self.listener.agent);
        }
    }
}

struct Listener {
    agent: SpiffeId,
    pending: Mutex<Pending>,
    wake: Notify,
}

impl Listener {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Pending)) {
        let mut pending = self.lock();
        change(&mut pending);
        if pending.is_dirty() {
            self.wake.notify_one();
        }
    }
}

#[derive(Default)]
struct Pending {
    /// The listener needs everything; nothing else is kept meanwhile.
    snapshot: bool,
    /// `None` = may have it no more.
    entries: HashMap<String, Option<Arc<Entry>>>,
    bundles: HashMap<TrustDomain, Option<Arc<Bundle>>>,
    rotated: HashSet<String>,
    rotate_agent: bool,
    denied: bool,
    denial_is_new: bool,
    /// Entries that federate, with whom.
    federating: HashMap<String, Vec<TrustDomain>>,
    /// How many entries federate with each.
    federated: HashMap<TrustDomain, usize>,
}

impl Pending {
    fn is_dirty(&self) -> bool {
        self.snapshot
            || self.denial_is_new
            || self.rotate_agent
            || !(self.entries.is_empty() && self.bundles.is_empty() && self.rotated.is_empty())
    }

    fn start_over(&mut self) {
        self.snapshot = true;
        self.entries = HashMap::new();
        self.bundles = HashMap::new();
    }

    fn entry_rotated(&mut self, id: &str) {
        if self.rotated.len() < MANY {
            self.rotated.insert(id.to_owned());
        } else {
            // All of them, then.
            self.rotate_agent = true;
        }
    }

    fn apply(&mut self, delta: &AgentDelta, bundles: &Bundles) {
        if self.snapshot {
            return;
        }
        for id in &delta.removed {
            self.federate(id, &[], bundles);
            self.entries.insert(id.clone(), None);
        }
        for entry in &delta.set {
            self.federate(&entry.id, &entry.federates_with, bundles);
            self.entries.insert(entry.id.clone(), Some(Arc::clone(entry)));
        }
        if self.entries.len() > MANY {
            self.start_over();
        }
    }

    /// An entry federates with these now: their bundles come and go with it.
    fn federate(&mut self, entry_id: &str, with: &[TrustDomain], bundles: &Bundles) {
        let before = if with.is_empty() {
            self.federating.remove(entry_id)
        } else {
            self.federating.insert(entry_id.to_owned(), with.to_vec())
        };
        for trust_domain in with {
            let count = self.federated.entry(trust_domain.clone()).or_default();
            *count += 1;
            if *count == 1
                && let Some(bundle) = bundles.get(trust_domain)
            {
                self.bundles.insert(trust_domain.clone(), Some(Arc::clone(bundle)));
            }
        }
        for trust_domain in before.into_iter().flatten() {
            if let Some(count) = self.federated.get_mut(&trust_domain) {
                *count -= 1;
                if *count == 0 {
                    self.federated.remove(&trust_domain);
                    self.bundles.insert(trust_domain, None);
                }
            }
        }
    }

    fn bundle_changed(
        &mut self,
        own: &TrustDomain,
        trust_domain: &TrustDomain,
        bundle: Option<&Arc<Bundle>>,
    ) {
        if !self.snapshot && (trust_domain == own || self.federated.contains_key(trust_domain)) {
            self.bundles.insert(trust_domain.clone(), bundle.cloned());
        }
    }

    /// What is to be done whatever the view looks like.
    fn orders(&mut self) -> Delta {
        self.denial_is_new = false;
        Delta {
            denied: self.denied,
            rotated: std::mem::take(&mut self.rotated).into_iter().collect(),
            rotate_agent: std::mem::take(&mut self.rotate_agent),
            ..Delta::default()
        }
    }

    fn changes(&mut self) -> Delta {
        let mut delta = self.orders();
        for (id, entry) in std::mem::take(&mut self.entries) {
            match entry {
                Some(entry) => delta.entries.push(entry),
                None => delta.removed.push(id),
            }
        }
        for (trust_domain, bundle) in std::mem::take(&mut self.bundles) {
            match bundle {
                Some(bundle) => delta.bundles.push(bundle),
                None => delta.removed_bundles.push(trust_domain),
            }
        }
        delta
    }

    fn complete(&mut self, entries: Vec<Arc<Entry>>, bundles: &Bundles, own: &TrustDomain) -> Delta {
        self.snapshot = false;
        self.federating.clear();
        self.federated.clear();
        let mut wanted = HashSet::from([own]);
        for entry in entries.iter().filter(|entry| !entry.federates_with.is_empty()) {
            self.federating.insert(entry.id.clone(), entry.federates_with.clone());
            for trust_domain in &entry.federates_with {
                wanted.insert(trust_domain);
                *self.federated.entry(trust_domain.clone()).or_default() += 1;
            }
        }
        let bundles =
            wanted.into_iter().filter_map(|trust_domain| bundles.get(trust_domain).cloned()).collect();
        Delta { snapshot: true, entries, bundles, ..self.orders() }
    }
}

/// Who listens, by agent.
#[derive(Default)]
pub(super) struct Listeners(HashMap<SpiffeId, Vec<Arc<Listener>>>);

impl Listeners {
    fn add(&mut self, listener: &Arc<Listener>) {
        self.0.entry(listener.agent.clone()).or_default().push(Arc::clone(listener));
    }

    /// Whether it was the last one for its agent.
    fn remove(&mut self, listener: &Arc<Listener>) -> bool {
        let Some(of_agent) = self.0.get_mut(&listener.agent) else { return false };
        of_agent.retain(|other| !Arc::ptr_eq(other, listener));
        let last = of_agent.is_empty();
        if last {
            self.0.remove(&listener.agent);
        }
        last
    }

    fn of(&self, agent: &SpiffeId) -> &[Arc<Listener>] {
        self.0.get(agent).map_or(&[], Vec::as_slice)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.0.values().flatten()
    }

    pub fn changed(&self, agent: &SpiffeId, delta: &AgentDelta, bundles: &Bundles) {
        for listener in self.of(agent) {
            listener.change(|pending| pending.apply(delta, bundles));
        }
    }

    pub fn entry_rotated(&self, agent: &SpiffeId, id: &str) {
        for listener in self.of(agent) {
            listener.change(|pending| pending.entry_rotated(id));
        }
    }

    pub fn agent_rotated(&self, agent: &SpiffeId) {
        for listener in self.of(agent) {
            listener.change(|pending| pending.rotate_agent = true);
        }
    }

    pub fn denied(&self, agent: &SpiffeId, denied: bool) {
        for listener in self.of(agent) {
            listener.change(|pending| {
                pending.denial_is_new |= denied && !pending.denied;
                pending.denied = denied;
            });
        }
    }

    pub fn bundle_changed(
        &self,
        own: &TrustDomain,
        trust_domain: &TrustDomain,
        bundle: Option<&Arc<Bundle>>,
    ) {
        for listener in self.all() {
            listener.change(|pending| pending.bundle_changed(own, trust_domain, bundle));
        }
    }

    /// Everybody gets the complete view.
    pub fn start_over(&self) {
        for listener in self.all() {
            listener.change(Pending::start_over);
        }
    }
}
