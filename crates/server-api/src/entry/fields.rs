//! Audit fields of entries and filters, under SPIRE's names.

use steeple_proto::spire::api::types;
use steeple_spiffe::TrustDomain;

use super::filter::Filter;
use crate::convert::{id_from_proto, member_id_from_proto, selectors_text, workload_id_from_proto};
use crate::rpc::Fields;

pub(super) fn of_entry(entry: &types::Entry, mask: Option<&types::EntryMask>) -> Fields {
    let on = |pick: fn(&types::EntryMask) -> bool| mask.is_none_or(pick);
    let mut fields = Fields::default();
    if !entry.id.is_empty() {
        fields.push("entry_id", &entry.id);
    }
    if on(|m| m.spiffe_id)
        && let Ok(id) = id_from_proto(entry.spiffe_id.as_ref())
    {
        fields.push("spiffe_id", id.as_str());
    }
    if on(|m| m.parent_id)
        && let Ok(id) = id_from_proto(entry.parent_id.as_ref())
    {
        fields.push("parent_id", id.as_str());
    }
    if on(|m| m.selectors) && !entry.selectors.is_empty() {
        fields.push("selectors", selectors_text(&entry.selectors));
    }
    if on(|m| m.x509_svid_ttl) {
        fields.push("x509_svid_ttl", entry.x509_svid_ttl);
    }
    if on(|m| m.jwt_svid_ttl) {
        fields.push("jwt_svid_ttl", entry.jwt_svid_ttl);
    }
    if on(|m| m.federates_with) && !entry.federates_with.is_empty() {
        fields.push("federates_with", entry.federates_with.join(","));
    }
    if on(|m| m.admin) {
        fields.push("admin", entry.admin);
    }
    if on(|m| m.downstream) {
        fields.push("downstream", entry.downstream);
    }
    if on(|m| m.expires_at) {
        fields.push("expires_at", entry.expires_at);
    }
    if on(|m| m.dns_names) && !entry.dns_names.is_empty() {
        fields.push("dns_name", entry.dns_names.join(","));
    }
    if on(|m| m.revision_number) {
        fields.push("revision_number", entry.revision_number);
    }
    if on(|m| m.store_svid) {
        fields.push("store_svid", entry.store_svid);
    }
    if on(|m| m.hint) {
        fields.push("hint", &entry.hint);
    }
    if on(|m| m.created_at) {
        fields.push("created_at", entry.created_at);
    }
    fields
}

pub(super) fn of_filter(td: &TrustDomain, filter: &Filter) -> Fields {
    let mut fields = Fields::default();
    if let Some(hint) = &filter.by_hint {
        fields.push("hint", hint);
    }
    if let Some(Ok(id)) = filter.by_parent_id.as_ref().map(|id| member_id_from_proto(td, Some(id))) {
        fields.push("parent_id", id.as_str());
    }
    if let Some(Ok(id)) = filter.by_spiffe_id.as_ref().map(|id| workload_id_from_proto(td, Some(id))) {
        fields.push("spiffe_id", id.as_str());
    }
    if let Some(wanted) = &filter.by_selectors {
        fields.push("by_selector_match", wanted.r#match().as_str_name());
        fields.push("by_selectors", selectors_text(&wanted.selectors));
    }
    if let Some(wanted) = &filter.by_federates_with {
        fields.push("federates_with_match", wanted.r#match().as_str_name());
        fields.push("federates_with", wanted.trust_domains.join(","));
    }
    if let Some(downstream) = filter.by_downstream {
        fields.push("downstream", downstream);
    }
    fields
}
