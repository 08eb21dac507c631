//! `steeple.server.v1.Rotation`: SVIDs that are to be issued again now, not when they fall due.

use std::sync::Arc;

use steeple_datastore::Error as StoreError;
use steeple_proto::spire::api::types;
use steeple_proto::steeple::server::v1 as pb;
use steeple_spiffe::SpiffeId;
use tonic::{Code, Request, Response, Status};
use tracing::Level;

use crate::convert::{ConvertError, agent_id_from_proto};
use crate::error::{ApiError, item_ok, to_status};
use crate::rpc::{Fields, Rpc};
use crate::state::ServerState;

/// Items in one transaction: others may write in between.
const BATCH: usize = 500;

/// The service.
#[derive(Clone, Debug)]
pub struct RotationService {
    state: Arc<ServerState>,
}

/// Why something is not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("missing ID")]
    MissingId,
    #[error("entry not found")]
    NoEntry,
    #[error("invalid agent ID: {0}")]
    AgentId(#[source] ConvertError),
    #[error("agent not found")]
    NoAgent,
    #[error("agent is banned: it holds nothing to rotate")]
    Banned,
    /// SPIRE's agents renew their SVID when half its life is over and know no other reason.
    #[error(
        "agent runs {0}, which cannot be told; its workloads' SVIDs can be rotated entry by entry (entry rotate), its \
         own by evicting it"
    )]
    Deaf(String),
    #[error("failed to rotate: {0}")]
    Store(#[source] StoreError),
}

impl ApiError for RotationError {
    fn code(&self) -> Code {
        match self {
            Self::MissingId | Self::AgentId(_) => Code::InvalidArgument,
            Self::NoEntry | Self::NoAgent => Code::NotFound,
            Self::Banned | Self::Deaf(_) => Code::FailedPrecondition,
            Self::Store(error) => crate::error::store_code(error),
        }
    }
}

impl From<RotationError> for Status {
    fn from(error: RotationError) -> Self {
        to_status(&error)
    }
}

impl RotationService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }

    /// Whether each of these entries was there.
    async fn entries(&self, ids: &[String]) -> Result<Vec<bool>, RotationError> {
        let mut known = Vec::with_capacity(ids.len());
        for batch in ids.chunks(BATCH) {
            let now = self.state.clock.now();
            let done = self.state.store.rotate_entries(batch.to_vec(), now).await;
            known.extend(done.map_err(RotationError::Store)?);
        }
        Ok(known)
    }

    async fn agent(&self, id: &str) -> Result<(), RotationError> {
        if id.is_empty() {
            return Err(RotationError::MissingId);
        }
        let state = &*self.state;
        let parsed = SpiffeId::parse(id).map_err(|e| RotationError::AgentId(e.into()))?;
        let proto = crate::convert::id_to_proto(&parsed);
        let id = agent_id_from_proto(&state.trust_domain, Some(&proto)).map_err(RotationError::AgentId)?;
        let known = state.store.fetch_agent(&id).await.map_err(RotationError::Store)?;
        let agent = known.ok_or(RotationError::NoAgent)?;
        if agent.is_banned() {
            return Err(RotationError::Banned);
        }
        // An agent that has not said what it is may be one of ours.
        if !agent.agent_version.is_empty() && !agent.agent_version.contains("steeple") {
            return Err(RotationError::Deaf(agent.agent_version));
        }
        let told = state.store.rotate_agents(vec![id], state.clock.now()).await;
        match told.map_err(RotationError::Store)?.pop().flatten() {
            None => Err(RotationError::NoAgent),
            Some(agent) if agent.is_banned() => Err(RotationError::Banned),
            Some(_) => Ok(()),
        }
    }
}

#[tonic::async_trait]
impl pb::rotation_server::Rotation for RotationService {
    async fn rotate_entries(
        &self,
        request: Request<pb::RotateEntriesRequest>,
    ) -> Result<Response<pb::RotateEntriesResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let ids = request.into_inner().ids;
        let known = self.entries(&ids).await.map_err(|e| rpc.refuse(e))?;
        let results = ids.into_iter().zip(known).map(|(id, known)| {
            let outcome = match known {
                true => Ok(()),
                false if id.is_empty() => Err(RotationError::MissingId),
                false => Err(RotationError::NoEntry),
            };
            let types::Status { code, message } = told(&rpc, "entry_id", &id, outcome);
            pb::rotate_entries_response::Result { code, message, id }
        });
        Ok(Response::new(pb::RotateEntriesResponse { results: results.collect() }))
    }

    async fn rotate_agents(
        &self,
        request: Request<pb::RotateAgentsRequest>,
    ) -> Result<Response<pb::RotateAgentsResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let mut results = Vec::new();
        for id in request.into_inner().ids {
            let outcome = self.agent(&id).await;
            let types::Status { code, message } = told(&rpc, "spiffe_id", &id, outcome);
            results.push(pb::rotate_agents_response::Result { code, message, id });
        }
        Ok(Response::new(pb::RotateAgentsResponse { results }))
    }
}

/// Logs and audits what became of one item.
fn told(rpc: &Rpc, field: &'static str, id: &str, outcome: Result<(), RotationError>) -> types::Status {
    let fields = || Fields::default().with(field, id);
    let status = match outcome {
        Ok(()) => {
            rpc.log(Level::INFO, "Rotation ordered", fields());
            item_ok()
        }
        Err(error) => rpc.refuse_item(&error, fields()),
    };
    rpc.audit_item(&status, fields);
    status
}
