//! Audit fields of bundles, under SPIRE's names. Keys and certificates appear as hashes.

use steeple_proto::spire::api::types;

use crate::hash::sha256_hex;
use crate::rpc::Fields;

pub(crate) fn of_bundle(bundle: &types::Bundle, mask: Option<&types::BundleMask>) -> Fields {
    let on = |pick: fn(&types::BundleMask) -> bool| mask.is_none_or(pick);
    let mut fields = Fields::default().with("trust_domain_id", &bundle.trust_domain);
    if on(|m| m.refresh_hint) {
        fields.push("refresh_hint", bundle.refresh_hint);
    }
    if on(|m| m.sequence_number) {
        fields.push("sequence_number", bundle.sequence_number);
    }
    let jwt: &[_] = if on(|m| m.jwt_authorities) { &bundle.jwt_authorities } else { &[] };
    let x509: &[_] = if on(|m| m.x509_authorities) { &bundle.x509_authorities } else { &[] };
    fields.and(of_authorities(x509, jwt))
}

pub(super) fn of_authorities(x509: &[types::X509Certificate], jwt: &[types::JwtKey]) -> Fields {
    let mut fields = Fields::default();
    for (i, key) in jwt.iter().enumerate() {
        fields.push(format!("jwt_authority_expires_at.{i}"), key.expires_at);
        fields.push(format!("jwt_authority_key_id.{i}"), &key.key_id);
        fields.push(format!("jwt_authority_public_key_sha256.{i}"), sha256_hex(&key.public_key));
    }
    for (i, authority) in x509.iter().enumerate() {
        fields.push(format!("x509_authorities_asn1_sha256.{i}"), sha256_hex(&authority.asn1));
    }
    fields
}

pub(super) fn of_jwt_authority(key: &types::JwtKey) -> Fields {
    Fields::default()
        .with("jwt_authority_expires_at", key.expires_at)
        .with("jwt_authority_key_id", &key.key_id)
        .with("jwt_authority_public_key_sha256", sha256_hex(&key.public_key))
}
