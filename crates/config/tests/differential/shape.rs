//! The oracle's configuration, decoded by us.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};
use steeple_config::{
    Block, Body, ConfigError, PluginData, Strictness::Lax, Strictness::Strict, UnknownKeys, plugins,
};

use crate::view;

pub struct Decoded {
    pub config: Json,
    /// `section/key`
    pub unused: BTreeSet<String>,
}

pub fn decode(body: &Body) -> Result<Decoded, ConfigError> {
    let mut unknown = UnknownKeys::default();
    let mut root = body.block();
    let server = root.block("server")?.map(|block| server(block, &mut unknown)).transpose()?;
    let plugin_map = match root.body("plugins")? {
        Some(body) => plugins_of(&body)?,
        None => json!({}),
    };
    let telemetry = match root.block("telemetry")? {
        Some(block) => telemetry(block, &mut unknown)?,
        None => json!({}),
    };
    root.finish(Strict, "top-level", &mut unknown);
    let unused = unknown.refused().into_iter().map(|k| format!("{}/{}", k.section, k.key)).collect();
    let config = json!({ "server": server, "telemetry": telemetry, "plugins": plugin_map });
    Ok(Decoded { config, unused })
}

fn server(mut block: Block<'_>, unknown: &mut UnknownKeys) -> Result<Json, ConfigError> {
    let subject = block.block("ca_subject")?.map(|block| subject(block, unknown)).transpose()?;
    let ratelimit = match block.block("ratelimit")? {
        Some(mut block) => {
            let found = json!({
                "attestation": block.bool("attestation")?,
                "fraction": block.float("fraction")?.unwrap_or_default(),
            });
            block.finish(Strict, "ratelimit", unknown);
            found
        }
        None => json!({ "fraction": 0.0 }),
    };
    let federation = match block.block("federation")? {
        Some(mut block) => {
            let mut with = Map::new();
            for (label, mut peer) in block.labelled("federates_with")? {
                let url = peer.string("bundle_endpoint_url")?.unwrap_or_default();
                peer.finish(Lax, "federates_with", unknown);
                with.insert(label, json!({ "bundle_endpoint_url": url }));
            }
            block.finish(Lax, "federation", unknown);
            json!({ "federates_with": with })
        }
        None => json!({}),
    };
    let found = json!({
        "trust_domain": block.string("trust_domain")?.unwrap_or_default(),
        "bind_port": block.int("bind_port")?.unwrap_or_default(),
        "ca_ttl": block.string("ca_ttl")?.unwrap_or_default(),
        "audit_log_enabled": block.bool("audit_log_enabled")?.unwrap_or_default(),
        "admin_ids": block.strings("admin_ids")?,
        "max_attested_node_info_staleness": block.string("max_attested_node_info_staleness")?,
        "ca_subject": subject,
        "ratelimit": ratelimit,
        "federation": federation,
    });
    block.finish(Strict, "server", unknown);
    Ok(found)
}

fn subject(mut block: Block<'_>, unknown: &mut UnknownKeys) -> Result<Json, ConfigError> {
    let found = json!({
        "country": block.strings("country")?,
        "common_name": block.string("common_name")?.unwrap_or_default(),
    });
    block.finish(Strict, "ca_subject", unknown);
    Ok(found)
}

fn telemetry(mut block: Block<'_>, unknown: &mut UnknownKeys) -> Result<Json, ConfigError> {
    let prometheus = match block.block("Prometheus")? {
        Some(mut block) => {
            let found = json!({
                "host": block.string("host")?.unwrap_or_default(),
                "port": block.int("port")?.unwrap_or_default(),
            });
            block.finish(Strict, "Prometheus", unknown);
            Some(found)
        }
        None => None,
    };
    let mut statsd = Vec::new();
    for mut sink in block.blocks("Statsd")? {
        statsd.push(json!({ "address": sink.string("address")?.unwrap_or_default() }));
        sink.finish(Lax, "Statsd", unknown);
    }
    Ok(json!({ "Prometheus": prometheus, "Statsd": statsd, "Labels": block.string_map("Labels")? }))
}

fn plugins_of(body: &Body) -> Result<Json, ConfigError> {
    let mut map = Map::new();
    for plugin in plugins(body)? {
        let (data, file) = match &plugin.data {
            PluginData::None => (json!([]), None),
            PluginData::Inline(body) => (view::tree(body), None),
            PluginData::File(path) => (json!([]), Some(path.clone())),
        };
        let value = json!({
            "command": plugin.command.unwrap_or_default(),
            "args": plugin.args,
            "checksum": plugin.checksum.unwrap_or_default(),
            "data_file": file,
            "enabled": (!plugin.enabled).then_some(false),
            "data": data,
        });
        map.insert(format!("{}/{}", plugin.kind, plugin.name), value);
    }
    Ok(map.into())
}
