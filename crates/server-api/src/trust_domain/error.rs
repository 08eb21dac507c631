use steeple_datastore::Error as StoreError;
use steeple_spiffe::{IdError, TrustDomain};
use tonic::{Code, Status};

use super::RelationshipError;
use crate::error::{ApiError, Cause, to_status};

/// Why a call, or one item of a batch, was refused. Texts are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum TrustDomainError {
    #[error("failed to list federation relationships: {0}")]
    List(#[source] StoreError),
    #[error("failed to parse trust domain: {0}")]
    Parse(#[source] IdError),
    #[error("failed to fetch federation relationship: {0}")]
    Fetch(#[source] StoreError),
    #[error("federation relationship does not exist")]
    NotFound,
    #[error("failed to convert federation relationship: {0}")]
    Convert(#[source] RelationshipError),
    #[error("unable to create federation relationship for server trust domain")]
    OwnTrustDomain,
    #[error("failed to create federation relationship: {0}")]
    Create(#[source] StoreError),
    #[error("failed to update federation relationship: {0}")]
    Update(#[source] StoreError),
    #[error(
        "failed to update federation relationship: unable to fetch federation relationship: record not found"
    )]
    UpdateMissing,
    #[error("missing trust domain")]
    Missing,
    #[error("federation relationship not found")]
    DeleteMissing,
    #[error("failed to delete federation relationship: {0}")]
    Delete(#[source] StoreError),
    #[error("no relationship with trust domain \"{0}\"")]
    Unmanaged(TrustDomain),
    #[error("failed to refresh bundle: {0}")]
    Refresh(#[source] Cause),
}

impl ApiError for TrustDomainError {
    fn code(&self) -> Code {
        match self {
            Self::Parse(_) | Self::Convert(_) | Self::OwnTrustDomain | Self::Missing => Code::InvalidArgument,
            Self::NotFound | Self::DeleteMissing | Self::Unmanaged(_) => Code::NotFound,
            // A duplicate too: SPIRE does not tell it from other refusals of the store.
            Self::List(_)
            | Self::Fetch(_)
            | Self::Create(_)
            | Self::Update(_)
            | Self::UpdateMissing
            | Self::Delete(_)
            | Self::Refresh(_) => Code::Internal,
        }
    }
}

impl From<TrustDomainError> for Status {
    fn from(error: TrustDomainError) -> Self {
        to_status(&error)
    }
}
