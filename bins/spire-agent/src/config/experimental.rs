//! `agent { experimental { } }`. SPIRE does not look for unknown keys here, so a file with our options loads there too.

use std::path::PathBuf;
use std::time::Duration;

use steeple_agent_api::sealed::{SealingMode, UnknownMode};
use steeple_agent_api::workload::{DEFAULT_WAIT, RateLimits};
use steeple_config::{Block, Strictness, UnknownKeys};
use steeple_runtime::slow_reader;

use super::LoadError;
use steeple_cli::settings::{self, invalid, refuse};

pub(super) struct Experimental {
    pub sync_interval: Duration,
    pub sync_by_revision: bool,
    pub jwt_cache_hit_timeout: Option<Duration>,
    pub workload_wait_timeout: Duration,
    pub recovers: bool,
    pub connections_per_user: Option<usize>,
    pub rate_limits: RateLimits,
    pub svid_cache_max_bytes: usize,
    pub sealed_state: SealingMode,
    pub sealed_state_key_path: Option<PathBuf>,
    pub slow_reader_timeout: Duration,
    pub wit_svids: bool,
    pub require_pq_kem: bool,
}

const SYNC_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest deadline a client is known to have.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

impl Default for Experimental {
    fn default() -> Self {
        Self {
            sync_interval: SYNC_INTERVAL,
            sync_by_revision: true,
            jwt_cache_hit_timeout: None,
            workload_wait_timeout: DEFAULT_WAIT,
            recovers: true,
            connections_per_user: None,
            rate_limits: RateLimits::default(),
            svid_cache_max_bytes: usize::MAX,
            sealed_state: SealingMode::default(),
            sealed_state_key_path: None,
            slow_reader_timeout: slow_reader::DEFAULT_PATIENCE,
            wit_svids: false,
            require_pq_kem: false,
        }
    }
}

pub(super) fn decode(
    agent: &mut Block<'_>,
    unknown: &mut UnknownKeys,
    warnings: &mut Vec<String>,
) -> Result<Experimental, LoadError> {
    let mut options = Experimental::default();
    let Some(mut block) = agent.block("experimental")? else { return Ok(options) };
    refuse(&block, &["broker", "named_pipe_name", "admin_named_pipe_name"])?;
    options.require_pq_kem = block.bool("require_pq_kem")?.unwrap_or(false);
    let flags = settings::feature_flags(&mut block)?;
    warnings.extend(flags.iter().map(|flag| format!("Developer feature flag {flag:?} has been enabled")));
    options.wit_svids = flags.iter().any(|flag| flag == settings::WIT_SVID);
    if let Some(interval) = duration(&mut block, "sync_interval")? {
        if interval.is_zero() {
            return Err(invalid(&block, "sync_interval", "must be longer than nothing"));
        }
        options.sync_interval = interval;
    }
    if let Some(by_revision) = block.bool("use_sync_authorized_entries")? {
        warnings.push(
            "The 'use_sync_authorized_entries' configuration is deprecated. SPIRE has announced its removal"
                .to_owned(),
        );
        options.sync_by_revision = by_revision;
    }
    if let Some(timeout) = duration(&mut block, "jwt_svid_cache_hit_timeout")? {
        if !(Duration::from_secs(5)..Duration::from_secs(30)).contains(&timeout) {
            return Err(invalid(
                &block,
                "jwt_svid_cache_hit_timeout",
                "must be at least 5s and less than 30s",
            ));
        }
        warnings.push("The use of 'jwt_svid_cache_hit_timeout' is experimental".to_owned());
        options.jwt_cache_hit_timeout = Some(timeout);
    }
    if let Some(wait) = duration(&mut block, "workload_wait_timeout")? {
        if wait >= LONGEST_WAIT {
            let problem = "must be less than 5s: clients give up after that, and would see a timeout in place of the answer";
            return Err(invalid(&block, "workload_wait_timeout", problem));
        }
        options.workload_wait_timeout = wait;
    }
    options.recovers = block.bool("recover_in_process")?.unwrap_or(true);
    if let Some(most) = block.int("workload_connections_per_user")? {
        match usize::try_from(most) {
            Ok(most) if most > 0 => options.connections_per_user = Some(most),
            _ => return Err(invalid(&block, "workload_connections_per_user", "must be positive")),
        }
    }
    if let Some(patience) = duration(&mut block, "slow_reader_timeout")? {
        if patience < Duration::from_secs(1) {
            return Err(invalid(&block, "slow_reader_timeout", "must be at least 1s"));
        }
        options.slow_reader_timeout = patience;
    }
    match block.int("svid_cache_max_bytes")?.map(usize::try_from) {
        None | Some(Ok(0)) => {}
        Some(Ok(most)) => options.svid_cache_max_bytes = most,
        Some(Err(_)) => {
            return Err(invalid(&block, "svid_cache_max_bytes", "must not be negative; 0 is no limit"));
        }
    }
    if let Some(mode) = settings::string(&mut block, "sealed_state")? {
        options.sealed_state =
            mode.parse().map_err(|error: UnknownMode| invalid(&block, "sealed_state", error.to_string()))?;
    }
    if let Some(path) = settings::string(&mut block, "sealed_state_key_path")? {
        if !matches!(options.sealed_state, SealingMode::Auto | SealingMode::File) {
            let problem = "goes with sealed_state \"file\" or \"auto\"";
            return Err(invalid(&block, "sealed_state_key_path", problem));
        }
        options.sealed_state_key_path = Some(path.into());
    }
    if let Some(limits) = block.block("ratelimit")? {
        options.rate_limits = rate_limits(limits, unknown)?;
    }
    block.finish(Strictness::Lax, "experimental", unknown);
    Ok(options)
}

fn rate_limits(mut block: Block<'_>, unknown: &mut UnknownKeys) -> Result<RateLimits, LoadError> {
    let mut limit = |key: &str| {
        let limit = block.int(key)?.unwrap_or(0);
        u32::try_from(limit)
            .map_err(|_| LoadError::Other(format!("experimental.ratelimit.{key} must not be negative")))
    };
    let limits = RateLimits {
        fetch_x509_svid: limit("fetch_x509_svid")?,
        fetch_jwt_svid: limit("fetch_jwt_svid")?,
        fetch_x509_bundles: limit("fetch_x509_bundles")?,
        fetch_jwt_bundles: limit("fetch_jwt_bundles")?,
        stream_secrets: limit("stream_secrets")?,
        fetch_secrets: limit("fetch_secrets")?,
    };
    block.finish(Strictness::Strict, "ratelimit", unknown);
    Ok(limits)
}

fn duration(block: &mut Block<'_>, key: &str) -> Result<Option<Duration>, LoadError> {
    match settings::duration(block, key)? {
        None => Ok(None),
        Some(duration) => match duration.to_std() {
            Some(duration) => Ok(Some(duration)),
            None => Err(invalid(block, key, "must not be negative")),
        },
    }
}
