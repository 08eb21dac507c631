//! The file as a whole: its four blocks, unknown keys, and what the command line overrides.

use steeple_cli::settings;
use steeple_config::{Body, Strictness, UnknownKeys};

use super::{Config, LoadError, RunFlags, agent, plugins};

pub(super) fn decode(body: &Body, flags: &RunFlags) -> Result<Config, LoadError> {
    let mut unknown = UnknownKeys::default();
    let mut root = body.block();
    let mut agent_block = root.block("agent")?.ok_or(LoadError::MissingSection("agent"))?;
    let agent = agent::decode(&mut agent_block, flags, &mut unknown)?;
    let plugins_body = root.body("plugins")?;
    let telemetry = match root.block("telemetry")? {
        Some(block) => settings::telemetry(block, "spire_agent", agent.trust_domain.name(), &mut unknown)?,
        None => None,
    };
    let health = match root.block("health_checks")? {
        Some(block) => settings::health_checks(block, &mut unknown)?,
        None => None,
    };
    agent_block.finish(Strictness::Strict, "agent", &mut unknown);
    root.finish(Strictness::Strict, "top-level", &mut unknown);
    let plugins_body = plugins_body.ok_or(LoadError::MissingSection("plugins"))?;
    if !unknown.refused().is_empty() {
        return Err(LoadError::Unknown(unknown));
    }
    let plugins = plugins::decode(&plugins_body, &mut unknown)?;
    let mut warnings = agent.warnings;
    warnings.extend(unknown.overlooked().iter().map(ToString::to_string));
    warnings.extend(plugins.notes);
    Ok(Config {
        trust_domain: agent.trust_domain,
        data_dir: agent.data_dir,
        server_address: agent.server_address,
        server_port: agent.server_port,
        apis: agent.apis,
        sds: agent.sds,
        socket_path: agent.socket_path,
        admin_socket_path: agent.admin_socket_path,
        authorized_delegates: agent.authorized_delegates,
        join_token: agent.join_token,
        join_token_file: agent.join_token_file,
        trust: agent.trust,
        patience: agent.patience,
        recovers: agent.experimental.recovers,
        log: agent.log,
        workload: agent.workload,
        connections_per_user: agent.experimental.connections_per_user,
        key_type: agent.key_type,
        x509_cache_max: agent.x509_cache_max,
        svid_cache_max_bytes: agent.experimental.svid_cache_max_bytes,
        slow_reader_timeout: agent.experimental.slow_reader_timeout,
        jwt_cache_max: agent.jwt_cache_max,
        jwt_cache_hit_timeout: agent.experimental.jwt_cache_hit_timeout,
        rotation: agent.rotation,
        sync_interval: agent.experimental.sync_interval,
        sync_by_revision: agent.experimental.sync_by_revision,
        require_pq_kem: agent.experimental.require_pq_kem,
        sealed_state: agent.experimental.sealed_state,
        sealed_state_key_path: agent.experimental.sealed_state_key_path,
        key_manager: plugins.key_manager,
        attestor: plugins.attestor,
        workload_attestors: plugins.workload_attestors,
        plugins: plugins.loaded,
        telemetry,
        health,
        warnings,
    })
}
