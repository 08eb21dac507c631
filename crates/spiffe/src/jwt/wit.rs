//! WIT-SVIDs: a token that binds a SPIFFE ID to the workload's own public key (WIT-SVID §2, §3).

mod read;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::UnixTime;
use crate::bundle::jwk::Jwk;
use crate::id::{IdError, MAX_ID_LEN, SpiffeId};
use crate::key::{KeyError, PublicKey, SignatureAlgorithm};

pub use read::{InvalidWit, WitSvid};

/// Why there can be no such WIT-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitError {
    #[error("invalid subject: {0}")]
    Subject(IdError),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The claims of a WIT-SVID: `sub`, `exp`, `iat`, `cnf`, and `iss` if there is an issuer. There is never an `aud`
/// (§3.8).
#[derive(Debug, Clone, PartialEq)]
pub struct WitClaims(Value);

impl WitClaims {
    /// `algorithm` is what the workload will sign with, the `alg` in `cnf` (§3.2); it has to fit the key.
    pub fn new(
        subject: &SpiffeId,
        public_key: &PublicKey,
        algorithm: SignatureAlgorithm,
        issued_at: UnixTime,
        expires_at: UnixTime,
        issuer: &str,
    ) -> Result<Self, WitError> {
        if subject.as_str().len() > MAX_ID_LEN {
            return Err(WitError::Subject(IdError::TooLong));
        }
        let jwk = Some(public_key).filter(|key| algorithm.fits(key));
        let jwk = jwk.and_then(|key| Jwk::of_confirmation(key, algorithm));
        let mismatch =
            || KeyError::AlgorithmMismatch { algorithm, key: format!("{:?}", public_key.key_type()) };
        let jwk = jwk.ok_or_else(mismatch)?;
        let mut claims =
            json!({"sub": subject.as_str(), "exp": expires_at, "iat": issued_at, "cnf": {"jwk": jwk}});
        if !issuer.is_empty() {
            claims["iss"] = issuer.into();
        }
        Ok(Self(claims))
    }
}

/// Header and payload as they are signed. The header holds `alg`, `kid` and `typ` (`wit+jwt`) and nothing else
/// (§2). [`super::assemble`] adds the signature.
pub fn wit_signing_input(algorithm: SignatureAlgorithm, kid: &str, claims: &WitClaims) -> String {
    let header =
        format!("{{\"alg\":\"{}\",\"kid\":{},\"typ\":\"wit+jwt\"}}", algorithm.jws_name(), Value::from(kid));
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.0.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{KeyType, PrivateKey};

    fn decoded(part: &str) -> Value {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
    }

    #[test]
    fn header_and_claims_are_those_of_the_standard() {
        let id = SpiffeId::parse("spiffe://example.org/workload").unwrap();
        for (key_type, algorithm, kty) in [
            (KeyType::EcP256, SignatureAlgorithm::EcdsaSha256, "EC"),
            (KeyType::EcP384, SignatureAlgorithm::EcdsaSha384, "EC"),
            (KeyType::Rsa2048, SignatureAlgorithm::RsaPssSha256, "RSA"),
        ] {
            let key = PrivateKey::generate(key_type).unwrap().public_key();
            let claims = WitClaims::new(&id, &key, algorithm, 100, 200, "").unwrap();
            let input = wit_signing_input(SignatureAlgorithm::EcdsaSha256, "k", &claims);
            let (header, payload) = input.split_once('.').unwrap();
            assert_eq!(decoded(header), json!({"alg": "ES256", "kid": "k", "typ": "wit+jwt"}));
            let payload = decoded(payload);
            assert_eq!(payload["sub"], "spiffe://example.org/workload");
            assert_eq!((&payload["iat"], &payload["exp"]), (&json!(100), &json!(200)));
            assert_eq!(payload["cnf"]["jwk"]["alg"], algorithm.jws_name());
            assert_eq!(payload["cnf"]["jwk"]["kty"], kty);
            assert!(payload.get("aud").is_none() && payload.get("iss").is_none());
        }
    }

    #[test]
    fn an_algorithm_of_another_key_is_refused() {
        let id = SpiffeId::parse("spiffe://example.org/workload").unwrap();
        let key = PrivateKey::generate(KeyType::EcP256).unwrap().public_key();
        for algorithm in [SignatureAlgorithm::EcdsaSha384, SignatureAlgorithm::RsaPkcs1Sha256] {
            assert!(WitClaims::new(&id, &key, algorithm, 100, 200, "").is_err());
        }
    }
}
