//! `spire.api.server.debug.v1.Debug`.

use std::sync::Arc;
use std::time::Duration;

use steeple_datastore::{AgentFilter, EntryFilter, Error as StoreError};
use steeple_proto::spire::api::server::debug::v1 as pb;
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{Certificate, x509};
use tokio::sync::Mutex;
use tonic::{Code, Request, Response, Status};

use crate::convert::id_to_proto;
use crate::error::{ApiError, Cause, to_status};
use crate::rpc::Rpc;
use crate::state::ServerState;

/// Counting rows of a large database must not become a load: SPIRE keeps its answer this long.
const KEPT: Duration = Duration::from_secs(5);

/// The service.
#[derive(Clone, Debug)]
pub struct DebugService {
    state: Arc<ServerState>,
    last: Arc<Mutex<Option<(Duration, pb::GetInfoResponse)>>>,
}

/// Why there is no answer. Texts are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    #[error("failed to count agents: {0}")]
    Agents(#[source] StoreError),
    #[error("failed to count entries: {0}")]
    Entries(#[source] StoreError),
    #[error("failed to count bundles: {0}")]
    Bundles(#[source] StoreError),
    #[error("failed to fetch trust domain bundle: {0}")]
    Bundle(#[source] StoreError),
    #[error("trust domain bundle not found")]
    NoBundle,
    #[error("failed verification against bundle: {0}")]
    Verify(#[source] Cause),
}

impl ApiError for DebugError {
    fn code(&self) -> Code {
        if matches!(self, Self::NoBundle) { Code::NotFound } else { Code::Internal }
    }
}

impl From<DebugError> for Status {
    fn from(error: DebugError) -> Self {
        to_status(&error)
    }
}

impl DebugService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state, last: Arc::default() }
    }

    async fn info(&self) -> Result<pb::GetInfoResponse, DebugError> {
        let state = &*self.state;
        let agents = state.store.count_agents(&AgentFilter::default()).await.map_err(DebugError::Agents)?;
        let entries =
            state.store.count_entries(&EntryFilter::default()).await.map_err(DebugError::Entries)?;
        let bundles = state.store.count_bundles().await.map_err(DebugError::Bundles)?;
        let bundle = state.store.fetch_bundle(&state.trust_domain).await.map_err(DebugError::Bundle)?;
        let bundle = bundle.ok_or(DebugError::NoBundle)?;
        let uptime = state.clock.monotonic().saturating_sub(state.started);
        Ok(pb::GetInfoResponse {
            svid_chain: self.svid_chain(&bundle)?,
            uptime: i32::try_from(uptime.as_secs()).unwrap_or(i32::MAX),
            agents_count: count(agents),
            entries_count: count(entries),
            federated_bundles_count: count(bundles),
        })
    }

    /// The chain the TCP endpoint presents and, last, the authority it ends at.
    fn svid_chain(&self, bundle: &Bundle) -> Result<Vec<pb::get_info_response::Cert>, DebugError> {
        let chain = (self.state.server_chain)();
        let authorities: Vec<Certificate> =
            bundle.x509_authorities.iter().map(|authority| authority.certificate.clone()).collect();
        x509::verify_svid(&chain, bundle, self.state.clock.now())
            .map_err(|e| DebugError::Verify(Cause::of(e)))?;
        let last_issuer = chain.last().and_then(Certificate::authority_key_id);
        let root = authorities.iter().find(|root| root.subject_key_id() == last_issuer);
        Ok(chain.iter().chain(root).map(cert_to_proto).collect())
    }
}

fn cert_to_proto(certificate: &Certificate) -> pb::get_info_response::Cert {
    pb::get_info_response::Cert {
        id: certificate.spiffe_id().ok().map(|id| id_to_proto(&id)),
        expires_at: certificate.not_after(),
        subject: certificate.subject_string(),
    }
}

fn count(n: u64) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[tonic::async_trait]
impl pb::debug_server::Debug for DebugService {
    async fn get_info(
        &self,
        request: Request<pb::GetInfoRequest>,
    ) -> Result<Response<pb::GetInfoResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let now = self.state.clock.monotonic();
        let mut last = self.last.lock().await;
        if let Some((at, info)) = &*last
            && now.saturating_sub(*at) < KEPT
        {
            return Ok(Response::new(info.clone()));
        }
        let info = self.info().await.map_err(|e| rpc.refuse(e))?;
        *last = Some((now, info.clone()));
        Ok(Response::new(info))
    }
}
