//! `spire-agent run`: configuration → log → attest → sync → until shutdown.

mod endpoints;
mod health;
mod limits;
mod sealed;
mod trust;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use steeple_agent_api::delegated::DelegatedIdentity;
use steeple_agent_api::expiry;
use steeple_agent_api::explain::Explain;
use steeple_agent_api::identity::{AgentIdentity, IdentityConfig, IdentityError};
use steeple_agent_api::signing::Signing;
use steeple_agent_api::storage::Storage;
use steeple_agent_api::sync::{Sync, SyncConfig};
use steeple_agent_api::{AgentState, ServerLink, WorkloadApi, WorkloadAttestation};
use steeple_agent_core::CacheConfig;
use steeple_cli::Daemon;
use steeple_plugin::{AgentNodeAttestor, KeyManager, WorkloadAttestor};
use steeple_plugins_base::key_manager::{DiskKeyManager, MemoryKeyManager};
use steeple_plugins_base::node_attestor::JoinToken;
use steeple_plugins_base::node_attestor::http_challenge::HttpChallengeAgent;
use steeple_plugins_base::node_attestor::sshpop::SshPopAgent;
use steeple_plugins_base::node_attestor::x509pop::X509PopAgent;
use steeple_plugins_base::workload_attestor::{Systemd, Unix};
use steeple_plugins_docker::Docker;
use steeple_runtime::clock::{self, Clock};
use steeple_runtime::logs::LogHandle;
use steeple_runtime::metrics;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_runtime::tls::KeyExchange;
use tokio::sync::oneshot;

use crate::config::{AttestorConfig, Config, KeyManagerConfig, Telemetry, WorkloadAttestorConfig};
use crate::version::VERSION;

/// One async thread (ADR 0027). The drain is short: calls end by
/// themselves as soon as a stop is asked for; what is left then is a client that does not read.
pub const DAEMON: Daemon =
    Daemon { name: "agent", title: "Agent", workers: Some(1), drain: Duration::from_secs(1) };

/// What a start needs has been done by then.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// The command. Answers the exit code.
pub fn command(args: &[String]) -> u8 {
    DAEMON.run(Config::load("run", args), |config| config.log.clone(), endpoints::prepare, build)
}

/// Attests, syncs once, then binds and serves. Telemetry and health come first: an agent that cannot attest is seen. An
/// agent that has been one goes on with what it kept, whether or not its server answers.
pub async fn build(config: Config, logs: LogHandle, tasks: TaskGroup) -> anyhow::Result<()> {
    let clock = clock::system();
    let started = clock.monotonic();
    announce(&config, &logs);
    telemetry(&config, &tasks).await?;
    let storage = Storage::open(&config.data_dir)?;
    let exchange = if config.require_pq_kem { KeyExchange::PostQuantum } else { KeyExchange::Any };
    let link = ServerLink::with_key_exchange(
        exchange,
        &server_address(&config),
        &config.trust_domain,
        clock.clone(),
    );
    let link = Arc::new(link?);
    let state = Arc::new(agent_state(&config, &clock));
    let restart = sealed::restore(&config, &storage, &state, &clock).await?;
    let identity = IdentityConfig {
        trust_domain: config.trust_domain.clone(),
        storage,
        keys: open_keys(&config).await?,
        attestor: node_attestor(&config).await?,
        trust: Arc::new(trust::Bootstrap::new(&config)),
        clock: clock.clone(),
        patience: config.patience,
        rotation: config.rotation,
        recovers: config.recovers,
    };
    let identity = Arc::new(AgentIdentity::new(identity, link.clone()));
    forget_when_forfeited(&identity, &state);
    restart.keep(&tasks, &state, &identity);
    tasks.spawn_until_shutdown("expiry", OnEnd::Log, expiry::run(state.clone()));
    let (serving, started_serving) = oneshot::channel();
    health::listen(&config, &tasks, started_serving, identity.standings()).await?;
    let signing = Signing::new(state.clone(), link.clone(), config.key_type, config.jwt_cache_hit_timeout);
    let signing = Arc::new(signing);
    let sync = Sync::new(state.clone(), link.clone(), identity.clone(), sync_config(&config));
    let mut synced = sync.first_sync();
    let parts = Parts {
        state: state.clone(),
        link,
        identity: identity.clone(),
        signing: signing.clone(),
        logs,
        started,
    };
    let following = Following { identity, signing, sync };
    if let Some(agent) = restart.restored {
        serve(&config, &tasks, parts)?;
        let follow = tasks.clone();
        tasks.spawn_until_shutdown("node attestation", OnEnd::Shutdown, async move {
            following.identity.establish().await?;
            if following.identity.spiffe_id() != Some(agent) {
                state.start_over();
            }
            following.start(&follow);
            // This task's end would be the agent's.
            std::future::pending::<()>().await;
            Ok::<_, IdentityError>(())
        });
    } else {
        following.identity.establish().await?;
        following.start(&tasks);
        tokio::select! {
            _ = synced.wait_for(|synced| *synced) => {}
            () = tasks.shutdown().requested() => bail!("{}", tasks.shutdown().reason().as_deref().unwrap_or("stopped before the first sync")),
        }
        serve(&config, &tasks, parts)?;
    }
    let _ = serving.send(());
    steeple_runtime::settle_memory();
    // And again what the first SVIDs, streams and callers needed.
    tasks.spawn_until_shutdown("settling", OnEnd::Log, async {
        tokio::time::sleep(SETTLED_AFTER).await;
        steeple_runtime::settle_memory();
    });
    Ok(())
}

/// What keeps to the server, once the agent has an SVID.
struct Following {
    identity: Arc<AgentIdentity>,
    signing: Arc<Signing>,
    sync: Sync,
}

impl Following {
    fn start(self, tasks: &TaskGroup) {
        let Self { identity, signing, sync } = self;
        tasks.spawn_until_shutdown("signing", OnEnd::Shutdown, signing.run());
        tasks.spawn_until_shutdown("agent SVID", OnEnd::Shutdown, async move { identity.run().await });
        tasks.spawn_until_shutdown("sync", OnEnd::Shutdown, async move { sync.run().await });
    }
}

/// What is served from.
struct Parts {
    state: Arc<AgentState>,
    link: Arc<ServerLink>,
    identity: Arc<AgentIdentity>,
    signing: Arc<Signing>,
    logs: LogHandle,
    started: Duration,
}

fn serve(config: &Config, tasks: &TaskGroup, parts: Parts) -> anyhow::Result<()> {
    let Parts { state, link, identity, signing, logs, started } = parts;
    let attestation = attestation(config);
    let delegated = DelegatedIdentity::new(
        state.clone(),
        attestation.clone(),
        signing.clone(),
        config.authorized_delegates.clone(),
    );
    let explain = Explain::new(state.clone(), attestation.clone(), identity.clone(), link);
    let api = WorkloadApi::new(state.clone(), attestation, signing, config.workload.clone());
    let sockets = endpoints::bind(config)?;
    sockets.serve(config, tasks, endpoints::Parts { api, explain, delegated, state, identity, logs, started })
}

fn announce(config: &Config, logs: &LogHandle) {
    tracing::info!(data_dir = %config.data_dir.display(), launch_log_level = logs.launch_level().name(), version = VERSION, "Starting agent");
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    for (kind, name) in &config.plugins {
        tracing::info!(
            subsystem_name = "catalog",
            external = false,
            plugin_name = name,
            plugin_type = kind,
            "Plugin loaded"
        );
    }
}

async fn telemetry(config: &Config, tasks: &TaskGroup) -> anyhow::Result<()> {
    let Some(Telemetry { sinks, metrics }) = config.telemetry.clone() else { return Ok(()) };
    let prometheus = sinks.prometheus.clone().unwrap_or_default();
    let who = (VERSION, config.trust_domain.name());
    let started = metrics::start(metrics, sinks, who, tasks).await;
    started.with_context(|| format!("cannot listen for Prometheus on {}:{}", prometheus.0, prometheus.1))?;
    Ok(())
}

/// One host, or several with commas between them (ours): all on one port.
fn server_address(config: &Config) -> String {
    format!("{}:{}", config.server_address, config.server_port)
}

async fn open_keys(config: &Config) -> anyhow::Result<Arc<dyn KeyManager>> {
    Ok(match &config.key_manager {
        KeyManagerConfig::Memory => Arc::new(MemoryKeyManager::new()),
        KeyManagerConfig::Disk { directory } => {
            let directory = directory.clone();
            Arc::new(tokio::task::spawn_blocking(move || open_key_directory(&directory)).await??)
        }
    })
}

/// A banned agent, or one that was evicted for good, holds nothing.
fn forget_when_forfeited(identity: &AgentIdentity, state: &Arc<AgentState>) {
    state.know_standing(identity.standings());
    let (forgetting, turned) = (state.clone(), state.clone());
    identity.when_forfeited(Box::new(move || forgetting.forget()));
    identity.when_clock_turned(Box::new(move || turned.clock_turned()));
}

/// A join token that is given counts, whatever attestor is configured (SPIRE).
async fn node_attestor(config: &Config) -> anyhow::Result<Arc<dyn AgentNodeAttestor>> {
    let token = config.join_token.expose();
    if let Some(file) = &config.join_token_file {
        return Ok(Arc::new(JoinToken::from_file(file)));
    }
    if !token.is_empty() {
        return Ok(Arc::new(JoinToken::new(token.to_owned())));
    }
    let attestor = config.attestor.clone();
    let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<Arc<dyn AgentNodeAttestor>> {
        Ok(match attestor {
            AttestorConfig::JoinToken => Arc::new(JoinToken::new(String::new())),
            AttestorConfig::X509Pop(config) => {
                Arc::new(X509PopAgent::open(config).context("failed to configure plugin \"x509pop\"")?)
            }
            AttestorConfig::SshPop(config) => {
                Arc::new(SshPopAgent::open(&config).context("failed to configure plugin \"sshpop\"")?)
            }
            AttestorConfig::HttpChallenge(config) => Arc::new(HttpChallengeAgent::new(config)),
        })
    });
    opened.await?
}

/// SPIRE makes the directory private and finds out now whether it can be written.
fn open_key_directory(directory: &Path) -> anyhow::Result<DiskKeyManager> {
    use std::os::unix::fs::DirBuilderExt as _;
    let failed = || {
        format!(
            "KeyManager \"disk\": cannot write to directory {}; check its owner and mode",
            directory.display()
        )
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(failed)?;
    let probe = directory.join(".probe");
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).with_context(failed)?;
    Ok(DiskKeyManager::open_directory(directory)?)
}

fn agent_state(config: &Config, clock: &Arc<dyn Clock>) -> AgentState {
    let cache = CacheConfig {
        trust_domain: config.trust_domain.clone(),
        max_size: config.x509_cache_max,
        max_bytes: config.svid_cache_max_bytes,
        rotation: config.rotation,
        seed: clock.now_nanos() as u64,
    };
    AgentState::new(cache, config.jwt_cache_max, clock.clone())
}

fn sync_config(config: &Config) -> SyncConfig {
    SyncConfig {
        interval: config.sync_interval,
        by_revision: config.sync_by_revision,
        version: VERSION.to_owned(),
    }
}

fn attestation(config: &Config) -> WorkloadAttestation {
    let attestors = config.workload_attestors.iter().cloned().map(|attestor| match attestor {
        WorkloadAttestorConfig::Unix(config) => Arc::new(Unix::new(config)) as Arc<dyn WorkloadAttestor>,
        WorkloadAttestorConfig::Docker(config) => Arc::new(Docker::new(config)),
        WorkloadAttestorConfig::Systemd(config) => Arc::new(Systemd::new(config)),
    });
    WorkloadAttestation::new(attestors.collect())
}
