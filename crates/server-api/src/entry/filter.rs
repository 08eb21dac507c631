use steeple_datastore::EntryFilter;
use steeple_proto::spire::api::server::entry::v1::{count_entries_request, list_entries_request};
use steeple_spiffe::TrustDomain;

use super::{ConvertError, EntryError};
use crate::convert::{match_from_proto, member_id_from_proto, selectors_from_proto, workload_id_from_proto};

/// Both requests carry the same filter under two types.
pub(super) type Filter = list_entries_request::Filter;

pub(super) fn from_count(filter: count_entries_request::Filter) -> Filter {
    Filter {
        by_spiffe_id: filter.by_spiffe_id,
        by_parent_id: filter.by_parent_id,
        by_selectors: filter.by_selectors,
        by_federates_with: filter.by_federates_with,
        by_hint: filter.by_hint,
        by_downstream: filter.by_downstream,
    }
}

/// Errors come in SPIRE's order: parent, SPIFFE ID, selectors, federates with.
pub(super) fn from_proto(td: &TrustDomain, filter: &Filter) -> Result<EntryFilter, EntryError> {
    let mut out = EntryFilter {
        // SPIRE takes an empty hint for "any".
        hint: filter.by_hint.clone().filter(|hint| !hint.is_empty()),
        downstream: filter.by_downstream,
        ..EntryFilter::default()
    };
    if let Some(id) = &filter.by_parent_id {
        out.parent_id = Some(member_id_from_proto(td, Some(id)).map_err(EntryError::ParentFilter)?);
    }
    if let Some(id) = &filter.by_spiffe_id {
        out.spiffe_id = Some(workload_id_from_proto(td, Some(id)).map_err(EntryError::SpiffeIdFilter)?);
    }
    if let Some(wanted) = &filter.by_selectors {
        let selectors = selectors_from_proto(&wanted.selectors).map_err(EntryError::SelectorsFilter)?;
        if selectors.is_empty() {
            return Err(EntryError::SelectorsFilter(other("empty selector set")));
        }
        let behavior = match_from_proto(wanted.r#match)
            .ok_or_else(|| EntryError::SelectorsFilter(unknown_match(wanted.r#match)))?;
        out.selectors = Some((selectors, behavior));
    }
    if let Some(wanted) = &filter.by_federates_with {
        let domains: Result<Vec<_>, _> = wanted.trust_domains.iter().map(|td| TrustDomain::new(td)).collect();
        let domains = domains.map_err(|e| EntryError::FederatesWithFilter(e.into()))?;
        if domains.is_empty() {
            return Err(EntryError::FederatesWithFilter(other("empty trust domain set")));
        }
        let behavior = match_from_proto(wanted.r#match)
            .ok_or_else(|| EntryError::FederatesWithFilter(unknown_match(wanted.r#match)))?;
        out.federates_with = Some((domains, behavior));
    }
    Ok(out)
}

fn other(text: &str) -> ConvertError {
    ConvertError::Other(text.to_owned())
}

fn unknown_match(number: i32) -> ConvertError {
    ConvertError::Other(format!("unhandled match behavior \"{number}\""))
}
