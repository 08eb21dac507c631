//! The agent's own SVID: attest, store, renew, attest again, and go on whatever the server says.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steeple_agent_core::agent_data::AgentData;
use steeple_agent_core::node::{self, Denial, Failure, Next, Node, Patience, Standing, Start, Time};
use steeple_agent_core::rotation::RotationPolicy;
use steeple_plugin::{AgentNodeAttestor, KeyManager, KeyManagerError};
use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use steeple_proto::spire::api::server::agent::v1::{
    AgentX509svidParams, AttestAgentRequest, RenewAgentRequest, attest_agent_request, attest_agent_response,
};
use steeple_proto::spire::api::server::bundle::v1::{GetBundleRequest, bundle_client::BundleClient};
use steeple_proto::spire::api::types;
use steeple_runtime::clock::Clock;
use steeple_runtime::metrics::CallCounter;
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{Certificate, SpiffeId, TrustDomain};
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::convert;
use crate::failure::ServerError;
use crate::link::{RPC_TIMEOUT, ServerLink};
use crate::storage::{Storage, StorageError};

mod attestation;
mod bootstrap;
mod keys;
mod recovery;
mod standing;

pub use attestation::{TrustError, TrustSource};
pub use bootstrap::Attempt;
use bootstrap::Bootstrap;
use keys::AgentKeys;
use standing::Standings;
pub use standing::{Forget, Stand, advice};

/// What an [`AgentIdentity`] works with.
pub struct IdentityConfig {
    pub trust_domain: TrustDomain,
    pub storage: Storage,
    pub keys: Arc<dyn KeyManager>,
    pub attestor: Arc<dyn AgentNodeAttestor>,
    pub trust: Arc<dyn TrustSource>,
    pub clock: Arc<dyn Clock>,
    /// `rebootstrap_mode`, `rebootstrap_delay`
    pub patience: Patience,
    /// `availability_target` counts for the agent's own SVID, too (SPIRE).
    pub rotation: RotationPolicy,
    /// False restores SPIRE's exits (`experimental.recover_in_process`).
    pub recovers: bool,
}

/// See the [module](self).
pub struct AgentIdentity {
    config: IdentityConfig,
    keys: AgentKeys,
    link: Arc<ServerLink>,
    held: Mutex<Held>,
    standings: Standings,
    clockwork: Mutex<recovery::Clockwork>,
    /// Counts attestations: what the server knows of an agent begins anew with each.
    attestations: AtomicU64,
    /// Held while the file is written, so that what is newest is written last.
    storing: tokio::sync::Mutex<()>,
    /// The node state machine changed.
    changed: Notify,
}

struct Held {
    data: AgentData,
    key_id: Option<String>,
    node: Node,
    /// Nothing was on disk: this agent has never been one.
    fresh: bool,
    bootstrap: Bootstrap,
    /// Subject key ids of tainted authorities, and how many SVIDs in a row stood under one.
    tainted: HashSet<Vec<u8>>,
    tainted_tries: u32,
}

impl Held {
    fn is_tainted(&self) -> bool {
        let signed_by = |part: &Certificate| {
            part.authority_key_id().is_some_and(|authority| self.tainted.contains(&authority))
        };
        self.data.svid.iter().any(signed_by)
    }
}

/// Why the agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("agent key: {0}")]
    Key(#[from] KeyManagerError),
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("SVID loaded but no bundle in cache")]
    NoBundle,
    #[error("{0}")]
    Svid(String),
    #[error("{0}")]
    GaveUp(&'static str),
}

impl IdentityError {
    /// What it means for the next try. PermissionDenied ends attestation at once in SPIRE, too; a join token that the
    /// server does not take (InvalidArgument) does not get better either.
    fn failure(&self) -> Failure {
        match self {
            Self::Server(error) if error.code == Code::PermissionDenied => Failure::Refused,
            Self::Server(error) if error.code == Code::InvalidArgument => Failure::NoProof,
            _ => Failure::Passing,
        }
    }

    /// An agent that has never been one need not wait: its configuration is wrong.
    fn is_final(&self) -> bool {
        match self {
            Self::Server(error) => self.failure() != Failure::Passing || error.is_another_trust_domain(),
            Self::Trust(error) => !error.passing,
            _ => true,
        }
    }

    fn is_unknown_authority(&self) -> bool {
        matches!(self, Self::Server(error) if error.is_unknown_authority())
    }
}

/// The wall clock may jump: looked at again at least this often.
const LOOK: i64 = 5_000;

impl AgentIdentity {
    pub fn new(config: IdentityConfig, link: Arc<ServerLink>) -> Self {
        let keys = AgentKeys(config.keys.clone());
        let held = Held {
            data: AgentData::default(),
            key_id: None,
            node: Node::new(config.patience, None).rotating(config.rotation),
            fresh: true,
            bootstrap: Bootstrap::default(),
            tainted: HashSet::new(),
            tainted_tries: 0,
        };
        Self {
            keys,
            link,
            held: Mutex::new(held),
            standings: Standings::new(config.clock.now()),
            clockwork: Mutex::default(),
            attestations: AtomicU64::new(0),
            storing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            config,
        }
    }

    /// Takes up the stored SVID, or attests. An agent that has never been one ends here if it is refused; any other
    /// goes on until it is let in.
    pub async fn establish(&self) -> Result<(), IdentityError> {
        let deadline = self.config.clock.monotonic() + recovery::give_up_after(&self.config);
        self.load().await?;
        self.check_rebootstrap()?;
        while !self.standings.newest().may_talk {
            self.step(Some(deadline)).await?;
        }
        self.check_rebootstrap()
    }

    /// Keeps the SVID fresh. Ends only where SPIRE's agent would and the configuration says so.
    pub async fn run(&self) -> Result<(), IdentityError> {
        loop {
            self.step(None).await?;
        }
    }

    /// Has everything looked at now: the clock was turned, or an operator did something.
    pub fn look(&self) {
        self.changed.notify_one();
    }

    /// Where the agent stands, and every change of it.
    pub fn standings(&self) -> watch::Receiver<Stand> {
        self.standings.subscribe()
    }

    /// `forget` runs once whenever nothing that the agent holds may be used any longer: banned, evicted for good, refused.
    pub fn when_forfeited(&self, forget: Forget) {
        self.standings.when_forfeited(forget);
    }

    /// `turned` runs whenever the wall clock jumped, at most [`LOOK`] later.
    pub fn when_clock_turned(&self, turned: Forget) {
        self.clockwork.lock().unwrap_or_else(PoisonError::into_inner).turned.push(turned);
    }

    /// Returns once there is an SVID to talk to the server with.
    pub(crate) async fn may_talk(&self) {
        // The sender lives as long as this.
        let _ = self.standings.subscribe().wait_for(|stand| stand.may_talk).await;
    }

    pub(crate) fn can_talk(&self) -> bool {
        self.standings.newest().may_talk
    }

    pub(crate) fn attestations(&self) -> u64 {
        self.attestations.load(Ordering::Relaxed)
    }

    /// Does the next thing, or waits for its time.
    async fn step(&self, deadline: Option<Duration>) -> Result<(), IdentityError> {
        self.mind_the_clock();
        let next = self.held().node.next(self.time());
        let outcome = match next {
            Next::Wait(left) => {
                let wait = Duration::from_millis(left.clamp(0, LOOK) as u64);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.changed.notified() => {}
                }
                return Ok(());
            }
            Next::Rebootstrap => return self.rebootstrap().await,
            Next::Renew => self.counted(CallCounter::start(&["agent_svid", "rotate"]), self.renew()).await,
            Next::Attest => {
                let first = self.held().data.svid.is_empty();
                let call = if first {
                    CallCounter::start(&["node", "attestor", "new_svid"])
                        .label("attestor", self.config.attestor.name())
                } else {
                    CallCounter::start(&["agent_svid", "rotate"])
                };
                self.counted(call, self.attest()).await
            }
        };
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => self.stumbled(next, error, deadline).await,
        }
    }

    async fn counted(
        &self,
        call: CallCounter,
        attempt: impl Future<Output = Result<(), IdentityError>>,
    ) -> Result<(), IdentityError> {
        let outcome = attempt.await;
        call.done(if outcome.is_ok() { Code::Ok } else { Code::Unknown });
        outcome
    }

    /// The server wants a new agent SVID now.
    pub(crate) fn rotate_now(&self) {
        let time = self.time();
        self.held().node.rotate_now(time);
        self.changed.notify_one();
    }

    /// Has the SVID replaced at once if it stands under an authority that is tainted now and was not before.
    fn leave_tainted(&self, bundle: &Bundle) {
        let tainted = bundle.x509_authorities.iter().filter(|authority| authority.tainted);
        let tainted: HashSet<Vec<u8>> =
            tainted.filter_map(|authority| authority.certificate.subject_key_id()).collect();
        let time = self.time();
        let mut held = self.held();
        let is_new = tainted.iter().any(|id| !held.tainted.contains(id));
        held.tainted = tainted;
        if !is_new || !held.is_tainted() {
            return;
        }
        held.tainted_tries = 0;
        held.node.tainted(0, time);
        drop(held);
        tracing::info!(
            subsystem_name = "manager",
            "Agent SVID is tainted by a root authority, forcing rotation"
        );
        self.changed.notify_one();
    }

    /// The own trust domain's bundle changed.
    pub(crate) async fn bundle_changed(&self, bundle: &Bundle) -> Result<(), IdentityError> {
        self.leave_tainted(bundle);
        let authorities: Vec<Certificate> =
            bundle.x509_authorities.iter().map(|authority| authority.certificate.clone()).collect();
        self.link.bundles.set(&self.config.trust_domain, authorities.clone());
        self.held().data.bundle = authorities;
        self.store().await
    }

    /// The agent's chain, leaf first.
    pub fn chain(&self) -> Vec<Certificate> {
        self.held().data.svid.clone()
    }

    /// The agent's chain and, last, the authority it ends at.
    pub fn verified_chain(&self) -> Vec<Certificate> {
        let held = self.held();
        let mut chain = held.data.svid.clone();
        let root = chain.last().and_then(|last| {
            held.data.bundle.iter().find(|root| last.verify_signature_by(&root.public_key()).is_ok())
        });
        chain.extend(root.cloned());
        chain
    }

    pub fn spiffe_id(&self) -> Option<SpiffeId> {
        self.held().data.svid.first().and_then(|leaf| leaf.spiffe_id().ok())
    }

    /// Takes up the stored SVID or attests, without a second try.
    pub async fn establish_once(&self) -> Result<(), IdentityError> {
        self.load().await?;
        if self.can_talk() { Ok(()) } else { self.attest().await }
    }

    /// Takes up what is on disk, if it is of use.
    async fn load(&self) -> Result<(), IdentityError> {
        let data = self.config.storage.load()?;
        if data.bundle.is_empty() {
            tracing::info!(subsystem_name = "attestor", "Bundle is not found");
        } else {
            tracing::info!(
                subsystem_name = "attestor",
                trust_domain_id = self.config.trust_domain.as_id_str(),
                "Bundle loaded"
            );
        }
        let keys = self.keys.all().await?;
        let leaf = data.svid.first();
        let mine = leaf.and_then(|leaf| keys.iter().find(|(_, key)| *key == leaf.public_key()));
        let found = node::Found {
            svid_expires_at: leaf.map(Certificate::not_after),
            has_its_key: mine.is_some(),
            has_keys: !keys.is_empty(),
        };
        let key_id = mine.map(|(id, _)| id.clone());
        let loaded = data.clone();
        let (time, now) = (self.time(), self.config.clock.now());
        let start = node::start(found, time.wall);
        {
            let mut held = self.held();
            let known = leaf.is_some().then_some(data.reattestable);
            held.node = Node::new(self.config.patience, known).rotating(self.config.rotation);
            if leaf.is_some() && start != Start::UseStored {
                held.node.found_expired();
            }
            held.fresh = data.svid.is_empty() && data.bundle.is_empty();
            held.bootstrap = Bootstrap::from_stored(&data.bootstrap, !data.bundle.is_empty());
            if let Some(since) = held.bootstrap.distrusting() {
                held.node.untrusted_for((now - since) * 1000, time);
            }
            (held.data, held.key_id) = (data, key_id);
        }
        match start {
            Start::UseStored if loaded.bundle.is_empty() => Err(IdentityError::NoBundle),
            Start::UseStored => {
                self.link.bundles.set(&self.config.trust_domain, loaded.bundle.clone());
                self.take_up(loaded.svid, (loaded.reattestable, false)).await?;
                let id = self.spiffe_id().map(|id| id.to_string()).unwrap_or_default();
                tracing::info!(subsystem_name = "attestor", spiffe_id = id, "SVID loaded");
                Ok(())
            }
            Start::Attest(reason) => {
                if let Some(reason) = reason {
                    tracing::warn!(subsystem_name = "attestor", "{reason}");
                }
                // An old SVID that is of no use must not be shown to the server.
                self.held().data.svid.clear();
                tracing::info!(subsystem_name = "attestor", "SVID is not found. Starting node attestation");
                self.update(None, |_, _| ());
                Ok(())
            }
        }
    }

    /// Presents `chain` with the held key and stores both.
    async fn take_up(
        &self,
        chain: Vec<Certificate>,
        (reattestable, fresh): (bool, bool),
    ) -> Result<(), IdentityError> {
        let leaf = chain.first().ok_or_else(|| IdentityError::Svid("empty SVID cert chain".into()))?;
        let id = leaf.spiffe_id().map_err(|error| IdentityError::Svid(format!("agent SVID: {error}")))?;
        if !id.is_member_of(&self.config.trust_domain) {
            return Err(IdentityError::Svid(format!(
                "the server issued {id}, which is not in trust domain {}: check trust_domain",
                self.config.trust_domain
            )));
        }
        let validity = (leaf.not_before(), leaf.not_after());
        let key_id = self.held().key_id.clone().unwrap_or_default();
        self.keys.present(&self.link.identity, &chain, &key_id).await?;
        {
            let mut held = self.held();
            held.data.svid = chain;
            held.data.reattestable = reattestable;
            held.fresh = false;
            held.tainted_tries = if held.is_tainted() { held.tainted_tries.saturating_add(1) } else { 0 };
            if fresh {
                held.bootstrap.succeeded();
            }
        }
        self.store().await?;
        self.link.reconnect()?;
        let tainted = self.held().tainted_tries;
        self.update(None, |node, time| {
            node.took_up(validity, (reattestable, fresh), fastrand::f64(), time);
            if tainted > 0 {
                node.tainted(tainted, time);
            }
        });
        Ok(())
    }

    async fn renew(&self) -> Result<(), IdentityError> {
        tracing::debug!(subsystem_name = "manager", "Rotating agent SVID");
        let current = self.held().key_id.clone();
        let (key_id, csr) = self.keys.next_csr(current.as_deref()).await?;
        let request = RenewAgentRequest { params: Some(AgentX509svidParams { csr }) };
        let response = timed("renewing the agent's SVID", self.link.agent().renew_agent(request)).await?;
        let chain = attestation::chain(response.svid)?;
        self.held().key_id = Some(key_id);
        if let Err(error) = self.take_up(chain, (false, true)).await {
            self.held().key_id = current;
            return Err(error);
        }
        tracing::info!(subsystem_name = "manager", "Successfully rotated agent SVID");
        Ok(())
    }

    /// Writes what is held. It waits for the disk, which no runtime thread and no lock may.
    async fn store(&self) -> Result<(), IdentityError> {
        let _turn = self.storing.lock().await;
        let data = {
            let mut held = self.held();
            held.data.bootstrap = held.bootstrap.stored();
            held.data.clone()
        };
        let storage = self.config.storage.clone();
        let written = tokio::task::spawn_blocking(move || storage.store(&data)).await;
        written.map_err(|error| IdentityError::Svid(format!("storing the agent's SVID: {error}")))??;
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn time(&self) -> Time {
        let steady = self.config.clock.monotonic().as_millis() as i64;
        Time { wall: (self.config.clock.now_nanos() / 1_000_000) as i64, steady }
    }
}

/// A unary call with SPIRE's deadline.
pub(crate) async fn timed<T>(
    what: &str,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, ServerError> {
    match tokio::time::timeout(RPC_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(ServerError::new(what, &status)),
        Err(_) => Err(ServerError::timed_out(what)),
    }
}
