//! `spire-server run`: configuration → log → [`build`] → [`Bound`] → until shutdown.

mod attestors;
mod endpoints;
mod federation;
mod health;
mod identity;
mod jobs;
mod metered;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use steeple_cli::Daemon;
use steeple_datastore::Datastore;
use steeple_datastore_sql::SqlStore;
use steeple_plugin::KeyManager;
use steeple_plugins_base::credential_composer::UniqueId;
use steeple_plugins_base::key_manager::{DiskKeyManager, MemoryKeyManager};
use steeple_plugins_base::upstream_authority::{DiskConfig, DiskUpstreamAuthority};
use steeple_runtime::clock::{self, Clock};
use steeple_runtime::health::Health;
use steeple_runtime::logs::LogHandle;
use steeple_runtime::metrics;
use steeple_runtime::shutdown::DRAIN_DEADLINE;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_runtime::tls::LiveBundles;
use steeple_server_api::{Limits, ServerState};
use steeple_server_core::ca::{CaManager, CaPlugins};
use steeple_server_core::federation::Federation;
use steeple_server_core::view::View;

use self::metered::{MeteredKeys, MeteredStore, Rotations};
use crate::config::{Config, KeyManagerConfig, Telemetry};
use crate::version::VERSION;

pub const DAEMON: Daemon = Daemon { name: "server", title: "Server", workers: None, drain: DRAIN_DEADLINE };

/// The command. Answers the exit code.
pub fn command(args: &[String]) -> u8 {
    DAEMON.run(
        Config::load("run", args),
        |config| config.log.clone(),
        |_| Ok::<_, anyhow::Error>(()),
        |config, logs, tasks| async {
            let bound = build(config, logs, tasks).await?;
            tracing::debug!(
                    tcp = %bound.tcp,
                    socket = %bound.socket.display(),
                    health = bound.health.map(|addr| addr.to_string()),
                    prometheus = bound.prometheus.map(|addr| addr.to_string()),
            bundle_endpoint = bound.bundle_endpoint.map(|addr| addr.to_string()),
                    "Server is up"
                );
            Ok(bound)
        },
    )
}

/// A server whose sockets are bound and whose tasks run.
pub struct Bound {
    pub tcp: SocketAddr,
    pub socket: PathBuf,
    pub health: Option<SocketAddr>,
    pub prometheus: Option<SocketAddr>,
    pub bundle_endpoint: Option<SocketAddr>,
}

/// Opens, loads and binds everything. Sockets are bound before any task runs; port 0 picks one.
pub async fn build(config: Config, logs: LogHandle, tasks: TaskGroup) -> anyhow::Result<Bound> {
    announce(&config, &logs);
    prepare_data_dir(&config.data_dir)?;
    let clock = clock::system();
    let prometheus = telemetry(&config, &tasks).await?;
    let store = open_store(&config).await?;
    let keys = open_keys(&config).await?;
    let (store, keys, rotations) = metered(&config, store, keys);
    let start = rotations.start();
    let plugins = ca_plugins(&config, keys, clock.now()).await?;
    let ca = CaManager::load_with(config.ca.clone(), plugins, store.clone(), clock.now()).await;
    rotations.done(start, ca.as_ref().ok(), clock.now());
    let ca = Arc::new(ca.context("cannot load or make the server's authorities")?);
    let (view, follower) = View::open(store.clone(), config.trust_domain.clone()).await?;
    check_trust_domain(&store, &config).await?;
    let bundles = LiveBundles::new();
    identity::trust(&bundles, &view, &config);
    let identity = identity::ServerIdentity::issue(ca.clone(), clock.clone()).await?;
    let (federation, orders) = Federation::new();
    let state = server_state(&config, &store, &view, &ca, &clock, &tasks, &logs, &identity, federation);
    let state = Arc::new(state);
    let endpoints = endpoints::bind(&config, identity.live(), bundles.clone(), clock.clone()).await?;
    let (tcp, socket) = (endpoints.tcp_addr, config.socket_path.clone());
    let bundle_endpoint = match &config.federation.endpoint {
        Some(wanted) => {
            let exchange = endpoints::key_exchange(&config);
            Some(federation::bind_endpoint(wanted, exchange, identity.live(), view.clone(), &tasks).await?)
        }
        None => None,
    };

    let own_bundle = jobs::OwnBundle::new(&view, &config);
    tasks.spawn_until_shutdown("view", OnEnd::Shutdown, follower.run());
    if config.telemetry.is_some() {
        tasks.spawn_until_shutdown("gauges", OnEnd::Log, metered::cache_gauges(view.clone()));
    }
    let statics = config.federation.federates_with.clone();
    let runner = federation::Runner::new(store.clone(), view.clone(), clock.clone(), statics, orders);
    tasks.spawn_until_shutdown("federation", OnEnd::Shutdown, runner.run());
    tasks.spawn_until_shutdown(
        "trusted bundles",
        OnEnd::Shutdown,
        identity::keep_trust(bundles, view, config.clone()),
    );
    let rotation = jobs::Rotation::new(rotations, own_bundle);
    jobs::spawn(&tasks, &config, &store, &ca, &identity, &clock, &rotation);
    endpoints.serve(&tasks, &state);
    let health =
        health(&config, &tasks, health::Subsystems { socket: socket.clone(), ca, store, rotation }).await?;
    steeple_runtime::settle_memory();
    Ok(Bound { tcp, socket, health, prometheus, bundle_endpoint })
}

fn announce(config: &Config, logs: &LogHandle) {
    let admin_ids: Vec<&str> = config.admin_ids.iter().map(steeple_spiffe::SpiffeId::as_str).collect();
    tracing::info!(
        admin_ids = format!("[{}]", admin_ids.join(" ")),
        data_dir = %config.data_dir.display(),
        launch_log_level = logs.launch_level().name(),
        version = VERSION,
        "Configured"
    );
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    if config.ca.disable_jwt_svids {
        tracing::info!("JWT-SVID profile is disabled");
    }
    for (kind, name) in &config.plugins.loaded {
        if kind == "DataStore" {
            continue;
        }
        tracing::info!(
            subsystem_name = "catalog",
            external = false,
            plugin_name = name,
            plugin_type = kind,
            "Plugin loaded"
        );
    }
}

/// Makes the directory if need be and finds out now whether it can be written.
fn prepare_data_dir(dir: &Path) -> anyhow::Result<()> {
    let advice = "check its owner and mode, or choose another data_dir";
    std::fs::create_dir_all(dir)
        .with_context(|| format!("cannot create data directory {}; {advice}", dir.display()))?;
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .with_context(|| format!("data directory {} is not writable; {advice}", dir.display()))
}

async fn telemetry(config: &Config, tasks: &TaskGroup) -> anyhow::Result<Option<SocketAddr>> {
    let Some(Telemetry { sinks, metrics }) = config.telemetry.clone() else { return Ok(None) };
    let prometheus = sinks.prometheus.clone().unwrap_or_default();
    let who = (VERSION, config.trust_domain.name());
    let started = metrics::start(metrics, sinks, who, tasks).await;
    started.with_context(|| format!("cannot listen for Prometheus on {}:{}", prometheus.0, prometheus.1))
}

async fn open_store(config: &Config) -> anyhow::Result<Arc<dyn Datastore>> {
    let database = config.plugins.database.clone();
    let store = tokio::task::spawn_blocking(move || SqlStore::open(&database)).await??;
    tracing::info!(subsystem_name = "catalog", reconfigurable = false, "Configured DataStore");
    Ok(Arc::new(store))
}

/// Wraps the plugins if somebody reads metrics.
fn metered(
    config: &Config,
    store: Arc<dyn Datastore>,
    keys: Arc<dyn KeyManager>,
) -> (Arc<dyn Datastore>, Arc<dyn KeyManager>, Arc<Rotations>) {
    let rotations = Arc::new(Rotations::new());
    if config.telemetry.is_none() {
        return (store, keys, rotations);
    }
    let keys = MeteredKeys::new(keys, rotations.clone());
    (Arc::new(MeteredStore::new(store)), Arc::new(keys), rotations)
}

async fn open_keys(config: &Config) -> anyhow::Result<Arc<dyn KeyManager>> {
    Ok(match &config.plugins.key_manager {
        KeyManagerConfig::Memory => Arc::new(MemoryKeyManager::new()),
        KeyManagerConfig::Disk { keys_path } => {
            let path = keys_path.clone();
            Arc::new(tokio::task::spawn_blocking(move || DiskKeyManager::open(path)).await??)
        }
    })
}

/// What the authorities are made with besides the key manager.
async fn ca_plugins(config: &Config, keys: Arc<dyn KeyManager>, now: i64) -> anyhow::Result<CaPlugins> {
    let mut plugins = CaPlugins::new(keys);
    if let Some(upstream) = config.plugins.upstream_authority.clone() {
        let disk = DiskConfig {
            trust_domain: config.trust_domain.clone(),
            cert_file_path: upstream.cert_file_path,
            key_file_path: upstream.key_file_path,
            bundle_file_path: upstream.bundle_file_path,
        };
        let opened = tokio::task::spawn_blocking(move || DiskUpstreamAuthority::open(disk, now)).await?;
        plugins.upstream = Some(Arc::new(opened.context("failed to configure plugin \"disk\"")?));
    }
    if config.plugins.unique_id {
        plugins.composers.push(Arc::new(UniqueId));
    }
    Ok(plugins)
}

/// A database of another trust domain is refused: its entries could never be served.
async fn check_trust_domain(store: &Arc<dyn Datastore>, config: &Config) -> anyhow::Result<()> {
    use steeple_datastore::{AgentFilter, EntryFilter, PageRequest};
    let one = PageRequest { token: String::new(), size: 1 };
    let configured = &config.trust_domain;
    for entry in store.list_entries(&EntryFilter::default(), &one).await?.items {
        let found = entry.spiffe_id.trust_domain();
        if found != *configured {
            bail!(
                "registration entries are of trust domain {:?} and the server is configured for {:?}; \
                 make sure that database and configuration match",
                found.name(),
                configured.name()
            );
        }
    }
    for agent in store.list_agents(&AgentFilter::default(), &one).await?.items {
        let found = agent.id.trust_domain();
        if found != *configured {
            tracing::warn!(
                spiffe_id = agent.id.as_str(),
                "Agents in the database are of trust domain {:?} and the server is configured for {:?}",
                found.name(),
                configured.name()
            );
        }
    }
    Ok(())
}

#[allow(clippy::too_many_arguments, reason = "wiring: each is one part of the program")]
fn server_state(
    config: &Config,
    store: &Arc<dyn Datastore>,
    view: &Arc<View>,
    ca: &Arc<CaManager>,
    clock: &Arc<dyn Clock>,
    tasks: &TaskGroup,
    logs: &LogHandle,
    identity: &identity::ServerIdentity,
    federation: Federation,
) -> ServerState {
    let chain = identity.clone();
    ServerState {
        trust_domain: config.trust_domain.clone(),
        store: store.clone(),
        view: view.clone(),
        ca: ca.clone(),
        federation,
        clock: clock.clone(),
        tasks: tasks.clone(),
        logs: logs.clone(),
        server_chain: Arc::new(move || chain.chain()),
        admin_ids: config.admin_ids.iter().cloned().collect(),
        attestors: attestors::build(config, store, view, clock),
        join_token: config.plugins.join_token,
        agent_id_selector: config.agent_id_selector,
        limits: Limits::new(config.limits, clock),
        audit: config.audit_log,
        jwt_disabled: config.ca.disable_jwt_svids,
        explain_to_agents: config.explain_to_agents,
        started: clock.monotonic(),
    }
}

async fn health(
    config: &Config,
    tasks: &TaskGroup,
    subsystems: health::Subsystems,
) -> anyhow::Result<Option<SocketAddr>> {
    let Some(wanted) = config.health.clone() else { return Ok(None) };
    let health = Health::new();
    health::add(&health, subsystems)?;
    let at = format!("{}:{}", wanted.bind_address, wanted.bind_port);
    let listener =
        health.listen(wanted).await.with_context(|| format!("cannot serve health checks on {at}"))?;
    let address = listener.address();
    tasks.spawn_until_shutdown("health checks", OnEnd::Log, health.run());
    tasks.spawn_until_shutdown("health listener", OnEnd::Shutdown, listener.serve());
    Ok(Some(address))
}

/// How often CA and server identity look whether their time has come (SPIRE).
const TICK: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
