//! What the agent knows, shared by its tasks and services. One lock per engine, never held across an await.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use steeple_agent_core::budget;
use steeple_agent_core::jwt_cache::JwtCache;
use steeple_agent_core::view::Changes;
use steeple_agent_core::wit_cache::WitCache;
use steeple_agent_core::{Cache, CacheConfig, Entry, Millis, SelectorSet, Subscription, View};
use steeple_runtime::clock::Clock;
use steeple_spiffe::TrustDomain;
use tokio::sync::{Notify, watch};
use tonic::Status;

use crate::identity::Stand;
use crate::noted::Noted;
use crate::report::{self, Report};

/// See the [module](self).
pub struct AgentState {
    pub trust_domain: TrustDomain,
    pub clock: Arc<dyn Clock>,
    cache: Mutex<Cache>,
    view: Mutex<View>,
    jwt: Mutex<JwtCache>,
    wit: Mutex<WitCache>,
    noted: Noted,
    standing: OnceLock<watch::Receiver<Stand>>,
    /// Signing has something to do.
    pub(crate) work: Notify,
    /// What is kept sealed may have changed.
    pub(crate) changed: Notify,
    last_sync: std::sync::atomic::AtomicI64,
    /// The server has told everything once since the agent started.
    heard: watch::Sender<bool>,
    closed: watch::Sender<bool>,
    /// Counts changes of any bundle.
    bundle_changes: watch::Sender<u64>,
}

impl AgentState {
    pub fn new(config: CacheConfig, jwt_cache_max: usize, clock: Arc<dyn Clock>) -> Self {
        let trust_domain = config.trust_domain.clone();
        let cache = Cache::new(config);
        let jwt = JwtCache::new(jwt_cache_max).counting(cache.uses());
        Self {
            trust_domain,
            clock,
            cache: Mutex::new(cache),
            view: Mutex::new(View::default()),
            jwt: Mutex::new(jwt),
            wit: Mutex::default(),
            noted: Noted::default(),
            standing: OnceLock::new(),
            work: Notify::new(),
            changed: Notify::new(),
            last_sync: std::sync::atomic::AtomicI64::new(0),
            heard: watch::Sender::new(false),
            closed: watch::Sender::new(false),
            bundle_changes: watch::Sender::new(0),
        }
    }

    pub(crate) fn now(&self) -> Millis {
        (self.clock.now_nanos() / 1_000_000) as Millis
    }

    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn jwt(&self) -> MutexGuard<'_, JwtCache> {
        self.jwt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wit(&self) -> MutexGuard<'_, WitCache> {
        self.wit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// WIT-SVIDs that what changed makes void.
    fn drop_wits(&self, changes: &Changes) {
        let mut wits = self.wit();
        for bundle in changes.bundles.iter().filter(|bundle| bundle.trust_domain == self.trust_domain) {
            let tainted: Vec<&str> =
                bundle.wit_authorities.iter().filter(|key| key.tainted).map(|key| &*key.key_id).collect();
            wits.drop_signed_by(&tainted);
        }
        changes.removed.iter().for_each(|id| wits.remove(id));
        changes.rotated.iter().for_each(|entry| wits.remove(&entry.id));
    }

    /// Puts what a sync brought in force.
    pub(crate) fn apply(&self, changes: &Changes) {
        for bundle in changes.bundles.iter().filter(|bundle| bundle.trust_domain == self.trust_domain) {
            let keys = bundle.jwt_authorities.iter().filter(|key| !key.tainted);
            let dropped = self.jwt().keep_signed_by(&keys.map(|key| &*key.key_id).collect());
            report::tell_dropped_jwts(dropped);
        }
        if !changes.rotated.is_empty() {
            let rotated = changes.rotated.iter().map(|entry| &entry.spiffe_id).collect();
            self.jwt().drop_of(&rotated);
            tracing::info!(
                subsystem_name = "manager",
                entries = changes.rotated.len(),
                "Issuing SVIDs again on the server's order"
            );
        }
        self.drop_wits(changes);
        let mut told = Report::default();
        if !changes.is_empty() {
            let mut cache = self.cache();
            told = Report::of(changes, &cache);
            self.noted.note(changes, &cache, self.clock.now());
            cache.apply(changes, self.now());
            let (entries, distrusted) = (cache.entry_count() as f64, cache.take_distrusted());
            drop(cache);
            report::tell_tainted_svids(distrusted);
            if !(changes.bundles.is_empty() && changes.removed_bundles.is_empty()) {
                self.bundle_changes.send_modify(|count| *count += 1);
            }
            self.work.notify_one();
            metrics::gauge!("lru_cache_record_map_size", "svid_type" => "X509").set(entries);
            metrics::gauge!("sync_entries_total").set(entries);
            metrics::gauge!("sync_bundles_total").set(self.view().bundle_count() as f64);
        }
        told.tell();
        self.changed.notify_one();
    }

    /// The entries in force were told to another agent than this one is now: they stay until a complete view takes their
    /// place.
    pub fn start_over(&self) {
        self.view().start_over();
    }

    /// Drops every entry, identity, key and token: workloads are told that they have none. Bundles stay, they are no
    /// secret.
    pub fn forget(&self) {
        let changes = self.view().forget();
        self.jwt().clear();
        self.apply(&changes);
    }

    /// Where the agent stands with its server; told once.
    pub fn know_standing(&self, standing: watch::Receiver<Stand>) {
        let _ = self.standing.set(standing);
    }

    /// `None` where nobody told.
    pub(crate) fn stand(&self) -> Option<Stand> {
        self.standing.get().map(|standing| standing.borrow().clone())
    }

    /// Grows with each change of the view.
    pub(crate) fn view_changes(&self) -> u64 {
        self.noted.changes()
    }

    /// Entries that expired and were pruned, as far as remembered.
    pub(crate) fn expired(&self) -> Vec<Arc<Entry>> {
        self.noted.expired().iter().cloned().collect()
    }

    /// The wall clock jumped: whatever waits for a time is looked at anew.
    pub fn clock_turned(&self) {
        let now = self.now();
        self.cache().clock_turned(now);
        self.work.notify_one();
    }

    pub(crate) fn bundle_changes(&self) -> watch::Receiver<u64> {
        self.bundle_changes.subscribe()
    }

    /// Answers and ends every call to the Workload API: clients connect again, to the agent that comes next.
    pub fn close(&self) {
        self.closed.send_replace(true);
        self.cache().close();
    }

    /// The result of `call`, or [`AgentState::stopping`] once the agent stops.
    pub(crate) async fn unless_closed<T>(
        &self,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<T, Status> {
        let mut closed = self.closed.subscribe();
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => Err(Self::stopping()),
            result = call => result,
        }
    }

    /// Clients take it for a reason to connect again.
    pub(crate) fn stopping() -> Status {
        Status::unavailable("the agent is stopping")
    }

    pub(crate) fn synced(&self) {
        self.last_sync.store(self.clock.now(), std::sync::atomic::Ordering::Relaxed);
        self.heard.send_if_modified(|heard| !std::mem::replace(heard, true));
    }

    /// Returns once the server has told everything since the agent started, or after `most`: what was kept sealed may be
    /// half a second older than what was served before.
    pub(crate) async fn heard(&self, most: std::time::Duration) {
        let mut heard = self.heard.subscribe();
        let _ = tokio::time::timeout(most, heard.wait_for(|heard| *heard)).await;
    }

    /// Unix seconds of the last word from the server, 0 if none.
    pub fn last_sync(&self) -> i64 {
        self.last_sync.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Of who receives X.509-SVIDs.
    pub(crate) fn subscribe(self: &Arc<Self>, selectors: &SelectorSet) -> Subscribed {
        let subscription = self.cache().subscribe(selectors, self.now());
        self.work.notify_one();
        Subscribed { state: self.clone(), subscription }
    }

    /// Of who needs to know entries and bundles: nothing is signed for it.
    pub(crate) fn watch(self: &Arc<Self>, selectors: &SelectorSet) -> Subscribed {
        let subscription = self.cache().watch(selectors, self.now());
        Subscribed { state: self.clone(), subscription }
    }

    /// Drops what is too much for `svid_cache_max_bytes`. For whoever put something into a cache, or has no more use of
    /// it.
    pub(crate) fn keep_budget(&self) {
        // Always in this order.
        let mut cache = self.cache();
        if cache.max_bytes() == usize::MAX {
            return;
        }
        let held = budget::keep(&mut cache, &mut self.jwt(), self.now());
        drop(cache);
        metrics::gauge!("svid_cache_bytes").set(held as f64);
        // What went may have left room to sign ahead.
        self.work.notify_one();
    }

    /// X.509-SVIDs and JWT-SVIDs held.
    pub fn svid_counts(&self) -> (usize, usize) {
        (self.cache().svid_count(), self.jwt().len())
    }
}

/// A subscription that ends with its holder.
pub(crate) struct Subscribed {
    state: Arc<AgentState>,
    pub subscription: Subscription,
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        self.state.cache().unsubscribe(self.subscription.group, self.state.now());
        self.state.keep_budget();
        self.state.work.notify_one();
    }
}
