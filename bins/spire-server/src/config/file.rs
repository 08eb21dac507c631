//! The file as a whole: its four blocks, unknown keys, and what the command line overrides.

use steeple_config::{Block, Body, Strictness, UnknownKeys};

use super::{Config, LoadError, RunFlags, plugins, server, telemetry, ttl};

pub(super) fn decode(body: &Body, flags: &RunFlags) -> Result<Config, LoadError> {
    let mut unknown = UnknownKeys::default();
    let mut root = body.block();
    let mut server_block = root.block("server")?.ok_or(LoadError::MissingSection("server"))?;
    let mut server = server::decode(&mut server_block, flags, &mut unknown)?;
    let plugins_body = root.body("plugins")?;
    let telemetry = match root.block("telemetry")? {
        Some(block) => telemetry::decode(block, &server.trust_domain, &mut unknown)?,
        None => None,
    };
    let health = match root.block("health_checks")? {
        Some(block) => telemetry::decode_health(block, &mut unknown)?,
        None => None,
    };
    server_block.finish(Strictness::Strict, "server", &mut unknown);
    root.finish(Strictness::Strict, "top-level", &mut unknown);
    let plugins_body = plugins_body.ok_or(LoadError::MissingSection("plugins"))?;
    if !unknown.refused().is_empty() {
        return Err(LoadError::Unknown(unknown));
    }
    let plugins = plugins::decode(&plugins_body, &mut unknown)?;
    ttl::check(&server.ca, server.agent_ttl_given, &mut server.warnings);
    server.warnings.extend(unknown.overlooked().iter().map(ToString::to_string));
    Ok(Config {
        trust_domain: server.trust_domain,
        data_dir: server.data_dir,
        bind_address: server.bind_address,
        bind_port: server.bind_port,
        socket_path: server.socket_path,
        admin_ids: server.admin_ids,
        audit_log: server.audit_log,
        log: server.log,
        ca: server.ca,
        limits: server.limits,
        prune_agents: server.prune_agents,
        plugins,
        telemetry,
        health,
        warnings: server.warnings,
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
