//! X509-SVID: certificates, certificate requests and their validation.

mod build;
mod certificate;
mod dns;
mod name;
mod path;
mod request;
mod svid;
mod verify;

pub use build::{
    CaTemplate, Issuer, LeafTemplate, SerialNumber, assemble, ca_tbs, ca_tbs_self_signed, csr_tbs, leaf_tbs,
};
pub use certificate::{Certificate, KeyUsage};
pub use dns::{DnsNameError, check_wildcard_overlap, validate_dns_name};
pub use name::DistinguishedName;
pub use path::verify_chains;
pub use request::CertificateRequest;
pub use svid::X509Svid;
pub use verify::{VerifyError, X509BundleSource, check_leaf, verify_svid};

use crate::id::IdError;
use crate::key::KeyError;

/// Why certificates or requests cannot be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    #[error("malformed certificate: {0}")]
    MalformedCertificate(String),
    #[error("malformed certificate request: {0}")]
    MalformedRequest(String),
    #[error("malformed distinguished name")]
    MalformedName,
    #[error("malformed PEM block at position {0}")]
    MalformedPem(usize),
    #[error("no certificates found")]
    NoCertificates,
    #[error("certificate contains no URI SAN")]
    NoUriSan,
    #[error("certificate contains more than one URI SAN")]
    ManyUriSans,
    #[error(transparent)]
    Id(#[from] IdError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("leaf certificate SPIFFE ID must have a non-root path")]
    RootPath,
    #[error("not_after is before not_before")]
    EmptyValidity,
    #[error("unsupported signature algorithm")]
    UnsupportedSignatureAlgorithm,
    #[error("leaf certificate does not match private key")]
    KeyMismatch,
    #[error("{0}")]
    NotAnSvid(&'static str),
}
