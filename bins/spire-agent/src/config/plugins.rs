//! `plugins { }`: which built-ins are configured, and how.

use std::path::PathBuf;

use steeple_config::{Block, Body, PluginConfig, Strictness, UnknownKeys};
use steeple_plugins_base::workload_attestor::UnixConfig;

use super::LoadError;
use steeple_cli::settings::{constraint, exactly_one, no_data, refuse_external, string, unsupported_plugin};

pub(super) struct Plugins {
    pub key_manager: KeyManagerConfig,
    pub unix: Option<UnixConfig>,
    pub loaded: Vec<(String, String)>,
}

/// The one key manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyManagerConfig {
    Memory,
    Disk { directory: PathBuf },
}

pub(super) fn decode(body: &Body, unknown: &mut UnknownKeys) -> Result<Plugins, LoadError> {
    let mut key_managers = Vec::new();
    let mut node_attestors = 0;
    let mut unix = None;
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
                node_attestors += 1;
            }
            ("WorkloadAttestor", "unix") => unix = Some(unix_attestor(block, unknown)?),
            _ => return Err(unsupported_plugin(plugin)),
        }
        loaded.push((plugin.kind.clone(), plugin.name.clone()));
    }
    exactly_one("NodeAttestor", node_attestors)?;
    exactly_one("KeyManager", key_managers.len())?;
    if unix.is_none() {
        return Err(constraint("WorkloadAttestor", "at least 1", 0));
    }
    let key_manager = key_managers.pop().unwrap_or(KeyManagerConfig::Memory);
    Ok(Plugins { key_manager, unix, loaded })
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

fn unix_attestor(mut block: Block<'_>, unknown: &mut UnknownKeys) -> Result<UnixConfig, LoadError> {
    let config = UnixConfig {
        discover_workload_path: block.bool("discover_workload_path")?.unwrap_or(false),
        workload_size_limit: block.int("workload_size_limit")?.unwrap_or(0),
        ..UnixConfig::default()
    };
    block.finish(Strictness::Lax, "WorkloadAttestor \"unix\"", unknown);
    Ok(config)
}
