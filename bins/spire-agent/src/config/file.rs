//! The file as a whole: its four blocks, unknown keys, and what the command line overrides.

use steeple_config::{Block, Body, GoDuration, Strictness, UnknownKeys};

use super::{Config, LoadError, RunFlags, agent, plugins, telemetry};

pub(super) fn decode(body: &Body, flags: &RunFlags) -> Result<Config, LoadError> {
    let mut unknown = UnknownKeys::default();
    let mut root = body.block();
    let mut agent_block = root.block("agent")?.ok_or(LoadError::MissingSection("agent"))?;
    let agent = agent::decode(&mut agent_block, flags, &mut unknown)?;
    let plugins_body = root.body("plugins")?;
    let telemetry = match root.block("telemetry")? {
        Some(block) => telemetry::decode(block, &agent.trust_domain, &mut unknown)?,
        None => None,
    };
    let health = match root.block("health_checks")? {
        Some(block) => telemetry::decode_health(block, &mut unknown)?,
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
    Ok(Config {
        trust_domain: agent.trust_domain,
        data_dir: agent.data_dir,
        server_address: agent.server_address,
        server_port: agent.server_port,
        socket_path: agent.socket_path,
        admin_socket_path: agent.admin_socket_path,
        join_token: agent.join_token,
        trust: agent.trust,
        log: agent.log,
        workload: agent.workload,
        connections_per_user: agent.experimental.connections_per_user,
        key_type: agent.key_type,
        x509_cache_max: agent.x509_cache_max,
        jwt_cache_max: agent.jwt_cache_max,
        jwt_cache_hit_timeout: agent.experimental.jwt_cache_hit_timeout,
        rotation: agent.rotation,
        sync_interval: agent.experimental.sync_interval,
        sync_by_revision: agent.experimental.sync_by_revision,
        key_manager: plugins.key_manager,
        unix: plugins.unix,
        plugins: plugins.loaded,
        telemetry,
        health,
        warnings,
    })
}

/// `file:line:column` of a key, or of the block it would be in.
pub(super) fn place(block: &Block<'_>, key: &str) -> String {
    format!("{}:{}", block.file(), block.pos_of(key).unwrap_or_else(|| block.pos()))
}

/// The option's full name, as an operator would look for it.
pub(super) fn full_name(block: &Block<'_>, key: &str) -> String {
    if block.path().is_empty() { key.to_owned() } else { format!("{}.{key}", block.path()) }
}

/// An option SPIRE has and we do not serve.
pub(super) fn unsupported(block: &Block<'_>, key: &str) -> LoadError {
    LoadError::Unsupported { place: place(block, key), option: full_name(block, key) }
}

pub(super) fn invalid(block: &Block<'_>, key: &str, problem: impl ToString) -> LoadError {
    LoadError::Invalid {
        place: place(block, key),
        option: full_name(block, key),
        problem: problem.to_string(),
    }
}

/// Refuses the options that are there.
pub(super) fn refuse(block: &Block<'_>, keys: &[&str]) -> Result<(), LoadError> {
    match keys.iter().find(|key| block.contains(key)) {
        Some(key) => Err(unsupported(block, key)),
        None => Ok(()),
    }
}

/// Refuses switches that are on; off is what we do.
pub(super) fn refuse_on(block: &mut Block<'_>, keys: &[&str]) -> Result<(), LoadError> {
    for key in keys {
        if block.bool(key)? == Some(true) {
            return Err(unsupported(block, key));
        }
    }
    Ok(())
}

/// A string that is set; SPIRE takes an empty one for not set.
pub(super) fn string(block: &mut Block<'_>, key: &str) -> Result<Option<String>, LoadError> {
    Ok(block.string(key)?.filter(|value| !value.is_empty()))
}

/// A duration that is set; as with strings, an empty one is not.
pub(super) fn duration(block: &mut Block<'_>, key: &str) -> Result<Option<GoDuration>, LoadError> {
    match string(block, key)? {
        Some(_) => Ok(block.duration(key)?),
        None => Ok(None),
    }
}
