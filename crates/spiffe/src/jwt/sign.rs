//! Making tokens.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::JwtError;
use crate::UnixTime;
use crate::der::{self, Reader};
use crate::id::{IdError, MAX_ID_LEN, SpiffeId};
use crate::key::{KeyError, SignatureAlgorithm};

/// The claims of a JWT-SVID to be signed. `sub`, `aud` and `exp` are always there (JWT-SVID §3); `aud` is
/// written as an array also for one value, as SPIRE does.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    members: BTreeMap<String, Value>,
}

impl Claims {
    /// At least one audience is needed (JWT-SVID §3.2), and an ID of at most 2048 bytes (SPIFFE-ID §2.3).
    pub fn new(
        subject: &SpiffeId,
        audience: &[String],
        issued_at: UnixTime,
        expires_at: UnixTime,
    ) -> Result<Self, JwtError> {
        if audience.is_empty() || audience.iter().any(String::is_empty) {
            return Err(JwtError::MissingAudience);
        }
        if subject.as_str().len() > MAX_ID_LEN {
            return Err(JwtError::BadSubject(IdError::TooLong));
        }
        let mut members = BTreeMap::new();
        members.insert("sub".to_owned(), Value::from(subject.as_str()));
        members.insert("aud".to_owned(), Value::from(audience.to_vec()));
        members.insert("exp".to_owned(), Value::from(expires_at));
        members.insert("iat".to_owned(), Value::from(issued_at));
        Ok(Self { members })
    }

    /// Adds a claim of another name (JWT-SVID §3), such as `iss` or `jti`. The claims of [`Claims::new`] cannot
    /// be replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if !matches!(name, "sub" | "aud" | "exp" | "iat") {
            self.members.insert(name.to_owned(), value.into());
        }
        self
    }

    /// The payload as JSON, members sorted.
    pub fn to_json(&self) -> String {
        let members: Vec<String> = self
            .members
            .iter()
            .map(|(name, value)| format!("{}:{value}", Value::from(name.as_str())))
            .collect();
        format!("{{{}}}", members.join(","))
    }
}

/// Header and payload as they are signed: `base64(header).base64(claims)`. The header holds `alg`, `kid` and
/// `typ` and nothing else (JWT-SVID §2).
pub fn signing_input(algorithm: SignatureAlgorithm, kid: &str, claims: &Claims) -> String {
    let header =
        format!("{{\"alg\":\"{}\",\"kid\":{},\"typ\":\"JWT\"}}", algorithm.jws_name(), Value::from(kid));
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_json()))
}

/// Joins the signed bytes and the signature [`crate::PrivateKey::sign`] made of them to a token in JWS Compact
/// Serialization. ECDSA signatures go from ASN.1 to r and s side by side (RFC 7518 §3.4).
pub fn assemble(
    signing_input: &str,
    algorithm: SignatureAlgorithm,
    signature: &[u8],
) -> Result<String, KeyError> {
    let signature = match algorithm.ecdsa_number_len() {
        Some(len) => ecdsa_fixed(signature, len).ok_or(KeyError::BadSignature)?,
        None => signature.to_vec(),
    };
    Ok(format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn ecdsa_fixed(signature: &[u8], len: usize) -> Option<Vec<u8>> {
    let mut outer = Reader::new(signature);
    let mut numbers = outer.nested(der::SEQUENCE)?;
    let mut out = Vec::with_capacity(2 * len);
    for _ in 0..2 {
        let number = numbers.unsigned()?;
        out.resize(out.len() + len.checked_sub(number.len())?, 0);
        out.extend_from_slice(number);
    }
    (outer.is_empty() && numbers.is_empty()).then_some(out)
}
