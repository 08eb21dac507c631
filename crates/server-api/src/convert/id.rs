use steeple_proto::spire::api::types;
use steeple_spiffe::{SpiffeId, TrustDomain};

use super::ConvertError;

/// The wire form holds the trust domain's name and the path.
pub fn id_to_proto(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid { trust_domain: id.trust_domain().name().to_owned(), path: id.path().to_owned() }
}

/// Any well-formed ID. SPIRE takes a trust domain given as an ID (`spiffe://td`) too.
pub fn id_from_proto(id: Option<&types::Spiffeid>) -> Result<SpiffeId, ConvertError> {
    let id = id.ok_or(ConvertError::MissingId)?;
    let trust_domain = TrustDomain::new(&id.trust_domain)?;
    Ok(SpiffeId::from_parts(&trust_domain, &id.path)?)
}

/// An ID of our trust domain with a path: what a parent may be.
pub fn member_id_from_proto(
    td: &TrustDomain,
    id: Option<&types::Spiffeid>,
) -> Result<SpiffeId, ConvertError> {
    let id = id_from_proto(id)?;
    check_member(td, &id, "a member of")?;
    Ok(id)
}

/// An ID under `/spire/agent/` of our trust domain.
pub fn agent_id_from_proto(td: &TrustDomain, id: Option<&types::Spiffeid>) -> Result<SpiffeId, ConvertError> {
    let id = id_from_proto(id)?;
    check_member(td, &id, "an agent in")?;
    if !id.path().starts_with("/spire/agent/") {
        return Err(ConvertError::NotAnAgent { id, trust_domain: td.clone() });
    }
    Ok(id)
}

/// SPIRE only warns when an attestor's agent is outside `/spire/agent/<attestor>/`.
pub fn check_agent_id_for_attestor(
    td: &TrustDomain,
    id: &SpiffeId,
    attestor: &str,
) -> Result<(), ConvertError> {
    if !id.is_member_of(td) {
        return Err(ConvertError::OtherTrustDomain { id: id.clone(), trust_domain: td.clone() });
    }
    let inside = id
        .path()
        .strip_prefix("/spire/agent/")
        .and_then(|p| p.strip_prefix(attestor))
        .is_some_and(|p| p.starts_with('/'));
    if !inside {
        return Err(ConvertError::NotOfAttestor { id: id.clone(), attestor: attestor.to_owned() });
    }
    Ok(())
}

/// An ID of our trust domain outside the reserved `/spire` namespace.
pub fn workload_id_from_proto(
    td: &TrustDomain,
    id: Option<&types::Spiffeid>,
) -> Result<SpiffeId, ConvertError> {
    let id = id_from_proto(id)?;
    check_workload_id(td, &id)?;
    Ok(id)
}

/// See [`workload_id_from_proto`].
pub fn check_workload_id(td: &TrustDomain, id: &SpiffeId) -> Result<(), ConvertError> {
    check_member(td, id, "a workload in")?;
    if is_reserved_path(id.path()) {
        return Err(ConvertError::Reserved { id: id.clone(), trust_domain: td.clone() });
    }
    Ok(())
}

/// `/spire` and what is under it belongs to servers and agents.
pub fn is_reserved_path(path: &str) -> bool {
    path == "/spire" || path.starts_with("/spire/")
}

fn check_member(td: &TrustDomain, id: &SpiffeId, what: &'static str) -> Result<(), ConvertError> {
    if !id.is_member_of(td) {
        return Err(ConvertError::OtherTrustDomain { id: id.clone(), trust_domain: td.clone() });
    }
    if id.path().is_empty() {
        return Err(ConvertError::EmptyPath { id: id.clone(), what, trust_domain: td.clone() });
    }
    Ok(())
}
