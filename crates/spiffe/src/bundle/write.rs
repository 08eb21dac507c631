//! Bundle documents as SPIRE writes them.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use super::jwk::{Jwk, USE_JWT, USE_WIT, USE_X509};
use super::{Bundle, JwtAuthority};

/// Members in SPIRE's order.
#[derive(Serialize)]
pub(super) struct Document {
    keys: Vec<Jwk>,
    #[serde(skip_serializing_if = "is_zero")]
    spiffe_sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) spiffe_refresh_hint: Option<i64>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde calls")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Bundle {
    /// The SPIFFE bundle document (§4), indented by four spaces as SPIRE does: X.509 authorities, JWT
    /// authorities, WIT authorities, each in stored order, then `spiffe_sequence` and `spiffe_refresh_hint`
    /// unless they are 0.
    pub fn to_spiffe_json(&self) -> String {
        indented(&self.document())
    }

    pub(super) fn document(&self) -> Document {
        let x509 = self.x509_authorities.iter().filter_map(|x509| {
            let jwk = Jwk::from_certificate(&x509.certificate)?;
            Some(jwk.with_use(Some(USE_X509)))
        });
        let mut keys: Vec<Jwk> = x509.collect();
        keys.extend(jwt_keys(&self.jwt_authorities, Some(USE_JWT)));
        keys.extend(jwt_keys(&self.wit_authorities, Some(USE_WIT)));
        Document {
            keys,
            spiffe_sequence: self.sequence_number,
            spiffe_refresh_hint: self.refresh_hint.filter(|hint| *hint > 0),
        }
    }

    /// The JWT authorities alone as a standard JWK Set, without `use`: what the Workload API carries
    /// (Workload API §6.2.2).
    pub fn to_jwks_json(&self) -> String {
        indented(&Jwks { keys: jwt_keys(&self.jwt_authorities, None).collect() })
    }

    /// The WIT authorities alone as a JWK Set, each with its `use`: what the Workload API carries (Workload API §7.2.2,
    /// WIT-SVID §6.1).
    pub fn to_wit_jwks_json(&self) -> String {
        indented(&Jwks { keys: jwt_keys(&self.wit_authorities, Some(USE_WIT)).collect() })
    }
}

#[derive(Serialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

fn jwt_keys(authorities: &[JwtAuthority], key_use: Option<&'static str>) -> impl Iterator<Item = Jwk> {
    authorities.iter().filter_map(move |jwt| {
        let jwk = Jwk::from_key(&jwt.public_key, &jwt.key_id)?;
        Some(jwk.with_use(key_use))
    })
}

/// JSON with Go's four-space indent.
pub(super) fn indented(value: &impl Serialize) -> String {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
    // Strings and numbers into memory: nothing that can fail.
    let _ = value.serialize(&mut serializer);
    String::from_utf8(out).unwrap_or_default()
}
