//! `spire.api.server.debug.v1.Debug`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use steeple_datastore::{AgentFilter, EntryFilter, Error as StoreError};
use steeple_proto::spire::api::server::debug::v1 as pb;
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{Certificate, x509};
use tonic::{Code, Request, Response, Status};

use crate::convert::id_to_proto;
use crate::error::{ApiError, Cause, to_status};
use crate::rpc::Rpc;
use crate::state::ServerState;

/// Counting rows of a large database must not become a load: SPIRE keeps its answer this long.
const KEPT: Duration = Duration::from_secs(5);

/// The service.
#[derive(Clone)]
pub struct DebugService {
    state: Arc<ServerState>,
    last: Arc<Mutex<Option<Asked>>>,
}

/// A question to the store, with when it was asked: callers in the meantime share its answer.
#[derive(Clone)]
struct Asked {
    at: Duration,
    answer: Shared<BoxFuture<'static, Result<pb::GetInfoResponse, Arc<DebugError>>>>,
}

impl fmt::Debug for DebugService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebugService").field("state", &self.state).finish_non_exhaustive()
    }
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

impl ApiError for Arc<DebugError> {
    fn code(&self) -> Code {
        self.as_ref().code()
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

    /// The answer that is on its way or fresh enough, else a new one.
    fn ask(&self) -> Asked {
        let now = self.state.clock.monotonic();
        let mut last = self.last();
        if let Some(asked) = &*last
            && now.saturating_sub(asked.at) < KEPT
        {
            return asked.clone();
        }
        let state = self.state.clone();
        let answer = async move { info(&state).await.map_err(Arc::new) }.boxed().shared();
        let asked = Asked { at: now, answer };
        *last = Some(asked.clone());
        asked
    }

    /// A refusal is not kept.
    fn forget(&self, asked: &Asked) {
        self.last().take_if(|last| last.answer.ptr_eq(&asked.answer));
    }

    fn last(&self) -> MutexGuard<'_, Option<Asked>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn info(state: &ServerState) -> Result<pb::GetInfoResponse, DebugError> {
    let agents = state.store.count_agents(&AgentFilter::default()).await.map_err(DebugError::Agents)?;
    let entries = state.store.count_entries(&EntryFilter::default()).await.map_err(DebugError::Entries)?;
    let bundles = state.store.count_bundles().await.map_err(DebugError::Bundles)?;
    let bundle = state.store.fetch_bundle(&state.trust_domain).await.map_err(DebugError::Bundle)?;
    let bundle = bundle.ok_or(DebugError::NoBundle)?;
    let uptime = state.clock.monotonic().saturating_sub(state.started);
    Ok(pb::GetInfoResponse {
        svid_chain: svid_chain(state, &bundle)?,
        uptime: i32::try_from(uptime.as_secs()).unwrap_or(i32::MAX),
        agents_count: count(agents),
        entries_count: count(entries),
        federated_bundles_count: count(bundles),
    })
}

/// The chain the TCP endpoint presents and, last, the authority it ends at.
fn svid_chain(state: &ServerState, bundle: &Bundle) -> Result<Vec<pb::get_info_response::Cert>, DebugError> {
    let chain = (state.server_chain)();
    let authorities: Vec<Certificate> =
        bundle.x509_authorities.iter().map(|authority| authority.certificate.clone()).collect();
    x509::verify_svid(&chain, bundle, state.clock.now()).map_err(|e| DebugError::Verify(Cause::of(e)))?;
    let last_issuer = chain.last().and_then(Certificate::authority_key_id);
    let root = authorities.iter().find(|root| root.subject_key_id() == last_issuer);
    Ok(chain.iter().chain(root).map(cert_to_proto).collect())
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
        let asked = self.ask();
        let answer = asked.answer.clone().await;
        if answer.is_err() {
            self.forget(&asked);
        }
        Ok(Response::new(answer.map_err(|e| rpc.refuse(e))?))
    }
}
