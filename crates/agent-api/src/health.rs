//! Whether the agent can serve: it asks its own Workload API as a workload would.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use steeple_proto::workload::X509BundlesRequest;
use steeple_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Fetches X.509 bundles over the Workload API socket. `Ok` also for a refusal: an agent without identity serves.
pub async fn probe(socket: &Path) -> Result<(), Status> {
    let path: PathBuf = socket.to_owned();
    let asking = async {
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = Request::new(X509BundlesRequest {});
        request
            .metadata_mut()
            .insert("workload.spiffe.io", tonic::metadata::MetadataValue::from_static("true"));
        let mut stream =
            SpiffeWorkloadApiClient::new(channel).fetch_x509_bundles(request).await?.into_inner();
        stream.message().await.map(drop)
    };
    let answer = tokio::time::timeout(TIMEOUT, asking)
        .await
        .unwrap_or_else(|_| Err(Status::unavailable("the Workload API did not answer")));
    match answer {
        Err(status) if status.code() == Code::Unavailable => Err(status),
        _ => Ok(()),
    }
}

/// `grpc.health.v1.Health` on the Workload API socket.
pub struct HealthService {
    /// `None` while the Workload API is switched off: then the answer is always SERVING (SPIRE).
    pub socket: Option<PathBuf>,
}

impl HealthService {
    pub fn into_server(self) -> HealthServer<Self> {
        HealthServer::new(self)
    }

    async fn answer(&self, service: &str) -> Result<HealthCheckResponse, Status> {
        if !service.is_empty() {
            return Err(Status::invalid_argument("per-service health is not supported"));
        }
        let serving = match &self.socket {
            Some(socket) => probe(socket).await.is_ok(),
            None => true,
        };
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(HealthCheckResponse { status: status.into() })
    }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream =
        std::pin::Pin<Box<dyn futures::Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.answer(&request.get_ref().service).await.map(Response::new)
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("the agent's health is checked, not watched"))
    }
}
