//! The SPIFFE standards as a library: IDs, X.509-SVID, JWT-SVID, bundles and keys. No I/O and no clock:
//! every function that depends on time takes `now` as an argument ([`UnixTime`]).
//!
//! | module | standard |
//! |---|---|
//! | [`id`] | SPIFFE-ID |
//! | [`x509`] | X509-SVID: build, parse and validate certificates |
//! | [`jwt`] | JWT-SVID: sign, parse and validate tokens |
//! | [`bundle`] | SPIFFE Trust Domain and Bundle, bundle maps |
//! | [`endpoint`] | SPIFFE Workload Endpoint: addresses |
//! | [`key`] | key pairs and signatures the above are made with |
//!
//! Entry points that read what others wrote, for fuzzing: [`SpiffeId::parse`], [`TrustDomain::new`],
//! [`PublicKey::from_spki_der`], [`PrivateKey::from_pkcs8_der`], [`x509::Certificate::from_der`],
//! [`x509::Certificate::from_pem`], [`x509::CertificateRequest::from_der`], [`jwt::parse_insecure`],
//! [`bundle::Bundle::from_spiffe_json`], [`bundle::BundleMap::from_json`], [`x509::validate_dns_name`], [`endpoint::Endpoint`].

pub mod bundle;
mod der;
pub mod endpoint;
pub mod id;
pub mod jwt;
pub mod key;
mod pem;
#[cfg(test)]
mod testdata;
mod text;
pub mod x509;

pub use bundle::Bundle;
pub use id::{IdError, SpiffeId, TrustDomain};
pub use jwt::JwtSvid;
pub use key::{KeyError, KeyType, PrivateKey, PublicKey, SignatureAlgorithm};
pub use x509::{Certificate, X509Svid};

/// Seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
pub type UnixTime = i64;
