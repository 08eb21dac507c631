//! Reading bundle documents that others wrote. What cannot be used is skipped entry by entry, so that a new
//! key type or use in one entry does not cost the rest (§4.1.3, §4.2).

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::jwk::{RawJwk, USE_JWT, USE_WIT, USE_X509};
use super::{Bundle, BundleError, JwtAuthority};
use crate::id::TrustDomain;

/// An entry of a document that was left out, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Position in `keys`, from 0.
    pub entry: usize,
    pub reason: String,
}

#[derive(Deserialize)]
pub(super) struct RawDocument {
    #[serde(default)]
    keys: Keys,
    #[serde(default)]
    spiffe_sequence: Option<u64>,
    #[serde(default)]
    spiffe_refresh_hint: Option<i64>,
}

/// The member `keys`, which must be there but may be `null`: go-spiffe writes that for an empty bundle.
#[derive(Default)]
enum Keys {
    #[default]
    Missing,
    Listed(Vec<Value>),
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Option::<Vec<Value>>::deserialize(deserializer)?;
        Ok(Self::Listed(keys.unwrap_or_default()))
    }
}

impl Keys {
    fn listed(self) -> Result<Vec<Value>, BundleError> {
        match self {
            Self::Missing => Err(BundleError::NoKeys),
            Self::Listed(keys) => Ok(keys),
        }
    }
}

impl Bundle {
    /// Reads a SPIFFE bundle document (§4). `keys` must be there; it may be empty or `null`.
    pub fn from_spiffe_json(trust_domain: TrustDomain, json: &str) -> Result<Self, BundleError> {
        Self::from_spiffe_json_reporting(trust_domain, json).map(|(bundle, _)| bundle)
    }

    /// As [`Bundle::from_spiffe_json`], with the entries that were skipped.
    pub fn from_spiffe_json_reporting(
        trust_domain: TrustDomain,
        json: &str,
    ) -> Result<(Self, Vec<Skipped>), BundleError> {
        let document = serde_json::from_str(json).map_err(|e| BundleError::Json(e.to_string()))?;
        Self::from_document(trust_domain, document)
    }

    pub(super) fn from_document(
        trust_domain: TrustDomain,
        document: RawDocument,
    ) -> Result<(Self, Vec<Skipped>), BundleError> {
        let mut bundle = Self::new(trust_domain);
        bundle.sequence_number = document.spiffe_sequence.unwrap_or_default();
        // A hint below zero says nothing (§4.1.2); go-spiffe keeps it.
        bundle.refresh_hint = document.spiffe_refresh_hint.filter(|hint| *hint >= 0);
        let mut skipped = Vec::new();
        for (entry, value) in document.keys.listed()?.into_iter().enumerate() {
            if let Err(reason) = bundle.add_entry(value) {
                skipped.push(Skipped { entry, reason });
            }
        }
        Ok((bundle, skipped))
    }

    fn add_entry(&mut self, value: Value) -> Result<(), String> {
        let jwk: RawJwk = serde_json::from_value(value).map_err(|e| e.to_string())?;
        jwk.check_type()?;
        match jwk.key_use.as_deref() {
            Some(USE_X509) => {
                self.add_x509_authority(jwk.certificate()?);
                Ok(())
            }
            Some(USE_JWT) => add_keyed(&mut self.jwt_authorities, &jwk),
            Some(USE_WIT) => add_keyed(&mut self.wit_authorities, &jwk),
            Some(other) => Err(format!("unknown use {other:?}")),
            None => Err("use is missing".into()),
        }
    }

    /// Reads a standard JWK Set of JWT keys, as the Workload API carries it (Workload API §6.2.2). Entries
    /// meant for another use, or without a key ID, are skipped.
    pub fn from_jwks_json(trust_domain: TrustDomain, json: &str) -> Result<Self, BundleError> {
        let document: RawDocument =
            serde_json::from_str(json).map_err(|e| BundleError::Json(e.to_string()))?;
        let mut bundle = Self::new(trust_domain);
        for value in document.keys.listed()? {
            let Ok(jwk) = serde_json::from_value::<RawJwk>(value) else { continue };
            let for_jwt = jwk.key_use.as_deref().is_none_or(|key_use| key_use == USE_JWT || key_use == "sig");
            if for_jwt && jwk.check_type().is_ok() {
                // Skipped as in from_spiffe_json.
                let _ = add_keyed(&mut bundle.jwt_authorities, &jwk);
            }
        }
        Ok(bundle)
    }
}

fn add_keyed(authorities: &mut Vec<JwtAuthority>, jwk: &RawJwk) -> Result<(), String> {
    let key_id = jwk.kid.clone().filter(|kid| !kid.is_empty()).ok_or("kid is missing")?;
    let authority = JwtAuthority { key_id, public_key: jwk.public_key()?, expires_at: 0, tainted: false };
    // The last of several entries with one key ID counts, as in go-spiffe.
    authorities.retain(|earlier| earlier.key_id != authority.key_id);
    authorities.push(authority);
    Ok(())
}
