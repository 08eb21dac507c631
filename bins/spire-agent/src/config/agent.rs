//! `agent { }`

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use steeple_agent_api::WorkloadConfig;
use steeple_agent_api::sds::SdsNames;
use steeple_agent_core::node::Patience;
use steeple_agent_core::rotation::RotationPolicy;
use steeple_config::{Block, Strictness, UnknownKeys};
use steeple_runtime::logs::{LogConfig, LogFormat, LogLevel};
use steeple_spiffe::{KeyType, SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use super::experimental::{self, Experimental};
use super::trust::{self, TrustConfig};
use super::{LoadError, PublicApis, RunFlags, Secret};
use steeple_cli::settings::{duration, invalid, refuse, refuse_on, string};

const DEFAULT_SOCKET: &str = "/tmp/spire-agent/public/api.sock";
const DEFAULT_CACHE: usize = 1000;
/// Calls that one user may have under way.
const DEFAULT_CALLS: usize = 16 * 1024;
const MIN_AVAILABILITY: Duration = Duration::from_hours(24);

pub(super) struct Agent {
    pub trust_domain: TrustDomain,
    pub data_dir: PathBuf,
    pub server_address: String,
    pub server_port: u16,
    pub apis: PublicApis,
    pub sds: SdsNames,
    pub socket_path: Option<PathBuf>,
    pub admin_socket_path: Option<PathBuf>,
    pub authorized_delegates: HashSet<SpiffeId>,
    pub join_token: Secret,
    pub join_token_file: Option<PathBuf>,
    pub trust: TrustConfig,
    pub patience: Patience,
    pub log: LogConfig,
    pub workload: WorkloadConfig,
    pub key_type: KeyType,
    pub x509_cache_max: usize,
    pub jwt_cache_max: usize,
    pub rotation: RotationPolicy,
    pub experimental: Experimental,
    pub warnings: Vec<String>,
}

pub(super) fn decode(
    block: &mut Block<'_>,
    flags: &RunFlags,
    unknown: &mut UnknownKeys,
) -> Result<Agent, LoadError> {
    let mut warnings = Vec::new();
    unserved(block)?;
    let experimental = experimental::decode(block, unknown, &mut warnings)?;
    let (join_token, join_token_file) = join_token(block, flags)?;
    let server_address = flags.server_address.clone().or(string(block, "server_address")?);
    let server_address = server_address.ok_or(LoadError::Missing("server_address"))?;
    let server_port = server_port(block, flags)?;
    let trust_domain = trust_domain(block, flags, &mut warnings)?;
    let trust = trust::decode(block, flags)?;
    let patience = trust::patience(block, flags, &trust)?;
    let data_dir = flags.data_dir.clone().or(string(block, "data_dir")?).unwrap_or_else(|| ".".to_owned());
    let Sockets { apis, public: socket_path, admin: admin_socket_path } = sockets(block, flags)?;
    let workload = WorkloadConfig {
        wait_timeout: experimental.workload_wait_timeout,
        allow_unauthenticated_verifiers: flags.allow_unauthenticated_verifiers
            | block.bool("allow_unauthenticated_verifiers")?.unwrap_or(false),
        allowed_foreign_jwt_claims: block
            .strings("allowed_foreign_jwt_claims")?
            .unwrap_or_default()
            .into_iter()
            .collect(),
        log_selectors: block.strings("log_selectors")?.unwrap_or_default(),
        rate_limits: experimental.rate_limits,
        calls_per_user: calls_per_user(experimental.connections_per_user),
        wit_svids: experimental.wit_svids,
        agent_pid: std::process::id(),
    };
    Ok(Agent {
        authorized_delegates: authorized_delegates(block, &trust_domain)?,
        key_type: key_type(block)?,
        x509_cache_max: cache_size(block, "x509_svid_cache_max_size")?,
        jwt_cache_max: cache_size(block, "jwt_svid_cache_max_size")?,
        rotation: rotation(block)?,
        log: log(block, flags)?,
        data_dir: data_dir.into(),
        trust_domain,
        server_address,
        server_port,
        apis,
        sds: sds(block, unknown)?,
        socket_path,
        admin_socket_path,
        join_token,
        join_token_file,
        trust,
        patience,
        workload,
        experimental,
        warnings,
    })
}

/// Who may use the Delegated Identity API: identities of the own trust domain.
fn authorized_delegates(
    block: &mut Block<'_>,
    trust_domain: &TrustDomain,
) -> Result<HashSet<SpiffeId>, LoadError> {
    let ids = block.strings("authorized_delegates")?.unwrap_or_default();
    let parse = |id: String| {
        let problem = match SpiffeId::parse(&id) {
            Ok(parsed) if parsed.is_member_of(trust_domain) && !parsed.path().is_empty() => {
                return Ok(parsed);
            }
            Ok(_) => format!(
                "error validating authorized delegate: \"{id}\" is no workload's SPIFFE ID of trust domain \"{trust_domain}\""
            ),
            Err(error) => format!("error validating authorized delegate: \"{id}\": {error}"),
        };
        Err(invalid(block, "authorized_delegates", &problem))
    };
    ids.into_iter().map(parse).collect()
}

/// What SPIRE has and we do not (yet): refused by name, never ignored.
fn unserved(block: &mut Block<'_>) -> Result<(), LoadError> {
    refuse_on(block, &["profiling_enabled"])?;
    refuse(block, &["profiling_port", "profiling_freq", "profiling_names"])
}

fn join_token(block: &mut Block<'_>, flags: &RunFlags) -> Result<(Secret, Option<PathBuf>), LoadError> {
    let flag = flags.join_token.as_ref().map(|token| Secret::new(token.expose().to_owned()));
    let token = flag.or(string(block, "join_token")?.map(Secret::new));
    let file = flags.join_token_file.clone().or(string(block, "join_token_file")?);
    match (token, file) {
        (Some(_), Some(_)) => Err(LoadError::Other(
            "only one of join_token or join_token_file can be specified, not both".to_owned(),
        )),
        (Some(token), None) => Ok((token, None)),
        (None, None) => Ok((Secret::default(), None)),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(&path).map(Zeroizing::new).map_err(|error| {
                LoadError::Other(format!("unable to read join token file {path:?}: {error}"))
            })?;
            match text.trim() {
                "" => Err(LoadError::Other("join token file is empty".to_owned())),
                token => Ok((Secret::new(token.to_owned()), Some(path.into()))),
            }
        }
    }
}

fn server_port(block: &mut Block<'_>, flags: &RunFlags) -> Result<u16, LoadError> {
    let file = block.port("server_port")?.filter(|port| *port != 0);
    match flags.server_port {
        Some(port) => u16::try_from(port)
            .map_err(|_| LoadError::Other(format!("-serverPort: port {port} is out of range (0 to 65535)"))),
        None => file.ok_or(LoadError::Missing("server_port")),
    }
}

fn trust_domain(
    block: &mut Block<'_>,
    flags: &RunFlags,
    warnings: &mut Vec<String>,
) -> Result<TrustDomain, LoadError> {
    let file = string(block, "trust_domain")?;
    let name = flags.trust_domain.clone().or(file).ok_or(LoadError::Missing("trust_domain"))?;
    let trust_domain = TrustDomain::new(&name)
        .map_err(|error| LoadError::Other(format!("could not parse trust_domain {name:?}: {error}")))?;
    if trust_domain.is_overlong() {
        warnings.push(format!(
            "Configured trust domain name {name:?} is longer than 255 characters: some SPIFFE implementations refuse it"
        ));
    }
    Ok(trust_domain)
}

/// What the public socket serves, where it is, and where the admin socket is.
struct Sockets {
    apis: PublicApis,
    public: Option<PathBuf>,
    admin: Option<PathBuf>,
}

fn sockets(block: &mut Block<'_>, flags: &RunFlags) -> Result<Sockets, LoadError> {
    let apis = PublicApis {
        workload: !(flags.disable_workload_api | block.bool("disable_workload_api")?.unwrap_or(false)),
        sds: !(flags.disable_sds_api | block.bool("disable_sds_api")?.unwrap_or(false)),
    };
    let file = string(block, "socket_path")?;
    let public = flags.socket_path.clone().or(file).unwrap_or_else(|| DEFAULT_SOCKET.to_owned());
    let public = absolute(&public);
    let admin = string(block, "admin_socket_path")?.map(|path| absolute(&path));
    if let (Some(admin), Some(dir)) = (&admin, public.parent())
        && admin.starts_with(dir)
    {
        // The Workload API's directory is open to everybody.
        let problem = "admin socket cannot be in the same directory or a subdirectory as that containing the Workload API socket";
        return Err(invalid(block, "admin_socket_path", problem));
    }
    Ok(Sockets { apis, public: (apis.workload || apis.sds).then_some(public), admin })
}

/// `sds { }`
fn sds(agent: &mut Block<'_>, unknown: &mut UnknownKeys) -> Result<SdsNames, LoadError> {
    let mut names = SdsNames::default();
    let Some(mut block) = agent.block("sds")? else { return Ok(names) };
    for (key, name) in [
        ("default_svid_name", &mut names.default_svid),
        ("default_bundle_name", &mut names.default_bundle),
        ("default_all_bundles_name", &mut names.default_all_bundles),
    ] {
        if let Some(value) = string(&mut block, key)? {
            *name = value;
        }
    }
    names.disable_spiffe_cert_validation = block.bool("disable_spiffe_cert_validation")?.unwrap_or(false);
    block.finish(Strictness::Lax, "sds", unknown);
    Ok(names)
}

/// A workload has up to four calls open on its connection: X.509-SVIDs, both kinds of bundles and one more. Where nobody
/// set a number, as many calls as connections.
fn calls_per_user(connections: Option<usize>) -> usize {
    let most = connections.unwrap_or(DEFAULT_CALLS);
    most.saturating_mul(4).min(DEFAULT_CALLS).max(most)
}

fn absolute(path: &str) -> PathBuf {
    std::path::absolute(Path::new(path)).unwrap_or_else(|_| path.into())
}

fn key_type(block: &mut Block<'_>) -> Result<KeyType, LoadError> {
    match string(block, "workload_x509_svid_key_type")?.as_deref() {
        None | Some("ec-p256") => Ok(KeyType::EcP256),
        Some("ec-p384") => Ok(KeyType::EcP384),
        Some("rsa-2048") => Ok(KeyType::Rsa2048),
        Some(other) => {
            let problem =
                format!("key type {other:?} is unknown; must be one of [rsa-2048, ec-p256, ec-p384]");
            Err(invalid(block, "workload_x509_svid_key_type", problem))
        }
    }
}

fn cache_size(block: &mut Block<'_>, key: &str) -> Result<usize, LoadError> {
    match block.int(key)?.unwrap_or(0) {
        0 => Ok(DEFAULT_CACHE),
        size => usize::try_from(size).map_err(|_| LoadError::Other(format!("{key} should not be negative"))),
    }
}

fn rotation(block: &mut Block<'_>) -> Result<RotationPolicy, LoadError> {
    let Some(target) = duration(block, "availability_target")? else { return Ok(RotationPolicy::default()) };
    match target.to_std() {
        Some(target) if target >= MIN_AVAILABILITY => {
            Ok(RotationPolicy { availability_target: Some(target.as_millis() as i64) })
        }
        _ => Err(invalid(block, "availability_target", "must be at least 24h")),
    }
}

fn log(block: &mut Block<'_>, flags: &RunFlags) -> Result<LogConfig, LoadError> {
    let wrong =
        |error: steeple_runtime::logs::LogError| LoadError::Other(format!("could not start logger: {error}"));
    let level = flags.log_level.clone().or(string(block, "log_level")?);
    let format = flags.log_format.clone().or(string(block, "log_format")?).unwrap_or_default();
    let file = flags.log_file.clone().or(string(block, "log_file")?);
    Ok(LogConfig {
        format: format.parse::<LogFormat>().map_err(wrong)?,
        level: level.map_or(Ok(LogLevel::default()), |level| level.parse()).map_err(wrong)?,
        file: file.map(PathBuf::from),
        source_location: flags.log_source_location | block.bool("log_source_location")?.unwrap_or(false),
    })
}
