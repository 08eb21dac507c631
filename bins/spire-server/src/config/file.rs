//! The file as a whole: its four blocks, unknown keys, and what the command line overrides.

use steeple_cli::settings;
use steeple_config::{Body, Strictness, UnknownKeys};

use super::{Config, LoadError, RunFlags, plugins, server, ttl};

pub(super) fn decode(body: &Body, flags: &RunFlags) -> Result<Config, LoadError> {
    let mut unknown = UnknownKeys::default();
    let mut root = body.block();
    let mut server_block = root.block("server")?.ok_or(LoadError::MissingSection("server"))?;
    let mut server = server::decode(&mut server_block, flags, &mut unknown)?;
    let plugins_body = root.body("plugins")?;
    let telemetry = match root.block("telemetry")? {
        Some(block) => settings::telemetry(block, "spire_server", server.trust_domain.name(), &mut unknown)?,
        None => None,
    };
    let health = match root.block("health_checks")? {
        Some(block) => settings::health_checks(block, &mut unknown)?,
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
        agent_id_selector: server.agent_id_selector,
        require_pq_kem: server.require_pq_kem,
        explain_to_agents: server.explain_to_agents,
        federation: server.federation,
        plugins,
        telemetry,
        health,
        warnings: server.warnings,
    })
}
