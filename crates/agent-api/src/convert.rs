//! Wire types to the engine's types. Each error names its field.

use steeple_agent_core::entry::{Entry, Selector};
use steeple_proto::spire::api::types;
use steeple_spiffe::bundle::{Bundle, JwtAuthority, X509Authority};
use steeple_spiffe::{Certificate, IdError, PublicKey, SpiffeId, TrustDomain};

/// What the server sent that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{field}: {source}")]
    Id { field: &'static str, source: IdError },
    #[error("x509_authorities[{index}]: {reason}")]
    X509Authority { index: usize, reason: String },
    #[error("jwt_authorities[{index}]: {reason}")]
    JwtAuthority { index: usize, reason: String },
    #[error("wit_authorities[{index}]: {reason}")]
    WitAuthority { index: usize, reason: String },
}

pub(crate) fn entry(proto: types::Entry) -> Result<Entry, ConvertError> {
    if proto.id.is_empty() {
        return Err(ConvertError::Missing("id"));
    }
    let federates_with = proto
        .federates_with
        .iter()
        .map(|name| trust_domain("federates_with", name))
        .collect::<Result<_, _>>()?;
    let attributes = proto.additional_attributes.unwrap_or_default();
    Ok(Entry {
        id: proto.id.into(),
        spiffe_id: spiffe_id("spiffe_id", proto.spiffe_id.as_ref())?,
        selectors: proto.selectors.iter().map(|s| Selector::new(&s.r#type, &s.value)).collect(),
        x509_svid_ttl: proto.x509_svid_ttl,
        jwt_svid_ttl: proto.jwt_svid_ttl,
        federates_with,
        dns_names: proto.dns_names,
        hint: proto.hint,
        expires_at: proto.expires_at,
        revision_number: proto.revision_number,
        created_at: proto.created_at,
        admin: proto.admin,
        downstream: proto.downstream,
        store_svid: proto.store_svid,
        disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
        jwt_svid_include_jti: attributes.jwt_svid_include_jti,
    })
}

pub(crate) fn bundle(proto: types::Bundle) -> Result<Bundle, ConvertError> {
    let mut bundle = Bundle::new(trust_domain("trust_domain", &proto.trust_domain)?);
    for (index, authority) in proto.x509_authorities.iter().enumerate() {
        let certificate = Certificate::from_der(&authority.asn1)
            .map_err(|error| ConvertError::X509Authority { index, reason: error.to_string() })?;
        bundle.x509_authorities.push(X509Authority { certificate, tainted: authority.tainted });
    }
    for (index, key) in proto.jwt_authorities.into_iter().enumerate() {
        let public_key = PublicKey::from_spki_der(&key.public_key)
            .map_err(|error| ConvertError::JwtAuthority { index, reason: error.to_string() })?;
        bundle.jwt_authorities.push(JwtAuthority {
            key_id: key.key_id,
            public_key,
            expires_at: key.expires_at,
            tainted: key.tainted,
        });
    }
    for (index, key) in proto.wit_authorities.into_iter().enumerate() {
        let public_key = PublicKey::from_spki_der(&key.public_key)
            .map_err(|error| ConvertError::WitAuthority { index, reason: error.to_string() })?;
        bundle.wit_authorities.push(JwtAuthority {
            key_id: key.key_id,
            public_key,
            expires_at: key.expires_at,
            tainted: key.tainted,
        });
    }
    bundle.refresh_hint = (proto.refresh_hint != 0).then_some(proto.refresh_hint);
    bundle.sequence_number = proto.sequence_number;
    Ok(bundle)
}

/// SPIRE refuses a selector without type, with a colon in it, or without value.
pub(crate) fn selector(proto: &types::Selector) -> Option<Selector> {
    let valid = !proto.r#type.is_empty() && !proto.r#type.contains(':') && !proto.value.is_empty();
    valid.then(|| Selector::new(&proto.r#type, &proto.value))
}

pub(crate) fn trust_domain(field: &'static str, name: &str) -> Result<TrustDomain, ConvertError> {
    TrustDomain::new(name).map_err(|source| ConvertError::Id { field, source })
}

fn spiffe_id(field: &'static str, proto: Option<&types::Spiffeid>) -> Result<SpiffeId, ConvertError> {
    let proto = proto.ok_or(ConvertError::Missing(field))?;
    let trust_domain = trust_domain(field, &proto.trust_domain)?;
    SpiffeId::from_parts(&trust_domain, &proto.path).map_err(|source| ConvertError::Id { field, source })
}

pub(crate) fn id_to_proto(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid { trust_domain: id.trust_domain().name().to_owned(), path: id.path().to_owned() }
}
