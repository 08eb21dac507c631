//! `plugins { }`: which built-ins are configured, and how.

use std::path::PathBuf;

use steeple_config::{Block, Body, PluginConfig, Strictness, UnknownKeys};
use steeple_plugins_base::node_attestor::http_challenge::HttpChallengeAgentConfig;
use steeple_plugins_base::node_attestor::sshpop::SshPopAgentConfig;
use steeple_plugins_base::node_attestor::x509pop::X509PopAgentConfig;
use steeple_plugins_base::workload_attestor::{SystemdConfig, UnixConfig};
use steeple_plugins_docker::{DockerConfig, DockerOptions};

use super::LoadError;
use steeple_cli::settings::{constraint, exactly_one, no_data, refuse_external, string, unsupported_plugin};

pub(super) struct Plugins {
    pub key_manager: KeyManagerConfig,
    pub attestor: AttestorConfig,
    pub workload_attestors: Vec<WorkloadAttestorConfig>,
    /// What the operator should know.
    pub notes: Vec<String>,
    pub loaded: Vec<(String, String)>,
}

/// The one key manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyManagerConfig {
    Memory,
    Disk { directory: PathBuf },
}

/// The one node attestor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttestorConfig {
    JoinToken,
    X509Pop(X509PopAgentConfig),
    SshPop(SshPopAgentConfig),
    HttpChallenge(HttpChallengeAgentConfig),
}

/// One workload attestor; all of them run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadAttestorConfig {
    Unix(UnixConfig),
    Docker(DockerConfig),
    Systemd(SystemdConfig),
}

pub(super) fn decode(body: &Body, unknown: &mut UnknownKeys) -> Result<Plugins, LoadError> {
    let mut key_managers = Vec::new();
    let mut node_attestors = Vec::new();
    let mut workload_attestors = Vec::new();
    let mut notes = Vec::new();
    let mut loaded = Vec::new();
    for plugin in steeple_config::plugins(body)?.iter().filter(|plugin| plugin.enabled) {
        refuse_external(plugin)?;
        let data = plugin.body()?;
        let block = data.block();
        match (plugin.kind.as_str(), plugin.name.as_str()) {
            ("KeyManager", "memory") => {
                no_data(plugin)?;
                key_managers.push(KeyManagerConfig::Memory);
            }
            ("KeyManager", "disk") => key_managers.push(disk(plugin, block, unknown)?),
            ("NodeAttestor", "join_token") => {
                no_data(plugin)?;
                node_attestors.push(AttestorConfig::JoinToken);
            }
            ("NodeAttestor", "x509pop") => node_attestors.push(x509pop(plugin, block, unknown)?),
            ("NodeAttestor", "sshpop") => node_attestors.push(sshpop(block, unknown)?),
            ("NodeAttestor", "http_challenge") => {
                node_attestors.push(http_challenge(plugin, block, unknown)?);
            }
            ("WorkloadAttestor", "unix") => workload_attestors.push(unix_attestor(block, unknown)?),
            ("WorkloadAttestor", "docker") => {
                workload_attestors.push(docker_attestor(plugin, block, &mut notes)?);
            }
            ("WorkloadAttestor", "systemd") => {
                no_data(plugin)?;
                workload_attestors.push(WorkloadAttestorConfig::Systemd(SystemdConfig::default()));
            }
            _ => return Err(unsupported_plugin(plugin)),
        }
        loaded.push((plugin.kind.clone(), plugin.name.clone()));
    }
    exactly_one("NodeAttestor", node_attestors.len())?;
    let attestor = node_attestors.pop().unwrap_or(AttestorConfig::JoinToken);
    exactly_one("KeyManager", key_managers.len())?;
    if workload_attestors.is_empty() {
        return Err(constraint("WorkloadAttestor", "at least 1", 0));
    }
    let key_manager = key_managers.pop().unwrap_or(KeyManagerConfig::Memory);
    Ok(Plugins { key_manager, attestor, workload_attestors, notes, loaded })
}

fn disk(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<KeyManagerConfig, LoadError> {
    let Some(directory) = string(&mut block, "directory")? else {
        return Err(LoadError::Other(format!(
            "{}:{}: failed to configure plugin \"disk\": directory must be configured",
            plugin.file, plugin.pos
        )));
    };
    block.finish(Strictness::Lax, "KeyManager \"disk\"", unknown);
    Ok(KeyManagerConfig::Disk { directory: directory.into() })
}

fn unix_attestor(
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<WorkloadAttestorConfig, LoadError> {
    let config = UnixConfig {
        discover_workload_path: block.bool("discover_workload_path")?.unwrap_or(false),
        workload_size_limit: block.int("workload_size_limit")?.unwrap_or(0),
        ..UnixConfig::default()
    };
    block.finish(Strictness::Lax, "WorkloadAttestor \"unix\"", unknown);
    Ok(WorkloadAttestorConfig::Unix(config))
}

fn docker_attestor(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    notes: &mut Vec<String>,
) -> Result<WorkloadAttestorConfig, LoadError> {
    if block.block("sigstore")?.is_some() {
        return Err(refused(
            plugin,
            &"sigstore is not supported by this version of Steeple: image signatures are not verified",
        ));
    }
    let options = DockerOptions {
        docker_socket_path: string(&mut block, "docker_socket_path")?,
        podman_socket_path: string(&mut block, "podman_socket_path")?,
        podman_socket_path_template: string(&mut block, "podman_socket_path_template")?,
        docker_version: string(&mut block, "docker_version")?,
        container_id_cgroup_matchers: block.strings("container_id_cgroup_matchers")?.unwrap_or_default(),
        use_new_container_locator: block.bool("use_new_container_locator")?,
        verbose_container_locator_logs: block.bool("verbose_container_locator_logs")?.unwrap_or(false),
    };
    // SPIRE refuses here what it overlooks in most plugins, `docker_host` of Windows among it.
    let mut unknown = UnknownKeys::default();
    block.finish(Strictness::Strict, "WorkloadAttestor \"docker\"", &mut unknown);
    let keys: Vec<&str> = unknown.refused().iter().map(|key| key.key.as_str()).collect();
    if !keys.is_empty() {
        return Err(refused(plugin, &format!("unknown configurations detected: {}", keys.join(","))));
    }
    let config = DockerConfig::new(options).map_err(|error| refused(plugin, &error))?;
    if config.matchers.is_some() {
        // SPIRE's text.
        notes.push("Using the legacy container locator with custom cgroup matchers. This feature will be removed in a future release.".to_owned());
    }
    Ok(WorkloadAttestorConfig::Docker(config))
}

fn x509pop(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<AttestorConfig, LoadError> {
    let mut option = |key| Ok::<_, LoadError>(string(&mut block, key)?.unwrap_or_default());
    let config = X509PopAgentConfig::new(
        &option("private_key_path")?,
        &option("certificate_path")?,
        &option("intermediates_path")?,
        &option("spiffe_endpoint_socket")?,
    );
    block.finish(Strictness::Lax, "NodeAttestor \"x509pop\"", unknown);
    config.map(AttestorConfig::X509Pop).map_err(|error| refused(plugin, &error))
}

fn sshpop(mut block: Block<'_>, unknown: &mut UnknownKeys) -> Result<AttestorConfig, LoadError> {
    let mut config = SshPopAgentConfig::default();
    if let Some(path) = string(&mut block, "host_key_path")? {
        config.host_key_path = path.into();
    }
    if let Some(path) = string(&mut block, "host_cert_path")? {
        config.host_cert_path = path.into();
    }
    block.finish(Strictness::Lax, "NodeAttestor \"sshpop\"", unknown);
    Ok(AttestorConfig::SshPop(config))
}

fn http_challenge(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<AttestorConfig, LoadError> {
    let config = HttpChallengeAgentConfig::new(
        string(&mut block, "hostname")?,
        string(&mut block, "agentname")?,
        block.int("port")?,
        block.int("advertised_port")?,
    );
    block.finish(Strictness::Lax, "NodeAttestor \"http_challenge\"", unknown);
    config.map(AttestorConfig::HttpChallenge).map_err(|error| refused(plugin, &error))
}

fn refused(plugin: &PluginConfig, error: &impl ToString) -> LoadError {
    LoadError::Other(format!(
        "{}:{}: failed to configure plugin {:?}: {}",
        plugin.file,
        plugin.pos,
        plugin.name,
        error.to_string()
    ))
}
