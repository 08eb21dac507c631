use steeple_datastore::Error as StoreError;
use steeple_proto::spire::api::types;
use tonic::{Code, Status};

use super::ConvertError;
use crate::error::{ApiError, store_code, to_item_status, to_status};

/// Why a call, or one item of a batch, was refused. Texts are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    #[error("malformed parent ID filter: {0}")]
    ParentFilter(#[source] ConvertError),
    #[error("malformed SPIFFE ID filter: {0}")]
    SpiffeIdFilter(#[source] ConvertError),
    #[error("malformed selectors filter: {0}")]
    SelectorsFilter(#[source] ConvertError),
    #[error("malformed federates with filter: {0}")]
    FederatesWithFilter(#[source] ConvertError),
    #[error("failed to count entries: {0}")]
    Count(#[source] StoreError),
    #[error("failed to list entries: {0}")]
    List(#[source] StoreError),
    #[error("failed to fetch entry: {0}")]
    Fetch(#[source] StoreError),
    #[error("missing ID")]
    MissingId,
    #[error("missing entry ID")]
    MissingEntryId,
    #[error("entry not found")]
    NotFound,
    #[error("failed to convert entry: {0}")]
    Convert(#[source] ConvertError),
    #[error("similar entry already exists")]
    Similar,
    /// The store judged the entry; its code is the item's.
    #[error("failed to create entry: {0}")]
    Create(#[source] StoreError),
    #[error("failed to update entry: {0}")]
    Update(#[source] StoreError),
    /// SPIRE drops the cause of NotFound.
    #[error("failed to update entry")]
    UpdateMissing,
    #[error("failed to create entry")]
    CreateMissing,
    #[error("failed to delete entry: {0}")]
    Delete(#[source] StoreError),
    #[error("specifying IDs on initial request is not supported")]
    InitialIds,
    #[error("revision number cannot be masked")]
    RevisionMasked,
}

impl EntryError {
    pub(super) fn create(error: StoreError) -> Self {
        if store_code(&error) == Code::NotFound { Self::CreateMissing } else { Self::Create(error) }
    }

    pub(super) fn update(error: StoreError) -> Self {
        if store_code(&error) == Code::NotFound { Self::UpdateMissing } else { Self::Update(error) }
    }

    pub(super) fn item_status(&self) -> types::Status {
        to_item_status(self)
    }
}

impl ApiError for EntryError {
    fn code(&self) -> Code {
        match self {
            Self::ParentFilter(_)
            | Self::SpiffeIdFilter(_)
            | Self::SelectorsFilter(_)
            | Self::FederatesWithFilter(_)
            | Self::MissingId
            | Self::MissingEntryId
            | Self::Convert(_)
            | Self::InitialIds
            | Self::RevisionMasked => Code::InvalidArgument,
            Self::Count(_) | Self::List(_) | Self::Fetch(_) | Self::Delete(_) => Code::Internal,
            Self::NotFound | Self::UpdateMissing | Self::CreateMissing => Code::NotFound,
            Self::Similar => Code::AlreadyExists,
            Self::Create(e) | Self::Update(e) => store_code(e),
        }
    }
}

impl From<EntryError> for Status {
    fn from(error: EntryError) -> Self {
        to_status(&error)
    }
}
