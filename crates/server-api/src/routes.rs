//! Which services an endpoint has (spire.md §1.6). Wrap the server they are added to in [`crate::layer::ApiLayer`]:
//! without it every call fails, so none can slip past authorization.

use std::sync::Arc;

use steeple_proto::spire::api::server::trustdomain::v1::trust_domain_server::TrustDomainServer;
use steeple_proto::spire::api::server::{
    agent::v1::agent_server::AgentServer, bundle::v1::bundle_server::BundleServer,
    debug::v1::debug_server::DebugServer, entry::v1::entry_server::EntryServer,
    localauthority::v1::local_authority_server::LocalAuthorityServer,
    logger::v1::logger_server::LoggerServer, svid::v1::svid_server::SvidServer,
};
use steeple_proto::steeple::server::v1::explain_server::ExplainServer;
use steeple_proto::steeple::server::v1::federation_server::FederationServer;
use steeple_proto::steeple::server::v1::rotation_server::RotationServer;
use steeple_runtime::grpc::MAX_MESSAGE;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::agent::AgentService;
use crate::bundle::BundleService;
use crate::debug::DebugService;
use crate::entry::EntryService;
use crate::explain::ExplainService;
use crate::federation::FederationService;
use crate::health::HealthService;
use crate::localauthority::LocalAuthorityService;
use crate::logger::LoggerService;
use crate::push::PushService;
use crate::reflection::reflection;
use crate::rotation::RotationService;
use crate::state::ServerState;
use crate::svid::SvidService;
use crate::trust_domain::TrustDomainService;

/// For the TCP endpoint.
pub fn tcp_routes(state: &Arc<ServerState>) -> Routes {
    shared(state).add_service(PushService::new(state.clone())).prepare()
}

/// For the Unix socket.
pub fn local_routes(state: &Arc<ServerState>) -> Routes {
    let routes = shared(state)
        .add_service(
            LoggerServer::new(LoggerService::new(state.clone())).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            DebugServer::new(DebugService::new(state.clone())).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            HealthServer::new(HealthService::new(state.clone())).max_decoding_message_size(MAX_MESSAGE),
        );
    match reflection() {
        Ok((v1, v1alpha)) => routes.add_service(v1).add_service(v1alpha).prepare(),
        Err(error) => {
            tracing::error!(subsystem_name = "endpoints", %error, "Server reflection is not available");
            routes.prepare()
        }
    }
}

/// Anybody may call AttestAgent, many times at once: what the server keeps of a request that has no proof is small.
const MAX_AGENT_MESSAGE: usize = 256 * 1024;

/// On both. Answers may be larger than requests: SPIRE's commands and agents take what they get.
fn shared(state: &Arc<ServerState>) -> Routes {
    Routes::from(Routes::default().into_axum_router().fallback(unknown_service))
        .add_service(
            AgentServer::new(AgentService::new(state.clone())).max_decoding_message_size(MAX_AGENT_MESSAGE),
        )
        .add_service(
            BundleServer::new(BundleService::new(state.clone())).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            EntryServer::new(EntryService::new(state.clone())).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(SvidServer::new(SvidService::new(state.clone())).max_decoding_message_size(MAX_MESSAGE))
        .add_service(
            LocalAuthorityServer::new(LocalAuthorityService::new(state.clone()))
                .max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            TrustDomainServer::new(TrustDomainService::new(state.clone()))
                .max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            FederationServer::new(FederationService::new(state.clone()))
                .max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            ExplainServer::new(ExplainService::new(state.clone())).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            RotationServer::new(RotationService::new(state.clone())).max_decoding_message_size(MAX_MESSAGE),
        )
}

async fn unknown_service(uri: http::Uri) -> http::Response<Body> {
    crate::layer::unknown_service(uri.path()).into_http()
}
