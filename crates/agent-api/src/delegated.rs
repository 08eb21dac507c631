//! `spire.api.agent.delegatedidentity.v1.DelegatedIdentity` on the admin socket: privileged node software asks for the
//! identities of other workloads, by their selectors or by their PID (SPIRE: Delegated Identity API).
//!
//! Guardrails: callers are local processes, attested as any workload, one of whose identities is listed in
//! `authorized_delegates`; that is looked at again for each message, and a stream ends as soon as it no longer
//! holds. Entries with `admin` or `downstream` are never handed out.

mod answer;
mod stream;

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use steeple_agent_core::Entry;
use steeple_agent_core::entry::SelectorSet;
use steeple_proto::spire::api::agent::delegatedidentity::v1 as api;
use steeple_proto::spire::api::types;
use steeple_runtime::peer::{Peer, PeerInfo};
use steeple_runtime::reason::Reason;
use steeple_spiffe::SpiffeId;
use tonic::{Code, Request, Response, Status};

use crate::attest::WorkloadAttestation;
use crate::connection::Connection;
use crate::convert;
use crate::refusal;
use crate::signing::Signing;
use crate::state::AgentState;

pub use api::delegated_identity_server::DelegatedIdentityServer;

/// The service.
pub struct DelegatedIdentity {
    state: Arc<AgentState>,
    attestation: WorkloadAttestation,
    signing: Arc<Signing>,
    /// `authorized_delegates`
    delegates: Arc<HashSet<SpiffeId>>,
}

/// An attested caller. Whether it may ask is looked up each time.
struct Delegate {
    state: Arc<AgentState>,
    delegates: Arc<HashSet<SpiffeId>>,
    peer: Arc<Peer>,
    selectors: SelectorSet,
    _connection: Connection,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// How long the first message waits for SVIDs that are being signed: a delegate takes each message for the whole set.
const SIGNING_WAIT: Duration = Duration::from_secs(30);

impl DelegatedIdentity {
    pub fn new(
        state: Arc<AgentState>,
        attestation: WorkloadAttestation,
        signing: Arc<Signing>,
        delegates: HashSet<SpiffeId>,
    ) -> Self {
        Self { state, attestation, signing, delegates: Arc::new(delegates) }
    }

    async fn caller<T>(&self, request: &Request<T>, method: &'static str) -> Result<Delegate, Status> {
        let connection =
            Connection::open("delegated_identity_api.connection", "delegated_identity_api.connections");
        let peer = request.extensions().get::<PeerInfo>().map(|info| info.peer.clone()).ok_or_else(|| {
            Status::internal(
                "the caller is not known: the Delegated Identity API is served on Unix sockets only",
            )
        })?;
        let selectors = self.attest(&peer, method).await?;
        let delegate = Delegate {
            state: self.state.clone(),
            delegates: self.delegates.clone(),
            peer,
            selectors,
            _connection: connection,
        };
        delegate.authorize(method)?;
        Ok(delegate)
    }

    async fn attest(&self, peer: &Arc<Peer>, method: &'static str) -> Result<SelectorSet, Status> {
        let attested = self.attestation.attest(peer).await;
        attested.map(|attested| attested.selectors).map_err(|error| {
            tracing::error!(subsystem_name = "endpoints", service = "DelegatedIdentity", method, pid = peer.pid, error = %error, "Workload attestation failed");
            Status::unavailable("workload attestation failed")
        })
    }

    /// Of the workload that the caller asks for.
    async fn wanted(
        &self,
        pid: i32,
        selectors: &[types::Selector],
        method: &'static str,
    ) -> Result<Wanted, Status> {
        if selectors.is_empty() == (pid == 0) {
            return Err(Status::invalid_argument(
                "must provide either selectors or non-zero PID, but not both",
            ));
        }
        if pid == 0 {
            // The delegate is trusted to have attested them.
            let parsed: Option<SelectorSet> = selectors.iter().map(convert::selector).collect();
            let selectors =
                parsed.ok_or_else(|| Status::invalid_argument("could not parse provided selectors"))?;
            return Ok(Wanted { selectors, peer: None });
        }
        let peer = Peer::of_process(pid).map_err(|error| {
            tracing::error!(subsystem_name = "endpoints", service = "DelegatedIdentity", method, pid, error = %error, "Workload attestation failed");
            Status::unavailable("workload attestation failed")
        })?;
        let peer = Arc::new(peer);
        Ok(Wanted { selectors: self.attest(&peer, method).await?, peer: Some(peer) })
    }
}

/// The workload asked for; a process is held, so that its number cannot come to mean another one.
struct Wanted {
    selectors: SelectorSet,
    peer: Option<Arc<Peer>>,
}

impl Wanted {
    /// Once the process has ended; never for selectors.
    async fn ended(&self) {
        match &self.peer {
            Some(peer) if peer.ended().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    fn still_here(&self) -> Result<(), Status> {
        match self.peer.as_ref().map(|peer| peer.still_here()) {
            Some(Err(error)) => Err(Status::unavailable(format!("workload attestation failed: {error}"))),
            _ => Ok(()),
        }
    }
}

impl Delegate {
    fn authorize(&self, method: &'static str) -> Result<(), Status> {
        if let Err(error) = self.peer.still_here() {
            tracing::debug!(subsystem_name = "endpoints", service = "DelegatedIdentity", method, pid = self.peer.pid, error = %error, "Caller gone");
            return Err(Status::unavailable("workload attestation failed"));
        }
        let entries = self.state.cache().matching(&self.selectors);
        if entries.iter().any(|entry| self.delegates.contains(&entry.spiffe_id)) {
            return Ok(());
        }
        let Some(first) = entries.first() else {
            tracing::error!(
                subsystem_name = "endpoints",
                service = "DelegatedIdentity",
                method,
                pid = self.peer.pid,
                registered = false,
                reason = Reason::NotADelegate.code(),
                "No identity issued"
            );
            return Err(refusal::no_identity("DelegatedIdentity", method, Reason::NotADelegate));
        };
        tracing::error!(subsystem_name = "endpoints", service = "DelegatedIdentity", method, pid = self.peer.pid, num_registered_entries = entries.len(), reason = Reason::NotADelegate.code(), default_id = %first.spiffe_id, "Permission denied; caller not configured as an authorized delegate.");
        refusal::count("DelegatedIdentity", method, Reason::NotADelegate);
        let message = "caller not configured as an authorized delegate";
        Err(refusal::status(Code::PermissionDenied, message, Reason::NotADelegate))
    }
}

#[tonic::async_trait]
impl api::delegated_identity_server::DelegatedIdentity for DelegatedIdentity {
    type SubscribeToX509SVIDsStream = Answers<api::SubscribeToX509sviDsResponse>;
    type SubscribeToX509BundlesStream = Answers<api::SubscribeToX509BundlesResponse>;
    type SubscribeToJWTBundlesStream = Answers<api::SubscribeToJwtBundlesResponse>;

    async fn subscribe_to_x509svi_ds(
        &self,
        request: Request<api::SubscribeToX509sviDsRequest>,
    ) -> Result<Response<Self::SubscribeToX509SVIDsStream>, Status> {
        const METHOD: &str = "SubscribeToX509SVIDs";
        let caller = self.caller(&request, METHOD).await?;
        let message = request.get_ref();
        let wanted = self.wanted(message.pid, &message.selectors, METHOD).await?;
        Ok(Response::new(stream::svids(caller, wanted)))
    }

    async fn subscribe_to_x509_bundles(
        &self,
        request: Request<api::SubscribeToX509BundlesRequest>,
    ) -> Result<Response<Self::SubscribeToX509BundlesStream>, Status> {
        let caller = self.caller(&request, "SubscribeToX509Bundles").await?;
        Ok(Response::new(stream::bundles(caller, "SubscribeToX509Bundles", answer::x509_bundles)))
    }

    async fn subscribe_to_jwt_bundles(
        &self,
        request: Request<api::SubscribeToJwtBundlesRequest>,
    ) -> Result<Response<Self::SubscribeToJWTBundlesStream>, Status> {
        let caller = self.caller(&request, "SubscribeToJWTBundles").await?;
        Ok(Response::new(stream::bundles(caller, "SubscribeToJWTBundles", answer::jwt_bundles)))
    }

    async fn fetch_jwtsvi_ds(
        &self,
        request: Request<api::FetchJwtsviDsRequest>,
    ) -> Result<Response<api::FetchJwtsviDsResponse>, Status> {
        const METHOD: &str = "FetchJWTSVIDs";
        if request.get_ref().audience.is_empty() {
            return Err(Status::invalid_argument("audience must be specified"));
        }
        let caller = self.caller(&request, METHOD).await?;
        let message = request.into_inner();
        let wanted = self.wanted(message.pid, &message.selectors, METHOD).await?;
        let mut entries = self.state.cache().matching(&wanted.selectors);
        let withheld = entries.iter().any(|entry| !may_be_delegated(entry));
        entries.retain(|entry| may_be_delegated(entry));
        if entries.is_empty() {
            let reason = if withheld { Reason::DelegateWithheld } else { Reason::NoEntry };
            return Err(refusal::no_identity("DelegatedIdentity", METHOD, reason));
        }
        let mut svids = Vec::with_capacity(entries.len());
        for entry in entries {
            let token = self.signing.jwt(&entry, &message.audience).await.map_err(|error| {
                tracing::error!(subsystem_name = "endpoints", service = "DelegatedIdentity", method = METHOD, pid = caller.peer.pid, spiffe_id = %entry.spiffe_id, error = %error, "Could not fetch JWT-SVID");
                Status::unavailable(format!("could not fetch JWT-SVID: {error}"))
            })?;
            svids.push(answer::jwt_svid(&entry, &token));
        }
        wanted.still_here()?;
        caller.authorize(METHOD)?;
        Ok(Response::new(api::FetchJwtsviDsResponse { svids }))
    }
}

/// Privileges on the server are for those who asked for them themselves.
fn may_be_delegated(entry: &Entry) -> bool {
    !entry.admin && !entry.downstream
}
