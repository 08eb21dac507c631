//! Federation: who asks bundle endpoints when the schedule says so, and our own bundle endpoint.

mod endpoint;
mod poll;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use steeple_datastore::{Datastore, PageRequest};
use steeple_runtime::clock::Clock;
use steeple_server_core::federation::{Attempt, Moved, Order, Orders, Refreshed, Schedule, Target};
use steeple_server_core::view::{Bundles, View};
use steeple_spiffe::TrustDomain;
use tokio::sync::oneshot;

pub use endpoint::bind as bind_endpoint;
use poll::Poller;

/// SPIRE's interval. What our servers write, the change log tells at once; this is for what a SPIRE server on the same
/// database writes.
const RELOAD_EVERY: Duration = Duration::from_secs(10);

/// Runs the schedule.
pub struct Runner {
    poller: Poller,
    store: Arc<dyn Datastore>,
    view: Arc<View>,
    clock: Arc<dyn Clock>,
    statics: BTreeMap<TrustDomain, Target>,
    schedule: Schedule,
    orders: Orders,
    /// Who waits for the next attempt.
    waiting: HashMap<TrustDomain, Vec<Reply>>,
}

type Reply = oneshot::Sender<Refreshed>;

/// An attempt that is over, and who waits for it.
type Done = (TrustDomain, Attempt, Vec<Reply>);

impl Runner {
    pub fn new(
        store: Arc<dyn Datastore>,
        view: Arc<View>,
        clock: Arc<dyn Clock>,
        statics: BTreeMap<TrustDomain, Target>,
        orders: Orders,
    ) -> Self {
        let poller = Poller { store: store.clone(), view: view.clone(), clock: clock.clone() };
        Self {
            poller,
            store,
            view,
            clock,
            statics,
            schedule: Schedule::new(),
            orders,
            waiting: HashMap::new(),
        }
    }

    /// Never returns; drop the future to stop.
    pub async fn run(mut self) {
        let mut polls: FuturesUnordered<futures::future::BoxFuture<'static, Done>> = FuturesUnordered::new();
        let mut relationships = self.view.watch_relationships();
        let mut bundles = self.view.watch_bundles();
        let mut known = bundles.borrow_and_update().clone();
        let mut reload = tokio::time::interval(RELOAD_EVERY);
        reload.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            for (trust_domain, target) in self.schedule.start_due(self.clock.now()) {
                let waiting = self.waiting.remove(&trust_domain).unwrap_or_default();
                polls.push(Box::pin(attempt(self.poller.clone(), trust_domain, target, waiting)));
            }
            self.orders.publish(self.schedule.states());
            let due = self.until_next();
            tokio::select! {
                Some(done) = polls.next() => self.finished(done),
                order = self.orders.next() => self.ordered(order).await,
                _ = reload.tick() => self.reload().await,
                Ok(()) = relationships.changed() => self.reload().await,
                Ok(()) = bundles.changed() => {
                    let now = bundles.borrow_and_update().clone();
                    self.bundles_changed(&known, &now);
                    known = now;
                }
                () = tokio::time::sleep(due) => {}
            }
        }
    }

    fn until_next(&self) -> Duration {
        let next = self.schedule.next().map(|next| next.saturating_sub(self.clock.now()).max(0));
        // The wall clock may be turned meanwhile: look again before long.
        next.map_or(RELOAD_EVERY, |seconds| Duration::from_secs(seconds as u64)).min(RELOAD_EVERY)
    }

    async fn ordered(&mut self, order: Order) {
        self.reload().await;
        if self.schedule.demand(&order.trust_domain, self.clock.now()) {
            self.waiting.entry(order.trust_domain).or_default().push(order.reply);
        } else {
            // Who asked may have gone.
            let _ = order.reply.send(Refreshed::Unmanaged);
        }
    }

    async fn reload(&mut self) {
        let page = PageRequest::default();
        let stored = match self.store.list_federation_relationships(&page, false).await {
            Ok(page) => page.items,
            Err(error) => {
                tracing::error!(subsystem_name = "bundle_client", %error, "Failed to reload configs");
                return;
            }
        };
        let mut targets = BTreeMap::new();
        for one in stored.into_iter().filter(|one| one.trust_domain != *self.view.trust_domain()) {
            let target = Target { url: one.bundle_endpoint_url, profile: one.profile, is_static: false };
            targets.insert(one.trust_domain, target);
        }
        targets.extend(self.statics.clone());
        for (trust_domain, moved) in self.schedule.set_targets(targets, self.clock.now()) {
            if moved == Moved::Unmanaged {
                for reply in self.waiting.remove(&trust_domain).unwrap_or_default() {
                    let _ = reply.send(Refreshed::Unmanaged);
                }
            }
            log_moved(&trust_domain, &moved);
        }
    }

    fn bundles_changed(&mut self, before: &Bundles, after: &Bundles) {
        let now = self.clock.now();
        let gone = before.keys().filter(|trust_domain| !after.contains_key(*trust_domain));
        let changed = after.iter().filter(|(trust_domain, bundle)| {
            before.get(*trust_domain).is_none_or(|before| !Arc::ptr_eq(before, bundle))
        });
        for trust_domain in gone.chain(changed.map(|(trust_domain, _)| trust_domain)) {
            self.schedule.bundle_changed(trust_domain, now);
        }
    }

    fn finished(&mut self, (trust_domain, attempt, waiting): Done) {
        let refreshed = match &attempt.error {
            None => Refreshed::Done,
            Some(why) => Refreshed::Failed(why.clone()),
        };
        if let Some(next) = self.schedule.finished(&trust_domain, attempt, self.clock.now()) {
            tracing::debug!(
                subsystem_name = "bundle_client",
                trust_domain = trust_domain.name(),
                at = steeple_cli::go::rfc3339_utc(next),
                "Scheduling next bundle refresh"
            );
        } else {
            tracing::info!(
                subsystem_name = "bundle_client",
                trust_domain = trust_domain.name(),
                "No longer polling for updates"
            );
        }
        // The state that `ListStates` shows is that of after the refresh.
        self.orders.publish(self.schedule.states());
        for reply in waiting {
            let _ = reply.send(refreshed.clone());
        }
    }
}

async fn attempt(poller: Poller, trust_domain: TrustDomain, target: Target, waiting: Vec<Reply>) -> Done {
    let attempt = poller.attempt(&trust_domain, &target).await;
    (trust_domain, attempt, waiting)
}

fn log_moved(trust_domain: &TrustDomain, moved: &Moved) {
    let trust_domain = trust_domain.name();
    match moved {
        Moved::Managed(target) => tracing::info!(
            subsystem_name = "bundle_client",
            trust_domain,
            bundle_endpoint_profile = target.profile.name(),
            bundle_endpoint_url = target.url,
            "Trust domain is now managed"
        ),
        Moved::Updated(target) => tracing::info!(
            subsystem_name = "bundle_client",
            entry = trust_domain,
            bundle_endpoint_profile = target.profile.name(),
            bundle_endpoint_url = target.url,
            "Updated configuration for managed trust domain"
        ),
        Moved::Unmanaged => tracing::info!(
            subsystem_name = "bundle_client",
            entry = trust_domain,
            "Trust domain no longer managed"
        ),
    }
}

#[cfg(test)]
mod tests;
