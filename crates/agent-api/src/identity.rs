//! The agent's own SVID: attest, store, renew, attest again, give up.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steeple_agent_core::agent_data::AgentData;
use steeple_agent_core::node::{self, Denial, Next, Node, Start, Verdict};
use steeple_plugin::{AgentNodeAttestor, KeyManager, KeyManagerError};
use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use steeple_proto::spire::api::server::agent::v1::{
    AgentX509svidParams, AttestAgentRequest, RenewAgentRequest, attest_agent_request, attest_agent_response,
};
use steeple_proto::spire::api::server::bundle::v1::{GetBundleRequest, bundle_client::BundleClient};
use steeple_proto::spire::api::types;
use steeple_runtime::backoff::Backoff;
use steeple_runtime::clock::Clock;
use steeple_runtime::metrics::CallCounter;
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{Certificate, SpiffeId, TrustDomain};
use tokio::sync::{Notify, mpsc};
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

pub use attestation::{TrustError, TrustSource};
use bootstrap::Bootstrap;
use keys::AgentKeys;

/// What an [`AgentIdentity`] works with.
pub struct IdentityConfig {
    pub trust_domain: TrustDomain,
    pub storage: Storage,
    pub keys: Arc<dyn KeyManager>,
    pub attestor: Arc<dyn AgentNodeAttestor>,
    pub trust: Arc<dyn TrustSource>,
    pub clock: Arc<dyn Clock>,
}

/// See the [module](self).
pub struct AgentIdentity {
    config: IdentityConfig,
    keys: AgentKeys,
    link: Arc<ServerLink>,
    held: Mutex<Held>,
    /// Held while the file is written, so that what is newest is written last.
    storing: tokio::sync::Mutex<()>,
    /// The node state machine changed.
    changed: Notify,
}

#[derive(Default)]
struct Held {
    data: AgentData,
    key_id: Option<String>,
    node: Option<Node>,
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
    /// Trying again cannot help. PermissionDenied ends attestation at once in SPIRE too; a join token that the server
    /// does not take (InvalidArgument) does not get better either.
    fn is_final(&self) -> bool {
        match self {
            Self::Server(error) => {
                matches!(error.code, Code::PermissionDenied | Code::InvalidArgument)
                    || error.is_another_trust_domain()
            }
            Self::Trust(error) => !error.passing,
            _ => true,
        }
    }
}

/// SPIRE's attestation loop: first wait 5 s, given up after a minute.
const ATTEST_FIRST_WAIT: Duration = Duration::from_secs(5);
const ATTEST_GIVE_UP: Duration = Duration::from_mins(1);

impl AgentIdentity {
    pub fn new(config: IdentityConfig, link: Arc<ServerLink>) -> Self {
        let keys = AgentKeys(config.keys.clone());
        let (held, storing) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { config, keys, link, held, storing, changed: Notify::new() }
    }

    /// Takes up the stored SVID or attests, with SPIRE's patience.
    pub async fn establish(&self) -> Result<(), IdentityError> {
        let started = self.config.clock.monotonic();
        let mut backoff = Backoff::new(ATTEST_FIRST_WAIT);
        loop {
            match self.establish_once().await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_final() => return Err(error),
                Err(error) => {
                    let wait = backoff.next_wait();
                    if self.config.clock.monotonic() + wait > started + ATTEST_GIVE_UP {
                        return Err(error);
                    }
                    tracing::warn!(error = %error, retry_interval = ?wait, "Failed to retrieve attestation result");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Keeps the SVID fresh until the server says that this agent is no more.
    pub async fn run(&self) -> Result<(), IdentityError> {
        loop {
            let Some(node) = self.held().node else { return Err(IdentityError::NoBundle) };
            let now = self.now();
            let outcome = match node.next(now) {
                Next::Wait(until) => {
                    // The wall clock may jump: look again now and then.
                    let wait = Duration::from_millis((until - now).clamp(0, 5_000) as u64);
                    tokio::select! {
                        () = tokio::time::sleep(wait) => {}
                        () = self.changed.notified() => {}
                    }
                    continue;
                }
                next => {
                    let call = CallCounter::start(&["agent_svid", "rotate"]);
                    let outcome = if next == Next::Renew { self.renew().await } else { self.attest().await };
                    call.done(if outcome.is_ok() { Code::Ok } else { Code::Unknown });
                    outcome
                }
            };
            match outcome {
                Ok(()) => {}
                Err(IdentityError::Server(error)) if error.denial.is_some() => {
                    self.denied(&error).await?;
                }
                Err(error @ IdentityError::GaveUp(_)) => return Err(error),
                Err(error) if matches!(node.next(now), Next::Reattest) && error.is_final() => {
                    tracing::error!(error = %error, "Agent failed re-attestation; removing SVID and shutting down");
                    self.forget().await?;
                    return Err(error);
                }
                Err(error) => {
                    tracing::error!(subsystem_name = "manager", error = %error, "Unable to rotate agent SVID");
                    if let Some(node) = &mut self.held().node {
                        node.failed(self.now());
                    }
                }
            }
        }
    }

    /// What a refusal of this agent means. Errors when the agent has to end.
    pub(crate) async fn denied(&self, error: &ServerError) -> Result<(), IdentityError> {
        let Some(denial) = error.denial else { return Ok(()) };
        let verdict = match &mut self.held().node {
            Some(node) => node.denied(denial),
            None => return Ok(()),
        };
        match verdict {
            Verdict::Reattest => {
                tracing::warn!(error = %error, "Agent needs to re-attest; will attempt to re-attest");
                self.changed.notify_one();
                Ok(())
            }
            Verdict::GiveUp(message) => {
                tracing::error!(error = %error, "{message}");
                self.forget().await?;
                Err(IdentityError::GaveUp(match denial {
                    Denial::Banned => "agent is banned",
                    _ => "agent needs to attest again: the server no longer knows it",
                }))
            }
        }
    }

    /// The server wants a new agent SVID now.
    pub(crate) fn rotate_now(&self) {
        let now = self.now();
        if let Some(node) = &mut self.held().node {
            node.rotate_now(now);
        }
        self.changed.notify_one();
    }

    /// Has the SVID replaced at once if it stands under an authority that is tainted now and was not before.
    fn leave_tainted(&self, bundle: &Bundle) {
        let tainted = bundle.x509_authorities.iter().filter(|authority| authority.tainted);
        let tainted: HashSet<Vec<u8>> =
            tainted.filter_map(|authority| authority.certificate.subject_key_id()).collect();
        let now = self.now();
        let mut held = self.held();
        let is_new = tainted.iter().any(|id| !held.tainted.contains(id));
        held.tainted = tainted;
        if !is_new || !held.is_tainted() {
            return;
        }
        held.tainted_tries = 0;
        if let Some(node) = &mut held.node {
            node.tainted(0, now);
        }
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
        {
            let mut held = self.held();
            (held.data, held.key_id, held.node) = (data, key_id, None);
        }
        match node::start(found, self.now()) {
            Start::UseStored if loaded.bundle.is_empty() => Err(IdentityError::NoBundle),
            Start::UseStored => {
                self.link.bundles.set(&self.config.trust_domain, loaded.bundle.clone());
                self.take_up(loaded.svid, loaded.reattestable).await?;
                let id = self.spiffe_id().map(|id| id.to_string()).unwrap_or_default();
                tracing::info!(subsystem_name = "attestor", spiffe_id = id, "SVID loaded");
                Ok(())
            }
            Start::Attest(reason) => {
                if let Some(reason) = reason {
                    tracing::warn!(subsystem_name = "attestor", "{reason}");
                }
                tracing::info!(subsystem_name = "attestor", "SVID is not found. Starting node attestation");
                let call = CallCounter::start(&["node", "attestor", "new_svid"])
                    .label("attestor", self.config.attestor.name());
                let attested = self.attest().await;
                call.done(if attested.is_ok() { Code::Ok } else { Code::Unknown });
                attested?;
                let id = self.spiffe_id().map(|id| id.to_string()).unwrap_or_default();
                let reattestable = self.held().data.reattestable;
                tracing::info!(
                    subsystem_name = "attestor",
                    spiffe_id = id,
                    reattestable,
                    "Node attestation was successful"
                );
                Ok(())
            }
        }
    }

    /// Presents `chain` with the held key and stores both.
    async fn take_up(&self, chain: Vec<Certificate>, reattestable: bool) -> Result<(), IdentityError> {
        let leaf = chain.first().ok_or_else(|| IdentityError::Svid("empty SVID cert chain".into()))?;
        let id = leaf.spiffe_id().map_err(|error| IdentityError::Svid(format!("agent SVID: {error}")))?;
        if !id.is_member_of(&self.config.trust_domain) {
            return Err(IdentityError::Svid(format!(
                "the server issued {id}, which is not in trust domain {}: check trust_domain",
                self.config.trust_domain
            )));
        }
        let node = Node::new(leaf.not_before(), leaf.not_after(), reattestable, fastrand::f64());
        let key_id = self.held().key_id.clone().unwrap_or_default();
        self.keys.present(&self.link.identity, &chain, &key_id).await?;
        {
            let mut held = self.held();
            held.data.svid = chain;
            held.data.reattestable = reattestable;
            held.tainted_tries = if held.is_tainted() { held.tainted_tries.saturating_add(1) } else { 0 };
            let mut node = node;
            if held.tainted_tries > 0 {
                node.tainted(held.tainted_tries, self.now());
            }
            held.node = Some(node);
            held.bootstrap.succeeded();
        }
        self.store().await?;
        self.link.reconnect()?;
        self.changed.notify_one();
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
        if let Err(error) = self.take_up(chain, false).await {
            self.held().key_id = current;
            return Err(error);
        }
        tracing::info!(subsystem_name = "manager", "Successfully rotated agent SVID");
        Ok(())
    }

    /// Deletes the stored SVID; the bundle stays.
    async fn forget(&self) -> Result<(), IdentityError> {
        {
            let mut held = self.held();
            held.data.svid.clear();
            held.node = None;
        }
        self.link.identity.clear();
        self.store().await
    }

    /// Writes what is held. It waits for the disk, which no runtime thread and no lock may.
    async fn store(&self) -> Result<(), IdentityError> {
        let _turn = self.storing.lock().await;
        let data = self.held().data.clone();
        let storage = self.config.storage.clone();
        let written = tokio::task::spawn_blocking(move || storage.store(&data)).await;
        written.map_err(|error| IdentityError::Svid(format!("storing the agent's SVID: {error}")))??;
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        (self.config.clock.now_nanos() / 1_000_000) as i64
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
