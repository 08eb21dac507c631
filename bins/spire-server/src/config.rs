//! From the command line and the configuration file to what the program needs (spire.md §1.1, §1.2).
//!
//! read → expand → parse → decode → merge → validate. Nothing here touches the world but to read files that options
//! name: what is worth a warning is
//! kept until there is a log ([`Config::warnings`]).

mod attestors;
mod data_store;
mod experimental;
mod federation;
mod file;
mod flags;
mod plugins;
mod server;
mod ttl;

use std::net::IpAddr;
use std::path::PathBuf;

use steeple_runtime::health::HealthConfig;
use steeple_runtime::logs::LogConfig;
use steeple_server_api::RateLimitConfig;
use steeple_server_core::ca::CaConfig;
use steeple_spiffe::{SpiffeId, TrustDomain};

pub use attestors::AttestorConfig;
pub use federation::{BundleEndpointConfig, Federation, ServingProfile};
pub use flags::RunFlags;
pub use plugins::{KeyManagerConfig, Plugins};
pub use steeple_cli::settings::{LoadError, Telemetry};

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
    /// `experimental.agent_spiffe_id_as_selector`
    pub agent_id_selector: bool,
    /// `experimental.require_pq_kem`: hybrid post-quantum key exchange or none on the TCP API.
    pub require_pq_kem: bool,
    /// `experimental.explain_to_agents`: agents may ask about entries that they cannot serve.
    pub explain_to_agents: bool,
    pub federation: Federation,
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

impl Config {
    /// Reads the flags of `run` or `validate` and the file they name.
    pub fn load(command: &str, args: &[String]) -> Result<Self, LoadError> {
        Self::load_with(&RunFlags::parse(command, args).map_err(LoadError::Flags)?)
    }

    /// Reads the file that the flags name.
    pub fn load_with(flags: &RunFlags) -> Result<Self, LoadError> {
        let body = steeple_config::read_file(&flags.config, flags.expand_env)?;
        file::decode(&body, flags)
    }
}

#[cfg(test)]
mod tests;
