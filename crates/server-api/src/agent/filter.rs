use steeple_datastore::AgentFilter;
use steeple_proto::spire::api::server::agent::v1::{count_agents_request, list_agents_request};

use super::AgentError;
use crate::convert::{ConvertError, match_from_proto, selectors_from_proto, selectors_text};
use crate::rpc::Fields;

/// Both requests carry the same filter under two types.
pub(super) type Filter = list_agents_request::Filter;

pub(super) fn from_count(filter: count_agents_request::Filter) -> Filter {
    Filter {
        by_attestation_type: filter.by_attestation_type,
        by_selector_match: filter.by_selector_match,
        by_banned: filter.by_banned,
        by_can_reattest: filter.by_can_reattest,
        by_expires_before: filter.by_expires_before,
    }
}

/// `verb` is what the caller does: list or count.
pub(super) fn from_proto(filter: &Filter, verb: &'static str) -> Result<AgentFilter, AgentError> {
    let mut out = AgentFilter {
        attestation_type: Some(filter.by_attestation_type.clone()).filter(|kind| !kind.is_empty()),
        banned: filter.by_banned,
        can_reattest: filter.by_can_reattest,
        ..AgentFilter::default()
    };
    if !filter.by_expires_before.is_empty() {
        let at = expires_before(&filter.by_expires_before);
        out.expires_before =
            Some(at.ok_or_else(|| AgentError::ExpiresBefore(filter.by_expires_before.clone()))?);
    }
    if let Some(wanted) = &filter.by_selector_match {
        let selectors = selectors_from_proto(&wanted.selectors).map_err(AgentError::Selectors)?;
        let behavior = match_from_proto(wanted.r#match).ok_or_else(|| {
            AgentError::Selectors(ConvertError::Other(format!(
                "unhandled match behavior \"{}\"",
                wanted.r#match
            )))
        })?;
        if selectors.is_empty() {
            return Err(AgentError::NoSelectors(verb));
        }
        out.selectors = Some((selectors, behavior));
    }
    Ok(out)
}

/// Go's layout `2006-01-02 15:04:05 -0700 -07`: the offset comes twice.
fn expires_before(text: &str) -> Option<i64> {
    let (first, short) = text.rsplit_once(' ')?;
    let at = jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S %z", first).ok()?.to_timestamp().ok()?;
    let hours = short.strip_prefix(['+', '-'])?;
    (hours.len() == 2 && hours.bytes().all(|b| b.is_ascii_digit())).then(|| at.as_second())
}

pub(super) fn fields(filter: &Filter) -> Fields {
    let mut fields = Fields::default();
    if !filter.by_attestation_type.is_empty() {
        fields.push("node_attestor_type", &filter.by_attestation_type);
    }
    if let Some(banned) = filter.by_banned {
        fields.push("by_banned", banned);
    }
    if let Some(can_reattest) = filter.by_can_reattest {
        fields.push("by_can_reattest", can_reattest);
    }
    if let Some(wanted) = &filter.by_selector_match {
        fields.push("by_selector_match", wanted.r#match().as_str_name());
        fields.push("by_selectors", selectors_text(&wanted.selectors));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_comes_twice() {
        assert_eq!(expires_before("1970-01-02 00:00:00 +0100 +01"), Some(86_400 - 3_600));
        assert_eq!(expires_before("1970-01-01 00:00:10 +0000 +00"), Some(10));
        for bad in
            ["", "1970-01-01", "1970-01-01 00:00:10 +0000", "1970-01-01 00:00:10 +0000 UTC", "soon +00"]
        {
            assert_eq!(expires_before(bad), None, "{bad}");
        }
    }
}
