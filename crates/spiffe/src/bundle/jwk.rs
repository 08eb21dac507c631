//! One JSON Web Key (RFC 7517) as far as bundles use it.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::key::{PublicKey, PublicKeyKind, SignatureAlgorithm};
use crate::x509::Certificate;

pub(super) const USE_X509: &str = "x509-svid";
pub(super) const USE_JWT: &str = "jwt-svid";
pub(super) const USE_WIT: &str = "wit-svid";

/// Members in the order SPIRE (go-jose) writes them.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Jwk {
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    key_use: Option<&'static str>,
    kty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5c: Option<Vec<String>>,
}

impl Jwk {
    /// `None` for a key type that JWK cannot carry here.
    pub(super) fn from_key(key: &PublicKey, kid: &str) -> Option<Self> {
        let mut jwk = Self { kid: Some(kid.to_owned()).filter(|kid| !kid.is_empty()), ..Self::default() };
        if let Some((n, e)) = key.rsa_numbers() {
            jwk.kty = "RSA";
            jwk.n = Some(URL_SAFE_NO_PAD.encode(n));
            jwk.e = Some(URL_SAFE_NO_PAD.encode(e));
            return Some(jwk);
        }
        let (x, y) = key.ec_coordinates()?;
        jwk.kty = "EC";
        jwk.crv = curve_name(key.kind());
        jwk.x = Some(URL_SAFE_NO_PAD.encode(x));
        jwk.y = Some(URL_SAFE_NO_PAD.encode(y));
        Some(jwk)
    }

    /// The key as a value of its own, for the claim `cnf` (WIT-SVID §3.2).
    pub(crate) fn of_confirmation(
        key: &PublicKey,
        algorithm: SignatureAlgorithm,
    ) -> Option<serde_json::Value> {
        let jwk = Self { alg: Some(algorithm.jws_name()), ..Self::from_key(key, "")? };
        serde_json::to_value(jwk).ok()
    }

    pub(super) fn with_use(mut self, key_use: Option<&'static str>) -> Self {
        self.key_use = key_use;
        self
    }

    pub(super) fn from_certificate(certificate: &Certificate) -> Option<Self> {
        // X509-SVID §6.1: no kid, one certificate in standard base64.
        let mut jwk = Self::from_key(&certificate.public_key(), "")?;
        jwk.x5c = Some(vec![STANDARD.encode(certificate.der())]);
        Some(jwk)
    }
}

/// A JWK as others wrote it. Members not named here are ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct RawJwk {
    kty: Option<String>,
    #[serde(rename = "use")]
    pub(super) key_use: Option<String>,
    pub(super) kid: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x5c: Option<Vec<String>>,
}

impl RawJwk {
    /// The key type must be one this library knows (§4.2.1).
    pub(crate) fn check_type(&self) -> Result<(), String> {
        match self.kty.as_deref() {
            Some("EC" | "RSA") => Ok(()),
            Some(kty) => Err(format!("unknown key type {kty:?}")),
            None => Err("kty is missing".into()),
        }
    }

    pub(crate) fn public_key(&self) -> Result<PublicKey, String> {
        let number = |value: &Option<String>, name: &str| {
            let text = value.as_deref().ok_or_else(|| format!("{name} is missing"))?;
            // Padding is not allowed (RFC 7515 §2), but some emit it.
            URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| format!("{name} is not base64url"))
        };
        let key = match self.kty.as_deref() {
            Some("EC") => {
                let curve = match self.crv.as_deref() {
                    Some("P-256") => PublicKeyKind::EcP256,
                    Some("P-384") => PublicKeyKind::EcP384,
                    Some("P-521") => PublicKeyKind::EcP521,
                    other => return Err(format!("unknown curve {:?}", other.unwrap_or_default())),
                };
                PublicKey::from_ec(curve, &number(&self.x, "x")?, &number(&self.y, "y")?)
            }
            _ => PublicKey::from_rsa(&number(&self.n, "n")?, &number(&self.e, "e")?),
        };
        key.map_err(|e| e.to_string())
    }

    /// The first certificate of `x5c`; any others are ignored (X509-SVID §6.2).
    pub(super) fn certificate(&self) -> Result<Certificate, String> {
        let first = self.x5c.as_ref().and_then(|x5c| x5c.first()).ok_or("x5c is missing or empty")?;
        let der = STANDARD.decode(first).map_err(|_| "x5c is not base64")?;
        let certificate = Certificate::from_der(&der).map_err(|e| e.to_string())?;
        // RFC 7517 §4.7: other members that describe the key must agree with it.
        if (self.x.is_some() || self.n.is_some()) && self.public_key()? != certificate.public_key() {
            return Err("key members do not match the certificate".into());
        }
        Ok(certificate)
    }
}

fn curve_name(kind: PublicKeyKind) -> Option<&'static str> {
    match kind {
        PublicKeyKind::EcP256 => Some("P-256"),
        PublicKeyKind::EcP384 => Some("P-384"),
        PublicKeyKind::EcP521 => Some("P-521"),
        _ => None,
    }
}
