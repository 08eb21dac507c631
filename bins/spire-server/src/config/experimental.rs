//! `server { experimental { } }` (spire.md §1.4)

use steeple_config::{Block, Strictness, UnknownKeys};
use steeple_server_core::ca::WitConfig;
use steeple_spiffe::KeyType;

use super::LoadError;
use super::server::{duration, key_type};
use steeple_cli::settings::{WIT_SVID, feature_flags, refuse, string};

#[derive(Debug, Default)]
pub(super) struct Experimental {
    /// `agent_spiffe_id_as_selector`
    pub agent_id_selector: bool,
    pub require_pq_kem: bool,
    /// `explain_to_agents = false` (ours)
    pub explain_off: bool,
    pub wit: Option<WitConfig>,
}

/// `ca_key_type` is the WIT key's, too, unless the block names another.
pub(super) fn decode(
    server: &mut Block<'_>,
    ca_key_type: KeyType,
    unknown: &mut UnknownKeys,
    warnings: &mut Vec<String>,
) -> Result<Experimental, LoadError> {
    let Some(mut block) = server.block("experimental")? else { return Ok(Experimental::default()) };
    refuse(&block, &["auth_opa_policy_engine", "named_pipe_name"])?;
    let agent_id_selector = block.bool("agent_spiffe_id_as_selector")?.unwrap_or(false);
    let require_pq_kem = block.bool("require_pq_kem")?.unwrap_or(false);
    let explain_off = !block.bool("explain_to_agents")?.unwrap_or(true);
    let events_based_cache = block.bool("events_based_cache")?.unwrap_or(false);
    let timed = cache_times(&mut block, warnings)?;
    let wit_key_type = key_type(&mut block, "wit_key_type")?;
    let wit_issuer = string(&mut block, "wit_issuer")?;
    let flags = feature_flags(&mut block)?;
    let any = agent_id_selector || require_pq_kem || events_based_cache || timed || !flags.is_empty();
    if any || wit_key_type.is_some() || wit_issuer.is_some() {
        warnings.push(
            "Experimental features have been enabled. Please see doc/upgrading.md for upgrade and compatibility \
             considerations for experimental features."
                .to_owned(),
        );
    }
    warnings.extend(flags.iter().map(|flag| format!("Developer feature flag {flag:?} has been enabled")));
    // SPIRE does not look for unknown keys here.
    block.finish(Strictness::Lax, "experimental", unknown);
    let wit = flags.iter().any(|flag| flag == WIT_SVID).then(|| WitConfig {
        issuer: wit_issuer.unwrap_or_default(),
        ..WitConfig::new(wit_key_type.unwrap_or(ca_key_type))
    });
    Ok(Experimental { agent_id_selector, require_pq_kem, explain_off, wit })
}

/// How often SPIRE reads its entries again, and how long it waits for events. We follow the change log and need no
/// such times: they are checked and have no effect. Whether any is there.
fn cache_times(block: &mut Block<'_>, warnings: &mut Vec<String>) -> Result<bool, LoadError> {
    let reload = duration(block, "cache_reload_interval")?;
    let full = duration(block, "full_cache_reload_interval")?;
    let prune = duration(block, "prune_events_older_than")?;
    let timeout = duration(block, "event_timeout")?;
    let old_timeout = duration(block, "sql_transaction_timeout")?;
    if old_timeout.is_some() {
        if timeout.is_some() {
            let text =
                "both experimental sql_transaction_timeout and event_timeout set, only set event_timeout";
            return Err(LoadError::Other(text.to_owned()));
        }
        let text =
            "experimental.sql_transaction_timeout is deprecated, use experimental.event_timeout instead";
        warnings.push(text.to_owned());
    }
    Ok([reload, full, prune, timeout, old_timeout].iter().any(Option::is_some))
}
