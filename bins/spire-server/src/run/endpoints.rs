//! The TCP API over mutual TLS and the Unix socket API (spire.md §1.6).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use steeple_runtime::clock::{Clock, monotonic};
use steeple_runtime::grpc;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_runtime::tls::{KeyExchange, LiveBundles, LiveIdentity, ServerTls, TlsIncoming};
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
    let exchange = key_exchange(config);
    let tls =
        ServerTls::with_key_exchange(exchange, identity, bundles, clock).context("cannot set up TLS")?;
    let tcp_addr = listener.local_addr()?;
    let options = UdsOptions { mode: SOCKET_MODE, dir_mode: SOCKET_DIR_MODE, max_per_uid: None };
    let local = UdsListener::bind(&config.socket_path, options)?;
    Ok(Endpoints { tcp_addr, tcp: tls.incoming(listener), local })
}

/// What the TCP API and the bundle endpoint take part in.
pub fn key_exchange(config: &Config) -> KeyExchange {
    if config.require_pq_kem { KeyExchange::PostQuantum } else { KeyExchange::Any }
}

impl Endpoints {
    pub fn serve(self, tasks: &TaskGroup, state: &Arc<ServerState>) {
        let shutdown = tasks.shutdown();
        let layer = ApiLayer::new(state.clone());
        // Scripts wait for this line (ecosystem.md §8).
        let log = ServingLog::start("tcp", self.tcp_addr.to_string());
        let tcp = grpc::tcp_server()
            .layer(layer.clone())
            .add_routes(tcp_routes(state))
            .serve_with_incoming_shutdown(self.tcp, shutdown.requested());
        tasks.spawn("TCP API", OnEnd::Shutdown, log.follow(shutdown.requested(), tcp));
        let log = ServingLog::start("unix", self.local.path().display().to_string());
        let local = grpc::server_builder()
            .layer(layer)
            .add_routes(local_routes(state))
            .serve_with_incoming_shutdown(self.local, shutdown.requested());
        tasks.spawn("Unix socket API", OnEnd::Shutdown, log.follow(shutdown.requested(), local));
    }
}

/// SPIRE's lines about one listener, from its start to its end, however that comes.
struct ServingLog {
    network: &'static str,
    address: String,
    /// Since when it stops, on the monotonic clock, until it has stopped.
    stopping: Option<Duration>,
}

impl ServingLog {
    fn start(network: &'static str, address: String) -> Self {
        let log = Self { network, address, stopping: None };
        log.line("Starting Server APIs");
        log
    }

    fn line(&self, message: &str) {
        let Self { network, address, .. } = self;
        tracing::info!(subsystem_name = "endpoints", network, address, "{message}");
    }

    async fn follow<E: std::fmt::Display>(
        mut self,
        stop: impl Future<Output = ()>,
        serving: impl Future<Output = Result<(), E>>,
    ) -> Result<(), E> {
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            biased;
            () = stop => {}
            ended = &mut serving => {
                if let Err(error) = &ended {
                    let Self { network, address, .. } = &self;
                    tracing::error!(subsystem_name = "endpoints", network, address, %error, "Server APIs stopped prematurely");
                }
                return ended;
            }
        }
        self.stopping = Some(monotonic());
        self.line("Stopping Server APIs");
        self.line("Attempting graceful stop");
        let ended = serving.await;
        self.stopping = None;
        self.line("Graceful stop successful");
        self.line("Server APIs have stopped");
        ended
    }
}

/// A drain that takes too long ends the task where it is.
impl Drop for ServingLog {
    fn drop(&mut self) {
        if let Some(since) = self.stopping {
            let seconds = monotonic().saturating_sub(since).as_secs();
            self.line(&format!("Graceful stop unsuccessful, forced stop after {seconds}s"));
            self.line("Server APIs have stopped");
        }
    }
}
