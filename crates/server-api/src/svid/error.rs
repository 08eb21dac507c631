use steeple_datastore::Error as StoreError;
use steeple_server_core::ca::CaError;
use steeple_spiffe::KeyError;
use steeple_spiffe::x509::{DnsNameError, X509Error};
use tonic::{Code, Status};

use crate::convert::ConvertError;
use crate::error::{ApiError, to_status};

/// Why nothing was signed. Texts are SPIRE's; causes in parentheses there are Go's and may differ.
#[derive(Debug, thiserror::Error)]
pub enum SvidError {
    #[error("missing parameters")]
    MissingParams,
    #[error("missing CSR")]
    MissingCsr,
    #[error("missing entry ID")]
    MissingEntryId,
    #[error("malformed CSR: {0}")]
    MalformedCsr(#[source] X509Error),
    /// MintX509SVID words it so.
    #[error("failed to verify CSR signature: {0}")]
    MintSignature(#[source] X509Error),
    /// The others word it so.
    #[error("invalid CSR signature: {0}")]
    CsrSignature(#[source] X509Error),
    #[error("CSR URI SAN is required")]
    NoUri,
    #[error("only one URI SAN is expected")]
    ManyUris,
    #[error("CSR URI SAN is invalid: {0}")]
    Uri(#[source] ConvertError),
    #[error("CSR DNS name is invalid: {0}")]
    DnsName(#[source] DnsNameError),
    #[error("CSR DNS name contains a wildcard that covers another non-wildcard name: {0}")]
    DnsOverlap(#[source] DnsNameError),
    #[error("failed to sign X509-SVID: {0}")]
    Sign(#[source] CaError),
    #[error("entry not found or not authorized")]
    NotAuthorized,
    #[error("caller ID missing from request context")]
    NoCaller,
    #[error("JWT functionality is disabled")]
    JwtDisabled,
    #[error("WIT functionality is disabled")]
    WitDisabled,
    #[error("invalid SPIFFE ID: {0}")]
    SpiffeId(#[source] ConvertError),
    #[error("at least one audience is required")]
    NoAudience,
    #[error("failed to sign JWT-SVID: {0}")]
    SignJwt(#[source] CaError),
    #[error("missing public key")]
    MissingPublicKey,
    /// MintWITSVID words it so.
    #[error("invalid public key: {0}")]
    PublicKey(#[source] KeyError),
    /// BatchNewWITSVID does so.
    #[error("malformed public key: {0}")]
    MalformedPublicKey(#[source] KeyError),
    #[error("invalid signing algorithm or key type: unsupported signing algorithm for {kind} key: {name}")]
    Algorithm { kind: &'static str, name: String },
    #[error("invalid signing algorithm or key type: unsupported key type")]
    KeyKind,
    #[error("failed to sign WIT-SVID: {0}")]
    SignWit(#[source] CaError),
    #[error("caller is not a downstream workload")]
    NotDownstream,
    #[error("failed to sign downstream X.509 CA: {0}")]
    SignDownstream(#[source] CaError),
    #[error("failed to fetch bundle: {0}")]
    Bundle(#[source] StoreError),
    #[error("bundle not found")]
    NoBundle,
}

impl ApiError for SvidError {
    fn code(&self) -> Code {
        match self {
            Self::MissingParams
            | Self::MissingCsr
            | Self::MissingEntryId
            | Self::MalformedCsr(_)
            | Self::MintSignature(_)
            | Self::CsrSignature(_)
            | Self::NoUri
            | Self::ManyUris
            | Self::Uri(_)
            | Self::DnsName(_)
            | Self::DnsOverlap(_)
            | Self::SpiffeId(_)
            | Self::MissingPublicKey
            | Self::PublicKey(_)
            | Self::MalformedPublicKey(_)
            | Self::Algorithm { .. }
            | Self::KeyKind
            | Self::NoAudience => Code::InvalidArgument,
            Self::NotAuthorized | Self::NoBundle => Code::NotFound,
            Self::JwtDisabled | Self::WitDisabled => Code::Unimplemented,
            Self::Sign(_)
            | Self::SignJwt(_)
            | Self::SignWit(_)
            | Self::SignDownstream(_)
            | Self::NoCaller
            | Self::NotDownstream
            | Self::Bundle(_) => Code::Internal,
        }
    }
}

impl From<SvidError> for Status {
    fn from(error: SvidError) -> Self {
        to_status(&error)
    }
}
