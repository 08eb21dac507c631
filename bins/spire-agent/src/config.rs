//! From the command line and the configuration file to what the program needs (spire.md §2.1, §2.2).
//!
//! read → expand → parse → decode → merge → validate. Nothing here touches the world but the join token's file: what
//! is worth a warning is kept until there is a log ([`Config::warnings`]).

mod agent;
mod experimental;
mod file;
mod flags;
mod plugins;
mod trust;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use steeple_agent_api::WorkloadConfig;
use steeple_agent_api::sds::SdsNames;
use steeple_agent_api::sealed::SealingMode;
use steeple_agent_core::node::Patience;
use steeple_agent_core::rotation::RotationPolicy;
use steeple_runtime::health::HealthConfig;
use steeple_runtime::logs::LogConfig;
use steeple_spiffe::{KeyType, SpiffeId, TrustDomain};
use zeroize::Zeroizing;

pub use flags::RunFlags;
pub use plugins::{AttestorConfig, KeyManagerConfig, WorkloadAttestorConfig};
pub use steeple_cli::settings::{LoadError, Telemetry};
pub use trust::{BundleFormat, TrustConfig};

/// What `run` needs; nothing here is optional that has a default.
#[derive(Debug)]
pub struct Config {
    pub trust_domain: TrustDomain,
    pub data_dir: PathBuf,
    pub server_address: String,
    pub server_port: u16,
    pub apis: PublicApis,
    /// Names of Envoy's secrets.
    pub sds: SdsNames,
    /// `None` if nothing is served there.
    pub socket_path: Option<PathBuf>,
    pub admin_socket_path: Option<PathBuf>,
    /// Who may use the Delegated Identity API.
    pub authorized_delegates: HashSet<SpiffeId>,
    pub join_token: Secret,
    /// Where it came from, if from a file: read again at each attestation.
    pub join_token_file: Option<PathBuf>,
    pub trust: TrustConfig,
    /// `rebootstrap_mode`, `rebootstrap_delay`
    pub patience: Patience,
    /// `experimental.recover_in_process`: false restores SPIRE's exits.
    pub recovers: bool,
    pub log: LogConfig,
    pub workload: WorkloadConfig,
    pub connections_per_user: Option<usize>,
    pub key_type: KeyType,
    pub x509_cache_max: usize,
    pub svid_cache_max_bytes: usize,
    pub slow_reader_timeout: Duration,
    pub jwt_cache_max: usize,
    pub jwt_cache_hit_timeout: Option<Duration>,
    pub rotation: RotationPolicy,
    pub sync_interval: Duration,
    pub sync_by_revision: bool,
    /// `experimental.require_pq_kem`: hybrid post-quantum key exchange with the server, or none.
    pub require_pq_kem: bool,
    /// `experimental.sealed_state`, `experimental.sealed_state_key_path`
    pub sealed_state: SealingMode,
    pub sealed_state_key_path: Option<PathBuf>,
    pub key_manager: KeyManagerConfig,
    pub attestor: AttestorConfig,
    pub workload_attestors: Vec<WorkloadAttestorConfig>,
    /// Type and name of each plugin, in file order, for the log.
    pub plugins: Vec<(String, String)>,
    pub telemetry: Option<Telemetry>,
    pub health: Option<HealthConfig>,
    /// For the log, once there is one.
    pub warnings: Vec<String>,
}

/// What the public socket serves: `disable_workload_api`, `disable_sds_api`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicApis {
    pub workload: bool,
    pub sds: bool,
}

impl PublicApis {
    /// As SPIRE's log says it.
    pub fn names(self) -> &'static str {
        match (self.workload, self.sds) {
            (true, true) => "Workload and SDS APIs",
            (true, false) => "Workload API",
            (false, true) => "SDS API",
            (false, false) => "no APIs",
        }
    }
}

/// A join token; empty if there is none. Wiped when dropped, never copied by accident.
#[derive(Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }

    /// For what needs it as it is.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
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
