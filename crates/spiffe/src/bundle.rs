//! Trust bundles: the public keys of a trust domain (SPIFFE Trust Domain and Bundle §3, §4) and maps of them
//! (§5).

pub(crate) mod jwk;
mod map;
mod read;
mod write;

pub use map::BundleMap;
pub use read::Skipped;

use crate::UnixTime;
use crate::id::TrustDomain;
use crate::key::{KeyError, PublicKey};
use crate::x509::{Certificate, X509Error};

/// Why a bundle document cannot be read at all. Single entries that cannot be used are skipped instead
/// (§4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("unable to parse JWKS: {0}")]
    Json(String),
    #[error("no authorities found")]
    NoKeys,
    #[error("trust domain {name:?} of the bundle map is invalid: {reason}")]
    BadTrustDomain { name: String, reason: crate::id::IdError },
    #[error("trust domain {0:?} appears twice in the bundle map")]
    DuplicateTrustDomain(String),
    #[error("bundle map has no trust_domains")]
    NoTrustDomains,
    #[error(transparent)]
    X509(#[from] X509Error),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The authorities of one trust domain. The document does not name the trust domain, so the two are kept
/// together here (§3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pub trust_domain: TrustDomain,
    pub x509_authorities: Vec<X509Authority>,
    pub jwt_authorities: Vec<JwtAuthority>,
    /// Keys of WIT-SVIDs, never among the JWT authorities (WIT-SVID §6.2).
    pub wit_authorities: Vec<JwtAuthority>,
    /// Seconds.
    pub refresh_hint: Option<i64>,
    /// 0 is none.
    pub sequence_number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct X509Authority {
    pub certificate: Certificate,
    /// SPIRE's mark for an authority that is being withdrawn; not part of any document.
    pub tainted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtAuthority {
    pub key_id: String,
    pub public_key: PublicKey,
    /// 0 is never. Not part of any document.
    pub expires_at: UnixTime,
    /// As in [`X509Authority`].
    pub tainted: bool,
}

impl Bundle {
    /// An empty bundle; every SVID of its trust domain is invalid (§4.1.3).
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            wit_authorities: Vec::new(),
            refresh_hint: None,
            sequence_number: 0,
        }
    }

    pub fn find_jwt_authority(&self, key_id: &str) -> Option<&PublicKey> {
        self.jwt_authorities.iter().find(|jwt| jwt.key_id == key_id).map(|jwt| &jwt.public_key)
    }

    pub fn has_x509_authority(&self, certificate: &Certificate) -> bool {
        self.x509_authorities.iter().any(|x509| x509.certificate == *certificate)
    }

    /// Adds a certificate unless it is there already.
    pub fn add_x509_authority(&mut self, certificate: Certificate) {
        if !self.has_x509_authority(&certificate) {
            self.x509_authorities.push(X509Authority { certificate, tainted: false });
        }
    }

    /// No authority of any kind (§4.1.3).
    pub fn is_empty(&self) -> bool {
        self.x509_authorities.is_empty() && self.jwt_authorities.is_empty() && self.wit_authorities.is_empty()
    }

    /// The X.509 authorities as the Workload API carries them: concatenated DER.
    pub fn x509_der(&self) -> Vec<u8> {
        self.x509_authorities.iter().flat_map(|x509| x509.certificate.der().iter().copied()).collect()
    }

    /// The X.509 authorities as `CERTIFICATE` PEM blocks.
    pub fn to_pem(&self) -> String {
        self.x509_authorities.iter().map(|x509| x509.certificate.to_pem()).collect()
    }

    /// A bundle of X.509 authorities from PEM.
    pub fn from_pem(trust_domain: TrustDomain, text: &str) -> Result<Self, BundleError> {
        let mut bundle = Self::new(trust_domain);
        for certificate in Certificate::from_pem(text)? {
            bundle.add_x509_authority(certificate);
        }
        Ok(bundle)
    }

    /// A bundle of X.509 authorities from concatenated DER; no bytes are an empty bundle.
    pub fn from_x509_der(trust_domain: TrustDomain, der: &[u8]) -> Result<Self, BundleError> {
        let mut bundle = Self::new(trust_domain);
        for certificate in Certificate::many_from_der(der)? {
            bundle.add_x509_authority(certificate);
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests;
