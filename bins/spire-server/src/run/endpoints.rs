//! The TCP API over mutual TLS and the Unix socket API (spire.md §1.6).

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use steeple_runtime::clock::Clock;
use steeple_runtime::grpc;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_runtime::tls::{LiveBundles, LiveIdentity, ServerTls, TlsIncoming};
use steeple_runtime::uds::{UdsListener, UdsOptions};
use steeple_server_api::layer::ApiLayer;
use steeple_server_api::{ServerState, local_routes, tcp_routes};
use tokio::net::TcpListener;

use crate::config::Config;

const SOCKET_MODE: u32 = 0o770;
const SOCKET_DIR_MODE: u32 = 0o750;

/// Bound, not yet serving.
pub struct Endpoints {
    pub tcp_addr: SocketAddr,
    tcp: TlsIncoming,
    local: UdsListener,
}

pub async fn bind(
    config: &Config,
    identity: LiveIdentity,
    bundles: LiveBundles,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Endpoints> {
    let at = SocketAddr::new(config.bind_address, config.bind_port);
    let listener = TcpListener::bind(at).await.with_context(|| {
        format!("cannot listen on {at}; check that nothing else does, or set bind_address and bind_port")
    })?;
    let tls = ServerTls::new(identity, bundles, clock).context("cannot set up TLS")?;
    let tcp_addr = listener.local_addr()?;
    let options = UdsOptions { mode: SOCKET_MODE, dir_mode: SOCKET_DIR_MODE, max_per_uid: None };
    let local = UdsListener::bind(&config.socket_path, options)?;
    Ok(Endpoints { tcp_addr, tcp: tls.incoming(listener), local })
}

impl Endpoints {
    pub fn serve(self, tasks: &TaskGroup, state: &Arc<ServerState>) {
        let shutdown = tasks.shutdown();
        let layer = ApiLayer::new(state.clone());
        // Scripts wait for this line (ecosystem.md §8).
        tracing::info!(address = %self.tcp_addr, network = "tcp", subsystem_name = "endpoints", "Starting Server APIs");
        let tcp = grpc::tcp_server()
            .layer(layer.clone())
            .add_routes(tcp_routes(state))
            .serve_with_incoming_shutdown(self.tcp, shutdown.requested());
        tasks.spawn("TCP API", OnEnd::Shutdown, tcp);
        let path = self.local.path().display().to_string();
        tracing::info!(
            address = path,
            network = "unix",
            subsystem_name = "endpoints",
            "Starting Server APIs"
        );
        let local = grpc::server_builder()
            .layer(layer)
            .add_routes(local_routes(state))
            .serve_with_incoming_shutdown(self.local, shutdown.requested());
        tasks.spawn("Unix socket API", OnEnd::Shutdown, local);
    }
}
