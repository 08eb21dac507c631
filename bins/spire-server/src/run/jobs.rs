//! What a server does from time to time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steeple_datastore::Datastore;
use steeple_runtime::clock::Clock;
use steeple_runtime::metrics::CallCounter;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_server_core::ca::CaManager;
use steeple_server_core::view::{Bundles, View};
use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;
use tokio::sync::watch;
use tonic::Code;

use super::TICK;
use super::identity::ServerIdentity;
use super::metered::Rotations;
use crate::config::{Config, PruneAgents};

/// SPIRE's interval.
const PRUNE_ENTRIES_EVERY: Duration = Duration::from_mins(5);
/// SPIRE's interval, which it varies by a quarter.
const PRUNE_AGENTS_EVERY: Duration = Duration::from_hours(1);
/// SPIRE keeps spent time's tokens for ever; we keep them a day, so that their owner still reads "expired".
const PRUNE_TOKENS_EVERY: Duration = Duration::from_hours(1);
const KEEP_TOKENS: i64 = 24 * 3600;
/// How much of the change log other servers may lag behind before they start over from a snapshot.
const TRIM_LOG_EVERY: Duration = Duration::from_mins(10);
const KEEP_LOG: u64 = 100_000;

/// How the last rotations went, for the health check. Clones are the same.
#[derive(Clone)]
pub struct Rotation {
    failures: Arc<Mutex<Failures>>,
    metrics: Arc<Rotations>,
    bundle: OwnBundle,
}

/// Tells of changes of our own bundle, whoever makes them.
#[derive(Clone)]
pub struct OwnBundle {
    trust_domain: TrustDomain,
    bundles: watch::Receiver<Bundles>,
    seen: Option<Arc<Bundle>>,
}

impl OwnBundle {
    pub fn new(view: &View, config: &Config) -> Self {
        let (trust_domain, bundles) = (config.trust_domain.clone(), view.watch_bundles());
        let seen = bundles.borrow().get(&trust_domain).cloned();
        Self { trust_domain, bundles, seen }
    }

    /// Never, once there is no view any more.
    async fn changed(&mut self) {
        loop {
            if self.bundles.changed().await.is_err() {
                return std::future::pending().await;
            }
            let now = self.bundles.borrow_and_update().get(&self.trust_domain).cloned();
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Failures {
    in_a_row: u32,
    last: String,
}

impl Rotation {
    pub fn new(metrics: Arc<Rotations>, bundle: OwnBundle) -> Self {
        Self { failures: Arc::default(), metrics, bundle }
    }

    /// How often it failed in a row, and why the last time.
    pub fn failures(&self) -> (u32, String) {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        (failures.in_a_row, failures.last.clone())
    }

    fn note(&self, outcome: Result<(), String>) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(()) => *failures = Failures::default(),
            Err(error) => {
                failures.in_a_row += 1;
                failures.last = error;
            }
        }
    }
}

pub fn spawn(
    tasks: &TaskGroup,
    config: &Config,
    store: &Arc<dyn Datastore>,
    ca: &Arc<CaManager>,
    identity: &ServerIdentity,
    clock: &Arc<dyn Clock>,
    rotation: &Rotation,
) {
    let until_shutdown = |name, job: Job| tasks.spawn_until_shutdown(name, OnEnd::Shutdown, job);
    until_shutdown("rotation", boxed(rotate(ca.clone(), identity.clone(), clock.clone(), rotation.clone())));
    until_shutdown("prune entries", boxed(prune_entries(store.clone(), clock.clone())));
    until_shutdown("prune join tokens", boxed(prune_tokens(store.clone(), clock.clone())));
    until_shutdown("trim change log", boxed(trim_log(store.clone())));
    if let Some(prune) = config.prune_agents {
        until_shutdown("prune agents", boxed(prune_agents(store.clone(), clock.clone(), prune)));
    }
}

type Job = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn boxed(job: impl Future<Output = ()> + Send + 'static) -> Job {
    Box::pin(job)
}

/// Authorities, then our own SVID, which a new authority may have to sign. Another server may have tainted what either
/// stands under: a change of the bundle is looked at without waiting for the time.
async fn rotate(ca: Arc<CaManager>, identity: ServerIdentity, clock: Arc<dyn Clock>, mut rotation: Rotation) {
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = rotation.bundle.changed() => {}
        }
        let start = rotation.metrics.start();
        let outcome = ca.rotate(clock.now()).await.map_err(|e| e.to_string());
        rotation.metrics.done(start, outcome.is_ok().then_some(&*ca), clock.now());
        if let Err(error) = &outcome {
            tracing::error!(subsystem_name = "ca_manager", error, "Unable to rotate authorities");
        }
        rotation.note(outcome);
        if let Err(e) = identity.rotate_if_due().await {
            tracing::error!(
                subsystem_name = "svid_rotator",
                error = format!("{e:#}"),
                "Could not rotate server SVID"
            );
        }
    }
}

async fn prune_entries(store: Arc<dyn Datastore>, clock: Arc<dyn Clock>) {
    loop {
        tokio::time::sleep(PRUNE_ENTRIES_EVERY).await;
        let call = CallCounter::start(&["registration_entry", "manager", "prune"]);
        let outcome = store.prune_entries(clock.now()).await;
        call.done(if outcome.is_ok() { Code::Ok } else { Code::Internal });
        report("Pruned an expired registration", "registration entries", outcome);
    }
}

async fn prune_tokens(store: Arc<dyn Datastore>, clock: Arc<dyn Clock>) {
    loop {
        tokio::time::sleep(PRUNE_TOKENS_EVERY).await;
        report(
            "Pruned expired join tokens",
            "join tokens",
            store.prune_join_tokens(clock.now() - KEEP_TOKENS).await,
        );
    }
}

async fn trim_log(store: Arc<dyn Datastore>) {
    loop {
        tokio::time::sleep(TRIM_LOG_EVERY).await;
        report("Trimmed the change log", "the change log", store.trim_log(KEEP_LOG).await);
    }
}

fn report(done: &str, what: &str, outcome: steeple_datastore::Result<u64>) {
    match outcome {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "{done}"),
        Err(e) => tracing::error!(error = %e, "Failed pruning {what}"),
    }
}

async fn prune_agents(store: Arc<dyn Datastore>, clock: Arc<dyn Clock>, prune: PruneAgents) {
    loop {
        tokio::time::sleep(PRUNE_AGENTS_EVERY.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
        let call = CallCounter::start(&["node", "manager", "prune"]);
        let outcome = store.prune_agents(clock.now() - prune.expired_for, prune.tofu, prune.batch).await;
        call.done(if outcome.is_ok() { Code::Ok } else { Code::Internal });
        report("Pruned expired agents", "agents", outcome);
    }
}
