//! `grpc.health.v1.Health` on the Unix socket.

use std::sync::Arc;

use tokio_stream::Empty;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb;
use tracing::Level;

use crate::error::{ApiError, to_status};
use crate::rpc::{Fields, Rpc};
use crate::state::ServerState;

/// The service.
#[derive(Clone, Debug)]
pub struct HealthService {
    state: Arc<ServerState>,
}

/// Texts are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    #[error("per-service health is not supported")]
    PerService,
    #[error("method Watch not implemented")]
    Watch,
}

impl ApiError for HealthError {
    fn code(&self) -> Code {
        match self {
            Self::PerService => Code::InvalidArgument,
            Self::Watch => Code::Unimplemented,
        }
    }
}

impl From<HealthError> for Status {
    fn from(error: HealthError) -> Self {
        to_status(&error)
    }
}

impl HealthService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }
}

#[tonic::async_trait]
impl pb::health_server::Health for HealthService {
    /// A server that can read its own bundle serves.
    async fn check(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<pb::HealthCheckResponse>, Status> {
        use pb::health_check_response::ServingStatus;
        let rpc = Rpc::of(&request)?;
        if !request.get_ref().service.is_empty() {
            return Err(rpc.refuse(HealthError::PerService));
        }
        let (reason, error) = match self.state.store.fetch_bundle(&self.state.trust_domain).await {
            Ok(Some(_)) => {
                return Ok(Response::new(pb::HealthCheckResponse { status: ServingStatus::Serving as i32 }));
            }
            Ok(None) => ("bundle is missing", None),
            Err(e) => ("unable to fetch bundle", Some(e.to_string())),
        };
        let fields = Fields::default().with("reason", reason).with_some("error", error);
        rpc.log(Level::WARN, "Health check failed", fields);
        Ok(Response::new(pb::HealthCheckResponse { status: ServingStatus::NotServing as i32 }))
    }

    type WatchStream = Empty<Result<pb::HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<pb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Rpc::of(&request)?.refuse(HealthError::Watch))
    }
}
