use steeple_datastore::Error as StoreError;
use steeple_spiffe::IdError;
use tonic::{Code, Status};

use crate::convert::ConvertError;
use crate::error::{ApiError, store_code, to_status};

/// Why a call, or one item of a batch, was refused. Texts are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("failed to count bundles: {0}")]
    Count(#[source] StoreError),
    #[error("failed to list bundles: {0}")]
    List(#[source] StoreError),
    #[error("failed to fetch bundle: {0}")]
    Fetch(#[source] StoreError),
    #[error("bundle not found")]
    NotFound,
    #[error("no authorities to append")]
    NothingToAppend,
    #[error("failed to convert JWT authority: {0}")]
    AppendJwt(#[source] ConvertError),
    #[error("failed to convert X.509 authority: {0}")]
    AppendX509(#[source] ConvertError),
    #[error("failed to append bundle: {0}")]
    Append(#[source] StoreError),
    #[error("missing JWT authority")]
    MissingJwtAuthority,
    #[error("invalid JWT authority: {0}")]
    JwtAuthority(#[source] ConvertError),
    #[error("failed to publish JWT key: {0}")]
    Publish(#[source] StoreError),
    /// Without the feature flag; SPIRE says so with it, too.
    #[error("WIT-SVID functionality is not yet implemented")]
    Wit,
    #[error("missing WIT authority")]
    MissingWitAuthority,
    #[error("invalid WIT authority: {0}")]
    WitAuthority(#[source] ConvertError),
    #[error("failed to publish WIT key: {0}")]
    PublishWit(#[source] StoreError),
    #[error("trust domain argument is not valid: {0}")]
    TrustDomain(#[source] IdError),
    #[error("{0} a federated bundle for the server's own trust domain is not allowed")]
    OwnTrustDomain(&'static str),
    #[error("removing the bundle for the server trust domain is not allowed")]
    DeleteOwn,
    #[error("failed to convert bundle: {0}")]
    Convert(#[source] ConvertError),
    #[error("bundle already exists")]
    Exists,
    #[error("unable to create bundle: {0}")]
    Create(#[source] StoreError),
    #[error("failed to set bundle: {0}")]
    Set(#[source] StoreError),
    #[error("failed to update bundle: {0}")]
    Update(#[source] StoreError),
    /// The store judged; its code is the item's.
    #[error("failed to delete federated bundle: {0}")]
    Delete(#[source] StoreError),
    #[error("failed to parse deletion mode: unhandled delete mode \"{0}\"")]
    DeleteMode(i32),
}

impl BundleError {
    pub(super) fn create(error: StoreError) -> Self {
        if store_code(&error) == Code::AlreadyExists { Self::Exists } else { Self::Create(error) }
    }

    pub(super) fn update(error: StoreError) -> Self {
        if store_code(&error) == Code::NotFound { Self::NotFound } else { Self::Update(error) }
    }

    pub(super) fn delete(error: StoreError) -> Self {
        if store_code(&error) == Code::NotFound { Self::NotFound } else { Self::Delete(error) }
    }
}

impl ApiError for BundleError {
    fn code(&self) -> Code {
        match self {
            Self::NothingToAppend
            | Self::AppendJwt(_)
            | Self::AppendX509(_)
            | Self::MissingJwtAuthority
            | Self::JwtAuthority(_)
            | Self::MissingWitAuthority
            | Self::WitAuthority(_)
            | Self::TrustDomain(_)
            | Self::OwnTrustDomain(_)
            | Self::DeleteOwn
            | Self::Convert(_)
            | Self::DeleteMode(_) => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Exists => Code::AlreadyExists,
            Self::Wit => Code::Unimplemented,
            Self::Delete(e) => store_code(e),
            Self::Count(_)
            | Self::List(_)
            | Self::Fetch(_)
            | Self::Append(_)
            | Self::Publish(_)
            | Self::PublishWit(_)
            | Self::Create(_)
            | Self::Set(_)
            | Self::Update(_) => Code::Internal,
        }
    }
}

impl From<BundleError> for Status {
    fn from(error: BundleError) -> Self {
        to_status(&error)
    }
}
