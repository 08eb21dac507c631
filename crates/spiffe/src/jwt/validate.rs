//! Reading and validating tokens.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine as _};
use serde_json::{Map, Value};

use crate::UnixTime;
use crate::bundle::Bundle;
use crate::id::{IdError, SpiffeId, TrustDomain};
use crate::key::{PublicKey, SignatureAlgorithm};
use crate::text::{quote, quote_list};

/// How long after `exp` a token is still taken, and how far ahead `nbf` and `iat` may be, in seconds: what
/// go-spiffe and SPIRE allow.
pub const EXPIRY_LEEWAY: i64 = 60;

/// Longest token that is read at all.
const MAX_TOKEN_LEN: usize = 1024 * 1024;

/// Why a token is no valid JWT-SVID. `Display` is go-spiffe's text without its `jwtsvid: ` prefix;
/// [`JwtError::spire_text`] is what SPIRE's agent answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("unable to parse JWT token")]
    Malformed(String),
    #[error("token header type not equal to either JWT or JOSE")]
    WrongType,
    #[error("token header missing key id")]
    MissingKeyId,
    #[error("unable to get claims from token: {0}")]
    MalformedClaims(String),
    #[error("token missing subject claim")]
    MissingSubject,
    #[error("token missing exp claim")]
    MissingExpiry,
    #[error("token missing aud claim")]
    MissingAudience,
    #[error("token has an invalid subject claim: {0}")]
    BadSubject(IdError),
    #[error("no bundle found for trust domain {}", quote(.0))]
    NoBundle(String),
    #[error("no JWT authority {} found for trust domain {}", quote(.key_id), quote(.trust_domain))]
    NoAuthority { key_id: String, trust_domain: String },
    #[error("unable to get claims from token: go-jose/go-jose: error in cryptographic primitive")]
    BadSignature,
    #[error("token has expired")]
    Expired,
    #[error("go-jose/go-jose/jwt: validation failed, token not valid yet (nbf)")]
    NotYetValid,
    #[error("go-jose/go-jose/jwt: validation field, token issued in the future (iat)")]
    IssuedInTheFuture,
    #[error("expected audience in {} (audience={})", quote_list(.expected), quote_list(.found))]
    WrongAudience { expected: Vec<String>, found: Vec<String> },
}

impl JwtError {
    /// The text SPIRE's agent gives in `ValidateJWTSVID`.
    pub fn spire_text(&self) -> String {
        match self {
            Self::Malformed(why) => format!("unable to parse JWT token: {why}"),
            Self::BadSubject(why) => format!("token has in invalid subject claim: {why}"),
            Self::NoBundle(trust_domain) => format!("no keys found for trust domain {}", quote(trust_domain)),
            Self::NoAuthority { key_id, trust_domain } => {
                format!("public key {} not found in trust domain {}", quote(key_id), quote(trust_domain))
            }
            Self::BadSignature => "go-jose/go-jose: error in cryptographic primitive".to_owned(),
            Self::MalformedClaims(why) => why.clone(),
            other => other.to_string(),
        }
    }
}

/// A parsed JWT-SVID. The token is a bearer secret and stays out of `Debug`.
#[derive(Clone, PartialEq)]
pub struct JwtSvid {
    pub id: SpiffeId,
    pub audience: Vec<String>,
    pub expires_at: UnixTime,
    pub issued_at: Option<UnixTime>,
    pub key_id: Option<String>,
    /// All claims as they are in the token.
    pub claims: Map<String, Value>,
    token: String,
}

impl JwtSvid {
    /// The token in JWS Compact Serialization.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("id", &self.id)
            .field("audience", &self.audience)
            .field("expires_at", &self.expires_at)
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

/// Where JWT authorities are looked up by trust domain and key ID.
pub trait JwtBundleSource {
    /// `None` when nothing is known of the trust domain; `Some(None)` when it has no such key.
    fn jwt_authority(&self, trust_domain: &TrustDomain, key_id: &str) -> Option<Option<PublicKey>>;
}

impl JwtBundleSource for Bundle {
    fn jwt_authority(&self, trust_domain: &TrustDomain, key_id: &str) -> Option<Option<PublicKey>> {
        (self.trust_domain == *trust_domain).then(|| self.find_jwt_authority(key_id).cloned())
    }
}

impl JwtBundleSource for [Bundle] {
    fn jwt_authority(&self, trust_domain: &TrustDomain, key_id: &str) -> Option<Option<PublicKey>> {
        self.iter().find_map(|bundle| bundle.jwt_authority(trust_domain, key_id))
    }
}

impl<S: BuildHasher> JwtBundleSource for HashMap<TrustDomain, Bundle, S> {
    fn jwt_authority(&self, trust_domain: &TrustDomain, key_id: &str) -> Option<Option<PublicKey>> {
        self.get(trust_domain)?.jwt_authority(trust_domain, key_id)
    }
}

impl JwtBundleSource for BTreeMap<TrustDomain, Bundle> {
    fn jwt_authority(&self, trust_domain: &TrustDomain, key_id: &str) -> Option<Option<PublicKey>> {
        self.get(trust_domain)?.jwt_authority(trust_domain, key_id)
    }
}

/// Reads a token without checking its signature, times or audience: for tokens the caller got from a
/// trusted place. Everything else of JWT-SVID §2 and §3 is checked.
pub fn parse_insecure(token: &str) -> Result<JwtSvid, JwtError> {
    Ok(Parsed::read(token)?.into_svid(token))
}

/// Validates a token (JWT-SVID §4): algorithm, type, claims, signature by an authority of the subject's own
/// trust domain, expiry, and that one of `audience` (the validator's own names) is in `aud`. Without any
/// `audience` nothing is valid.
pub fn validate<B: JwtBundleSource + ?Sized>(
    token: &str,
    authorities: &B,
    audience: &[String],
    now: UnixTime,
) -> Result<JwtSvid, JwtError> {
    let parsed = Parsed::read(token)?;
    let key_id = parsed.key_id.clone().filter(|kid| !kid.is_empty()).ok_or(JwtError::MissingKeyId)?;
    let trust_domain = parsed.id.trust_domain();
    let authority = authorities
        .jwt_authority(&trust_domain, &key_id)
        .ok_or_else(|| JwtError::NoBundle(trust_domain.name().to_owned()))?
        .ok_or_else(|| JwtError::NoAuthority { key_id, trust_domain: trust_domain.name().to_owned() })?;
    authority
        .verify_jws(parsed.algorithm, parsed.signing_input.as_bytes(), &parsed.signature)
        .map_err(|_| JwtError::BadSignature)?;
    if !parsed.audience.iter().any(|found| audience.contains(found)) {
        return Err(JwtError::WrongAudience { expected: audience.to_vec(), found: parsed.audience });
    }
    if parsed.not_before.is_some_and(|nbf| now.saturating_add(EXPIRY_LEEWAY) < nbf) {
        return Err(JwtError::NotYetValid);
    }
    if now.saturating_sub(EXPIRY_LEEWAY) > parsed.expires_at {
        return Err(JwtError::Expired);
    }
    if parsed.issued_at.is_some_and(|iat| now.saturating_add(EXPIRY_LEEWAY) < iat) {
        return Err(JwtError::IssuedInTheFuture);
    }
    Ok(parsed.into_svid(token))
}

struct Parsed<'a> {
    algorithm: SignatureAlgorithm,
    key_id: Option<String>,
    id: SpiffeId,
    audience: Vec<String>,
    expires_at: UnixTime,
    not_before: Option<UnixTime>,
    issued_at: Option<UnixTime>,
    claims: Map<String, Value>,
    signing_input: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parsed<'a> {
    fn read(token: &'a str) -> Result<Self, JwtError> {
        let malformed = |why: &str| JwtError::Malformed(why.to_owned());
        if token.len() > MAX_TOKEN_LEN {
            return Err(malformed("token is longer than 1 MiB"));
        }
        // JWT-SVID §1: compact form only; five parts would be JWE (§2).
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("go-jose/go-jose: compact JWS format must have three parts"));
        };
        let header = object(header).map_err(JwtError::Malformed)?;
        // JWT-SVID §4: the algorithm comes before everything else.
        let algorithm = read_algorithm(&header)?;
        if header.contains_key("crit") {
            // RFC 7515 §4.1.11: no extension is understood, so none may be critical.
            return Err(malformed("go-jose/go-jose: unsupported critical header"));
        }
        match header.get("typ") {
            None => {}
            Some(Value::String(typ)) if typ == "JWT" || typ == "JOSE" => {}
            Some(_) => return Err(JwtError::WrongType),
        }
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.clone()),
            Some(_) => return Err(malformed("kid is not a string")),
        };
        let claims = object(payload).map_err(JwtError::MalformedClaims)?;
        let signature = base64url(signature).map_err(JwtError::Malformed)?;
        let subject = match claims.get("sub") {
            Some(Value::String(subject)) if !subject.is_empty() => subject,
            None | Some(Value::Null | Value::String(_)) => return Err(JwtError::MissingSubject),
            Some(_) => return Err(JwtError::MalformedClaims("sub is not a string".into())),
        };
        let expires_at = numeric_date(&claims, "exp")?.ok_or(JwtError::MissingExpiry)?;
        let id = SpiffeId::parse(subject).map_err(JwtError::BadSubject)?;
        Ok(Self {
            algorithm,
            key_id,
            id,
            audience: read_audience(&claims)?,
            expires_at,
            not_before: numeric_date(&claims, "nbf")?,
            issued_at: numeric_date(&claims, "iat")?,
            claims,
            signing_input: &token[..token.len() - parts_len(token)],
            signature,
        })
    }

    fn into_svid(self, token: &str) -> JwtSvid {
        JwtSvid {
            id: self.id,
            audience: self.audience,
            expires_at: self.expires_at,
            issued_at: self.issued_at,
            key_id: self.key_id,
            claims: self.claims,
            token: token.to_owned(),
        }
    }
}

/// Length of the last dot and what follows it.
fn parts_len(token: &str) -> usize {
    token.rfind('.').map_or(0, |dot| token.len() - dot)
}

fn object(part: &str) -> Result<Map<String, Value>, String> {
    let json = base64url(part)?;
    serde_json::from_slice(&json).map_err(|e| e.to_string())
}

/// With Go's words for what is no base64url.
fn base64url(part: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD.decode(part).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            // The group of four that is cut off.
            DecodeError::InvalidLength(length) => length / 4 * 4,
            DecodeError::InvalidPadding => part.len(),
        };
        format!("illegal base64 data at input byte {at}")
    })
}

fn read_algorithm(header: &Map<String, Value>) -> Result<SignatureAlgorithm, JwtError> {
    let name = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    SignatureAlgorithm::from_jws_name(name).ok_or_else(|| {
        let known = SignatureAlgorithm::ALL.map(SignatureAlgorithm::jws_name);
        JwtError::Malformed(format!(
            "unexpected signature algorithm {}; expected {}",
            quote(name),
            quote_list(&known)
        ))
    })
}

/// A NumericDate (RFC 7519 §2), which may have a fraction; it is cut off.
fn numeric_date(claims: &Map<String, Value>, name: &str) -> Result<Option<UnixTime>, JwtError> {
    let bad = || JwtError::MalformedClaims(format!("{name} is not a NumericDate"));
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(seconds), _) => Ok(Some(seconds)),
            // 2^53 seconds are 285 million years; beyond, floats are no seconds any more.
            (None, Some(seconds)) if seconds.abs() <= 9_007_199_254_740_992.0 => {
                Ok(Some(seconds.floor() as i64))
            }
            _ => Err(bad()),
        },
        Some(_) => Err(bad()),
    }
}

/// `aud` is a string or an array of strings (RFC 7519 §4.1.3), with at least one value (JWT-SVID §3.2).
fn read_audience(claims: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    let bad = || JwtError::MalformedClaims("aud is neither a string nor a list of strings".into());
    let audience = match claims.get("aud") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many
            .iter()
            .map(|value| value.as_str().map(str::to_owned).ok_or_else(bad))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(bad()),
    };
    if audience.iter().all(String::is_empty) {
        return Err(JwtError::MissingAudience);
    }
    Ok(audience)
}

#[cfg(test)]
mod tests;
