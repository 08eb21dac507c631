//! Envoy's secret discovery (SDS v3) on the workload socket: the caller is attested as any workload and receives its
//! SVIDs and bundles as Envoy's secrets. No security header: Envoy cannot send one.
//!
//! Beyond SPIRE: each alias is resolvable in one request, DeltaSecrets is served, and a name that is not there yet is
//! waited for as long as the Workload API waits.

mod delta;
mod names;
mod node;
mod secrets;
mod stream;

use std::pin::Pin;

use futures::Stream;
use steeple_proto::envoy::service::discovery::v3 as xds;
use steeple_proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryService;
use tonic::{Request, Response, Status, Streaming};

use crate::workload::{Called, Caller, WorkloadApi};
use names::Names;
use node::Node;
use secrets::Secrets;

pub use names::SdsNames;
pub use steeple_proto::envoy::service::secret::v3::secret_discovery_service_server::SecretDiscoveryServiceServer;

/// The service.
#[derive(Clone)]
pub struct SecretDiscovery {
    api: WorkloadApi,
    names: SdsNames,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl SecretDiscovery {
    pub fn new(api: WorkloadApi, names: SdsNames) -> Self {
        Self { api, names }
    }

    async fn caller<T>(&self, request: &Request<T>, method: &'static str) -> Result<Caller, Status> {
        self.api.admit(request, Called::Sds(method)).await
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for SecretDiscovery {
    type StreamSecretsStream = Answers<xds::DiscoveryResponse>;
    type DeltaSecretsStream = Answers<xds::DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<xds::DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let caller = self.caller(&request, "StreamSecrets").await?;
        Ok(Response::new(stream::run(self.clone(), caller, request.into_inner())))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<xds::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        let caller = self.caller(&request, "DeltaSecrets").await?;
        Ok(Response::new(delta::run(self.clone(), caller, request.into_inner())))
    }

    async fn fetch_secrets(
        &self,
        request: Request<xds::DiscoveryRequest>,
    ) -> Result<Response<xds::DiscoveryResponse>, Status> {
        let caller = self.caller(&request, "FetchSecrets").await?;
        let message = request.into_inner();
        let names = Names::new(&message.resource_names);
        let validator = Node::of(message.node.as_ref()).validator(&self.names);
        let mut subscribed = self.api.subscribe(&caller);
        let content = self.api.content(&mut subscribed, &caller, |content| {
            Secrets::new(content, &self.names, validator).has_all(&names)
        });
        let content = content.await;
        let resources = Secrets::new(&content, &self.names, validator).all_of(&names)?;
        Ok(Response::new(xds::DiscoveryResponse {
            resources: resources.into_iter().map(|(_, resource)| resource).collect(),
            type_url: message.type_url,
            ..xds::DiscoveryResponse::default()
        }))
    }
}
