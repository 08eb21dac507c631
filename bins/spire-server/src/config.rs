//! From the command line and the configuration file to what the program needs (spire.md §1.1, §1.2).
//!
//! read → expand → parse → decode → merge → validate. Nothing here touches the world: what is worth a warning is
//! kept until there is a log ([`Config::warnings`]).

mod file;
mod flags;
mod plugins;
mod server;
mod telemetry;
mod ttl;

use std::net::IpAddr;
use std::path::PathBuf;

use steeple_config::{ConfigError, FileError, PluginDataError, UnknownKeys};
use steeple_runtime::health::HealthConfig;
use steeple_runtime::logs::LogConfig;
use steeple_runtime::metrics::MetricsConfig;
use steeple_server_api::RateLimitConfig;
use steeple_server_core::ca::CaConfig;
use steeple_spiffe::{SpiffeId, TrustDomain};

pub use flags::RunFlags;
pub use plugins::{KeyManagerConfig, Plugins};

/// What `run` needs; nothing here is optional that has a default.
#[derive(Clone, Debug)]
pub struct Config {
    pub trust_domain: TrustDomain,
    pub data_dir: PathBuf,
    pub bind_address: IpAddr,
    pub bind_port: u16,
    pub socket_path: PathBuf,
    pub admin_ids: Vec<SpiffeId>,
    pub audit_log: bool,
    pub log: LogConfig,
    pub ca: CaConfig,
    pub limits: RateLimitConfig,
    pub prune_agents: Option<PruneAgents>,
    pub plugins: Plugins,
    pub telemetry: Option<Telemetry>,
    pub health: Option<HealthConfig>,
    /// For the log, once there is one.
    pub warnings: Vec<String>,
}

/// `prune_attested_nodes_*`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneAgents {
    /// Seconds since an agent's SVID expired.
    pub expired_for: i64,
    pub batch: u32,
    /// `prune_tofu_nodes`: those that cannot attest again too.
    pub tofu: bool,
}

/// `telemetry { Prometheus { … } … }`
#[derive(Clone, Debug)]
pub struct Telemetry {
    pub host: String,
    pub port: u16,
    pub metrics: MetricsConfig,
}

/// Why the server does not start. Says what is wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The command line; printed with its usage.
    #[error("{0}")]
    Flags(steeple_config::FlagError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Decode(#[from] ConfigError),
    #[error(transparent)]
    PluginData(#[from] PluginDataError),
    #[error("{} section must be configured", .0)]
    MissingSection(&'static str),
    #[error("{} must be configured", .0)]
    Missing(&'static str),
    #[error("{}", unknown(.0))]
    Unknown(UnknownKeys),
    #[error("{place}: option \"{option}\" is not supported by this version of Steeple")]
    Unsupported { place: String, option: String },
    #[error("{place}: plugin {kind} \"{name}\" is not supported by this version of Steeple")]
    UnsupportedPlugin { place: String, kind: String, name: String },
    #[error("{place}: {option}: {problem}")]
    Invalid { place: String, option: String, problem: String },
    /// Whole sentences, SPIRE's where it has one.
    #[error("{0}")]
    Other(String),
}

/// SPIRE's words, then what it leaves to the log: where.
fn unknown(keys: &UnknownKeys) -> String {
    let places: Vec<String> = keys.refused().iter().map(ToString::to_string).collect();
    format!("unknown configuration detected: {}", places.join("; "))
}

impl Config {
    /// Reads the flags of `run` or `validate` and the file they name.
    pub fn load(command: &str, args: &[String]) -> Result<Self, LoadError> {
        let flags = RunFlags::parse(command, args).map_err(LoadError::Flags)?;
        let body = steeple_config::read_file(&flags.config, flags.expand_env)?;
        file::decode(&body, &flags)
    }
}

#[cfg(test)]
mod tests;
