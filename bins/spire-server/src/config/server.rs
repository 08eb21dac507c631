//! `server { }`

use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;

use steeple_config::{Block, Strictness, UnknownKeys};
use steeple_runtime::logs::{LogConfig, LogFormat, LogLevel};
use steeple_server_api::RateLimitConfig;
use steeple_server_core::ca::CaConfig;
use steeple_spiffe::x509::DistinguishedName;
use steeple_spiffe::{KeyType, SpiffeId, TrustDomain};

use super::{Federation, LoadError, PruneAgents, RunFlags, experimental, federation};
use steeple_cli::settings::{full_name, invalid, place, refuse, refuse_on, string};

const DEFAULT_SOCKET: &str = "/tmp/spire-server/private/api.sock";
const DEFAULT_PORT: u16 = 8081;

pub(super) struct Server {
    pub trust_domain: TrustDomain,
    pub data_dir: PathBuf,
    pub bind_address: IpAddr,
    pub bind_port: u16,
    pub socket_path: PathBuf,
    pub admin_ids: Vec<SpiffeId>,
    pub audit_log: bool,
    pub log: LogConfig,
    pub ca: CaConfig,
    pub agent_ttl_given: bool,
    pub limits: RateLimitConfig,
    pub prune_agents: Option<PruneAgents>,
    pub agent_id_selector: bool,
    pub require_pq_kem: bool,
    pub explain_to_agents: bool,
    pub federation: Federation,
    pub warnings: Vec<String>,
}

pub(super) fn decode(
    block: &mut Block<'_>,
    flags: &RunFlags,
    unknown: &mut UnknownKeys,
) -> Result<Server, LoadError> {
    unserved(block)?;
    let mut warnings = Vec::new();
    let (bind_address, bind_port) = listener(block, flags)?;
    let trust_domain = trust_domain(block, flags, &mut warnings)?;
    // Read even where a flag wins: a key nobody asks for is unknown.
    let file_data_dir = string(block, "data_dir")?;
    let data_dir = flags.data_dir.clone().or(file_data_dir).ok_or(LoadError::Missing("data_dir"))?;
    let file_socket = string(block, "socket_path")?;
    let socket_path = flags.socket_path.clone().or(file_socket).unwrap_or_else(|| DEFAULT_SOCKET.to_owned());
    let log = log(block, flags)?;
    let (mut ca, agent_ttl_given) = ca(block, &trust_domain, unknown, &mut warnings)?;
    let federation = federation::decode(block, &trust_domain, unknown, &mut warnings)?;
    let experimental = experimental::decode(block, ca.ca_key_type, unknown, &mut warnings)?;
    ca.wit = experimental.wit;
    Ok(Server {
        admin_ids: admin_ids(block)?,
        audit_log: block.bool("audit_log_enabled")?.unwrap_or(false),
        limits: limits(block, unknown)?,
        prune_agents: prune_agents(block)?,
        agent_id_selector: experimental.agent_id_selector,
        require_pq_kem: experimental.require_pq_kem,
        explain_to_agents: !experimental.explain_off,
        federation,
        trust_domain,
        data_dir: data_dir.into(),
        bind_address,
        bind_port,
        socket_path: socket_path.into(),
        log,
        ca,
        agent_ttl_given,
        warnings,
    })
}

/// What SPIRE has and we do not (yet): refused by name, never ignored.
fn unserved(block: &mut Block<'_>) -> Result<(), LoadError> {
    refuse_on(block, &["profiling_enabled"])?;
    refuse(block, &["profiling_port", "profiling_freq", "profiling_names", "proxy_protocol_trusted_cidrs"])?;
    // Our view of agents is never staler than what this server has written: any bound holds.
    block.duration("max_attested_node_info_staleness")?;
    Ok(())
}

fn listener(block: &mut Block<'_>, flags: &RunFlags) -> Result<(IpAddr, u16), LoadError> {
    let file_address = string(block, "bind_address")?;
    let file_port = block.port("bind_port")?.filter(|port| *port != 0);
    let port = match flags.server_port {
        None => file_port.unwrap_or(DEFAULT_PORT),
        Some(port) => u16::try_from(port).map_err(|_| {
            LoadError::Other(format!("-serverPort: port {port} is out of range (0 to 65535)"))
        })?,
    };
    let from_flag = flags.bind_address.is_some();
    let address = flags.bind_address.clone().or(file_address).unwrap_or_else(|| "0.0.0.0".to_owned());
    let resolved = resolve(&address, port);
    resolved.map(|ip| (ip, port)).map_err(|problem| {
        let text = format!("could not resolve bind address \"{address}:{port}\": {problem}");
        if from_flag {
            LoadError::Other(format!("-bindAddress: {text}"))
        } else {
            invalid(block, "bind_address", text)
        }
    })
}

/// An IP address, bracketed or not, or a name.
pub(super) fn resolve(address: &str, port: u16) -> Result<IpAddr, String> {
    let bare = address.trim_matches(['[', ']']);
    if let Ok(ip) = bare.parse() {
        return Ok(ip);
    }
    let mut found = (bare, port).to_socket_addrs().map_err(|e| e.to_string())?;
    found.next().map(|addr| addr.ip()).ok_or_else(|| "no address found".to_owned())
}

fn trust_domain(
    block: &mut Block<'_>,
    flags: &RunFlags,
    warnings: &mut Vec<String>,
) -> Result<TrustDomain, LoadError> {
    let from_file = string(block, "trust_domain")?;
    let name = flags.trust_domain.clone().or(from_file).ok_or(LoadError::Missing("trust_domain"))?;
    let td = TrustDomain::new(&name)
        .map_err(|e| LoadError::Other(format!("could not parse trust_domain {name:?}: {e}")))?;
    if td.is_overlong() {
        warnings.push(format!(
            "Configured trust domain name {td:?} should be less than 255 characters to be SPIFFE compliant; \
             a longer trust domain name may impact interoperability",
            td = td.name()
        ));
    }
    Ok(td)
}

fn log(block: &mut Block<'_>, flags: &RunFlags) -> Result<LogConfig, LoadError> {
    let level = string(block, "log_level")?;
    let format = string(block, "log_format")?;
    let file = string(block, "log_file")?;
    let source_location = block.bool("log_source_location")?.unwrap_or(false);
    let start = |e: steeple_runtime::logs::LogError| LoadError::Other(format!("could not start logger: {e}"));
    let level = match flags.log_level.clone().or(level) {
        Some(level) => level.parse::<LogLevel>().map_err(start)?,
        None => LogLevel::Info,
    };
    let format = match flags.log_format.clone().or(format) {
        Some(format) => format.parse::<LogFormat>().map_err(start)?,
        None => LogFormat::default(),
    };
    Ok(LogConfig {
        format,
        level,
        file: flags.log_file.clone().or(file).map(PathBuf::from),
        source_location: flags.log_source_location || source_location,
    })
}

fn admin_ids(block: &mut Block<'_>) -> Result<Vec<SpiffeId>, LoadError> {
    let ids = block.strings("admin_ids")?.unwrap_or_default();
    ids.iter()
        .map(|id| {
            SpiffeId::parse(id)
                .map_err(|e| invalid(block, "admin_ids", format!("could not parse admin ID {id:?}: {e}")))
        })
        .collect()
}

fn ca(
    block: &mut Block<'_>,
    trust_domain: &TrustDomain,
    unknown: &mut UnknownKeys,
    warnings: &mut Vec<String>,
) -> Result<(CaConfig, bool), LoadError> {
    let mut ca = CaConfig::new(trust_domain.clone());
    if let Some(ttl) = seconds(block, "ca_ttl")? {
        ca.ca_ttl = ttl;
    }
    if let Some(ttl) = seconds(block, "default_x509_svid_ttl")? {
        ca.default_x509_svid_ttl = ttl;
    }
    if let Some(ttl) = seconds(block, "default_jwt_svid_ttl")? {
        ca.default_jwt_svid_ttl = ttl;
    }
    let agent_ttl = seconds(block, "agent_ttl")?;
    ca.agent_ttl = agent_ttl.unwrap_or(ca.default_x509_svid_ttl);
    if let Some(key_type) = key_type(block, "ca_key_type")? {
        ca.ca_key_type = key_type;
        ca.jwt_key_type = key_type;
    }
    if let Some(key_type) = key_type(block, "jwt_key_type")? {
        ca.jwt_key_type = key_type;
    }
    ca.jwt_issuer = block.string("jwt_issuer")?.unwrap_or_default();
    ca.disable_jwt_svids = block.bool("disable_jwt_svids")?.unwrap_or(false);
    if let Some(mut subject) = block.block("ca_subject")? {
        let name = DistinguishedName {
            country: subject.strings("country")?.unwrap_or_default(),
            organization: subject.strings("organization")?.unwrap_or_default(),
            common_name: subject.string("common_name")?.unwrap_or_default(),
            ..DistinguishedName::default()
        };
        subject.finish(Strictness::Strict, "ca_subject", unknown);
        if name.is_empty() {
            warnings.push("ca_subject configurable is set but empty; the default will be used".to_owned());
        } else {
            ca.ca_subject = name;
        }
    }
    Ok((ca, agent_ttl.is_some()))
}

/// A time to live: positive.
fn seconds(block: &mut Block<'_>, key: &str) -> Result<Option<i64>, LoadError> {
    let Some(duration) = duration(block, key)? else { return Ok(None) };
    if duration < 1 {
        return Err(invalid(block, key, "must be at least one second"));
    }
    Ok(Some(duration))
}

/// Whole seconds; an empty string is not set.
pub(super) fn duration(block: &mut Block<'_>, key: &str) -> Result<Option<i64>, LoadError> {
    if block.string(key)?.is_none_or(|text| text.is_empty()) {
        return Ok(None);
    }
    Ok(block.duration(key)?.map(steeple_config::GoDuration::seconds))
}

pub(super) fn key_type(block: &mut Block<'_>, key: &str) -> Result<Option<KeyType>, LoadError> {
    let Some(text) = string(block, key)? else { return Ok(None) };
    let parsed = text.parse().map_err(|_| {
        let kinds = "expected rsa-2048, rsa-4096, ec-p256 or ec-p384";
        LoadError::Other(format!(
            "{}: error parsing {key}: key type {text:?} is unknown; {kinds} ({})",
            place(block, key),
            full_name(block, key)
        ))
    })?;
    Ok(Some(parsed))
}

fn limits(block: &mut Block<'_>, unknown: &mut UnknownKeys) -> Result<RateLimitConfig, LoadError> {
    let mut limits = RateLimitConfig::default();
    if let Some(mut ratelimit) = block.block("ratelimit")? {
        limits.attestation = ratelimit.bool("attestation")?.unwrap_or(true);
        limits.signing = ratelimit.bool("signing")?.unwrap_or(true);
        ratelimit.finish(Strictness::Strict, "ratelimit", unknown);
    }
    Ok(limits)
}

fn prune_agents(block: &mut Block<'_>) -> Result<Option<PruneAgents>, LoadError> {
    let expired_for = duration(block, "prune_attested_nodes_expired_for")?;
    let batch = block.int("prune_attested_nodes_batch_size")?.unwrap_or(0);
    let tofu = block.bool("prune_tofu_nodes")?.unwrap_or(false);
    let Some(expired_for) = expired_for.filter(|seconds| *seconds != 0) else { return Ok(None) };
    if expired_for < 0 {
        return Err(invalid(block, "prune_attested_nodes_expired_for", "must not be negative"));
    }
    let batch = match batch {
        0 => 1_000,
        batch => u32::try_from(batch)
            .map_err(|_| invalid(block, "prune_attested_nodes_batch_size", "must be a positive number"))?,
    };
    Ok(Some(PruneAgents { expired_for, batch, tofu }))
}
