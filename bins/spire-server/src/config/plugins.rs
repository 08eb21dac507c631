//! `plugins { }`: which built-ins are configured, and how.

use std::path::PathBuf;

use steeple_config::{Block, Body, PluginConfig, Strictness, UnknownKeys};
use steeple_datastore_sql::DatabaseConfig;

use super::attestors::{self, AttestorConfig};
use super::{LoadError, data_store};
use steeple_cli::settings::{exactly_one, invalid, no_data, refuse_external, string, unsupported_plugin};

/// What the server builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugins {
    /// `DataStore "sql"`
    pub database: DatabaseConfig,
    pub key_manager: KeyManagerConfig,
    pub upstream_authority: Option<UpstreamConfig>,
    /// CredentialComposer `uniqueid`
    pub unique_id: bool,
    /// Whether agents may attest with join tokens.
    pub join_token: bool,
    /// The other attestors, in file order.
    pub attestors: Vec<AttestorConfig>,
    /// Type and name of each, in file order, for the log.
    pub loaded: Vec<(String, String)>,
}

/// The one key manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyManagerConfig {
    Memory,
    Disk { keys_path: PathBuf },
}

/// The one upstream authority: `disk`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_field_names, reason = "as the options are named")]
pub struct UpstreamConfig {
    pub cert_file_path: PathBuf,
    pub key_file_path: PathBuf,
    pub bundle_file_path: Option<PathBuf>,
}

pub(super) fn decode(body: &Body, unknown: &mut UnknownKeys) -> Result<Plugins, LoadError> {
    let mut stores = Vec::new();
    let mut key_managers = Vec::new();
    let mut upstreams = Vec::new();
    let mut unique_id = false;
    let mut join_token = false;
    let mut node_attestors = Vec::new();
    let mut loaded = Vec::new();
    for plugin in steeple_config::plugins(body)?.iter().filter(|plugin| plugin.enabled) {
        refuse_external(plugin)?;
        let data = plugin.body()?;
        let block = data.block();
        match (plugin.kind.as_str(), plugin.name.as_str()) {
            ("DataStore", "sql") => stores.push(data_store::decode(plugin, block, unknown)?),
            ("DataStore", _) => {
                return Err(LoadError::Other(
                    "pluggability for the DataStore is deprecated; only the built-in \"sql\" plugin is supported"
                        .to_owned(),
                ));
            }
            ("KeyManager", "memory") => {
                no_data(plugin)?;
                key_managers.push(KeyManagerConfig::Memory);
            }
            ("KeyManager", "disk") => key_managers.push(disk(plugin, block, unknown)?),
            ("UpstreamAuthority", "disk") => upstreams.push(upstream_disk(plugin, block, unknown)?),
            ("CredentialComposer", "uniqueid") => {
                no_data(plugin)?;
                unique_id = true;
            }
            ("NodeAttestor", "join_token") => {
                no_data(plugin)?;
                join_token = true;
            }
            ("NodeAttestor", "x509pop") => node_attestors.push(attestors::x509pop(plugin, block, unknown)?),
            ("NodeAttestor", "sshpop") => node_attestors.push(attestors::sshpop(plugin, block, unknown)?),
            ("NodeAttestor", "http_challenge") => {
                node_attestors.push(attestors::http_challenge(plugin, block, unknown)?);
            }
            _ => return Err(unsupported_plugin(plugin)),
        }
        loaded.push((plugin.kind.clone(), plugin.name.clone()));
    }
    if stores.len() > 1 {
        return Err(LoadError::Other("only one DataStore plugin is allowed".to_owned()));
    }
    let database = stores.pop().ok_or_else(|| LoadError::Other("expecting a DataStore plugin".to_owned()))?;
    exactly_one("KeyManager", key_managers.len())?;
    let key_manager = key_managers.pop().unwrap_or(KeyManagerConfig::Memory);
    if upstreams.len() > 1 {
        return Err(LoadError::Other(format!(
            "plugin type \"UpstreamAuthority\" constraint not satisfied: expected at most 1 but got {}",
            upstreams.len()
        )));
    }
    let upstream_authority = upstreams.pop();
    Ok(Plugins {
        database,
        key_manager,
        upstream_authority,
        unique_id,
        join_token,
        attestors: node_attestors,
        loaded,
    })
}

fn disk(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<KeyManagerConfig, LoadError> {
    let Some(keys_path) = string(&mut block, "keys_path")? else {
        if block.contains("keys_path") {
            return Err(invalid(&block, "keys_path", "must not be empty"));
        }
        return Err(LoadError::Other(format!(
            "{}:{}: failed to configure plugin \"disk\": keys_path is required",
            plugin.file, plugin.pos
        )));
    };
    block.finish(Strictness::Lax, "KeyManager \"disk\"", unknown);
    Ok(KeyManagerConfig::Disk { keys_path: keys_path.into() })
}

fn upstream_disk(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<UpstreamConfig, LoadError> {
    let cert = string(&mut block, "cert_file_path")?;
    let key = string(&mut block, "key_file_path")?;
    let bundle = string(&mut block, "bundle_file_path")?;
    let (Some(cert), Some(key)) = (cert, key) else {
        return Err(LoadError::Other(format!(
            "{}:{}: failed to configure plugin \"disk\": 'cert_file_path' and 'key_file_path' must be set and not empty",
            plugin.file, plugin.pos
        )));
    };
    block.finish(Strictness::Lax, "UpstreamAuthority \"disk\"", unknown);
    Ok(UpstreamConfig {
        cert_file_path: cert.into(),
        key_file_path: key.into(),
        bundle_file_path: bundle.map(PathBuf::from),
    })
}
