//! The Workload API socket, open to every user, and the admin socket, which is not.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use steeple_agent_api::admin::{DebugServer, DebugService, LoggerServer, LoggerService};
use steeple_agent_api::delegated::{DelegatedIdentity, DelegatedIdentityServer};
use steeple_agent_api::explain::{Explain, ExplainServer};
use steeple_agent_api::health::HealthService;
use steeple_agent_api::sds::{SecretDiscovery, SecretDiscoveryServiceServer};
use steeple_agent_api::{AgentIdentity, AgentState, WorkloadApi};
use steeple_runtime::clock;
use steeple_runtime::grpc;
use steeple_runtime::logs::LogHandle;
use steeple_runtime::slow_reader::SlowReaders;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_runtime::uds::{UdsListener, UdsOptions};

use crate::config::Config;

/// Anybody may ask; what they get depends on who they are.
const PUBLIC_MODE: u32 = 0o777;
const PUBLIC_DIR_MODE: u32 = 0o755;
const ADMIN_MODE: u32 = 0o770;
const ADMIN_DIR_MODE: u32 = 0o750;

/// Makes the sockets' directories before the umask is tightened, and finds out whether another agent serves there
/// before a join token is spent.
pub fn prepare(config: &Config) -> anyhow::Result<()> {
    let sockets = [(&config.socket_path, PUBLIC_DIR_MODE), (&config.admin_socket_path, ADMIN_DIR_MODE)];
    for (path, mode) in sockets {
        let Some(path) = path else { continue };
        if let Some(dir) = path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(mode)
                .create(dir)
                .with_context(|| format!("cannot create directory {} of the socket", dir.display()))?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            bail!("socket {} is in use by another process; stop it or choose another path", path.display());
        }
    }
    Ok(())
}

/// Bound, not yet serving.
pub struct Sockets {
    public: Option<UdsListener>,
    admin: Option<UdsListener>,
}

/// What is served.
pub struct Parts {
    pub api: WorkloadApi,
    pub explain: Explain,
    pub delegated: DelegatedIdentity,
    pub state: Arc<AgentState>,
    pub identity: Arc<AgentIdentity>,
    pub logs: LogHandle,
    pub started: Duration,
}

pub fn bind(config: &Config) -> anyhow::Result<Sockets> {
    let most = super::limits::connections_per_user(config.connections_per_user);
    let open = |path: &Path, mode, dir_mode, max_per_uid| {
        UdsListener::bind(path, UdsOptions { mode, dir_mode, max_per_uid })
    };
    let public =
        config.socket_path.as_deref().map(|path| open(path, PUBLIC_MODE, PUBLIC_DIR_MODE, Some(most)));
    // The health check asks as a workload does, and is no workload.
    let public = public.transpose()?.map(|listener| listener.without_limit_for(config.workload.agent_pid));
    let admin = config.admin_socket_path.as_deref().map(|path| open(path, ADMIN_MODE, ADMIN_DIR_MODE, None));
    Ok(Sockets { public, admin: admin.transpose()? })
}

impl Sockets {
    pub fn serve(self, config: &Config, tasks: &TaskGroup, parts: Parts) -> anyhow::Result<()> {
        let shutdown = tasks.shutdown();
        let (stop, state) = (shutdown.requested(), parts.state.clone());
        tasks.spawn("Workload API calls", OnEnd::Log, async move {
            stop.await;
            state.close();
        });
        let readers = SlowReaders::new(config.slow_reader_timeout, clock::system());
        tasks.spawn_until_shutdown("slow readers", OnEnd::Log, readers.clone().run());
        if let Some(listener) = self.public {
            let apis = config.apis.names();
            let health = HealthService { socket: super::health::workload_socket(config) };
            let (reflection, reflection_alpha) = steeple_agent_api::workload::reflection()?;
            // SPIRE 1.16 logs it so; earlier the line was "Starting Workload and SDS APIs".
            tracing::info!(subsystem_name = "endpoints", address = %listener.path().display(), apis, network = "unix", "Starting agent APIs");
            let sds = SecretDiscovery::new(parts.api.clone(), config.sds.clone());
            let serving = grpc::server_builder()
                .layer(readers.clone())
                .add_optional_service(config.apis.workload.then_some(parts.api))
                .add_optional_service(config.apis.sds.then(|| SecretDiscoveryServiceServer::new(sds)))
                .add_service(ExplainServer::new(parts.explain.clone()))
                .add_service(health.into_server())
                .add_service(reflection)
                .add_service(reflection_alpha)
                .serve_with_incoming_shutdown(listener, shutdown.requested());
            let stopping = shutdown.requested();
            tasks.spawn("agent API log", OnEnd::Log, async move {
                stopping.await;
                tracing::info!(subsystem_name = "endpoints", apis, "Stopping agent APIs");
            });
            tasks.spawn("Workload API", OnEnd::Shutdown, serving);
        } else {
            tracing::info!(
                apis = "Workload and SDS APIs",
                "Skipping agent APIs because public endpoint is disabled"
            );
        }
        if let Some(listener) = self.admin {
            tracing::info!(subsystem_name = "endpoints", address = %listener.path().display(), network = "unix", "Starting Admin APIs");
            let debug = DebugService { state: parts.state, identity: parts.identity, started: parts.started };
            let serving = grpc::server_builder()
                .layer(readers)
                .add_service(DebugServer::new(debug))
                .add_service(ExplainServer::new(parts.explain))
                .add_service(LoggerServer::new(LoggerService { logs: parts.logs }))
                .add_service(DelegatedIdentityServer::new(parts.delegated))
                .serve_with_incoming_shutdown(listener, shutdown.requested());
            tasks.spawn("admin API", OnEnd::Shutdown, serving);
        }
        Ok(())
    }
}
