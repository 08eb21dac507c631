use steeple_datastore::Error as StoreError;
use steeple_plugin::AttestError;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_server_core::ca::CaError;
use steeple_spiffe::IdError;
use steeple_spiffe::x509::X509Error;
use tonic::{Code, Status};

use crate::convert::ConvertError;
use crate::error::{ApiError, to_status};

/// Why a call was refused. Texts are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("invalid agent ID: {0}")]
    Id(#[source] ConvertError),
    #[error("agent not found")]
    NotFound,
    #[error("failed to parse selectors: {0}")]
    Selectors(#[source] ConvertError),
    /// Ours: SPIRE drops a filter it cannot read and lists too much.
    #[error(
        "failed to parse expires-before filter {0:?}: expected the form \"2006-01-02 15:04:05 -0700 -07\""
    )]
    ExpiresBefore(String),
    #[error("failed to count agents: {0}")]
    Count(#[source] StoreError),
    #[error("failed to list agents: {0}")]
    List(#[source] StoreError),
    #[error("failed to {0} agents: cannot list by empty selectors set")]
    NoSelectors(&'static str),
    #[error("failed to fetch agent: {0}")]
    Fetch(#[source] StoreError),
    #[error("failed to remove agent: {0}")]
    Remove(#[source] StoreError),
    #[error("failed to ban agent: {0}")]
    Ban(#[source] StoreError),
    #[error("failed to update agent: {0}")]
    Update(#[source] StoreError),
    #[error("caller ID missing from request context")]
    NoCaller,

    #[error("failed to receive request from stream: {0}")]
    Receive(String),
    /// Ours: SPIRE waits for ever.
    #[error("gave up on the agent: {what} took longer than {seconds} seconds")]
    Slow { what: &'static str, seconds: u64 },
    /// Ours.
    #[error(
        "rejecting request: {0} attestations from this address are under way already; try again when some have ended"
    )]
    TooManyOpen(u32),
    #[error("malformed param: {0}")]
    Params(&'static str),
    #[error("error getting node attestor: could not find node attestor type \"{0}\"")]
    UnknownAttestor(String),
    #[error("failed to attest: join token does not exist or has already been used")]
    TokenGone,
    #[error("join token expired")]
    TokenExpired,
    #[error("failed to fetch join token: {0}")]
    FetchToken(#[source] StoreError),
    #[error("failed to delete join token: {0}")]
    TakeToken(#[source] StoreError),
    #[error("failed to create join token ID: {0}")]
    TokenId(#[source] IdError),
    #[error("nodeattestor({name}): {error}")]
    Attestor { name: String, error: AttestError },
    /// Ours.
    #[error("malformed param: {what} is larger than {most} bytes")]
    Oversized { what: &'static str, most: usize },
    /// Ours: SPIRE lets an attestor go on for ever.
    #[error("gave up on the attestation: its attestor asks for more challenges than any needs")]
    TooManyChallenges,
    #[error("failed to receive challenge from agent: {0}")]
    ReceiveChallenge(String),
    #[error("agent ID cannot collide with the server ID")]
    ServerId,
    #[error("failed to attest: agent is banned")]
    Banned,
    #[error("failed to create attested agent: {0}")]
    Put(#[source] StoreError),

    #[error("agent must reattest instead of renew")]
    MustReattest,
    #[error("params cannot be nil")]
    NilParams,
    #[error("missing CSR")]
    MissingCsr,
    #[error("failed to parse CSR: {0}")]
    ParseCsr(#[source] X509Error),
    #[error("failed to sign X509 SVID: {0}")]
    Sign(#[source] CaError),
    #[error("agent version is too long (max 255 characters)")]
    VersionTooLong,

    #[error("ttl is required, you must provide one")]
    MissingTtl,
    #[error("failed to create token: {0}")]
    CreateToken(#[source] StoreError),
    /// SPIRE finds this out after it has stored the token.
    #[error("failed to create join token registration entry: failed to create join token ID: {0}")]
    TokenEntryId(#[source] IdError),
    #[error("failed to create join token registration entry: {0}")]
    TokenEntry(#[source] StoreError),
}

impl ApiError for AgentError {
    fn code(&self) -> Code {
        match self {
            Self::Id(_)
            | Self::Selectors(_)
            | Self::ExpiresBefore(_)
            | Self::Receive(_)
            | Self::Params(_)
            | Self::Oversized { .. }
            | Self::TokenGone
            | Self::TokenExpired
            | Self::NilParams
            | Self::MissingCsr
            | Self::ParseCsr(_)
            | Self::VersionTooLong
            | Self::MissingTtl => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Slow { .. } => Code::DeadlineExceeded,
            Self::TooManyOpen(_) => Code::ResourceExhausted,
            Self::UnknownAttestor(_) => Code::FailedPrecondition,
            Self::Banned | Self::MustReattest => Code::PermissionDenied,
            Self::Attestor { error, .. } => match error {
                AttestError::InvalidArgument(_) => Code::InvalidArgument,
                AttestError::PermissionDenied(_) => Code::PermissionDenied,
                AttestError::Unavailable(_) => Code::Unavailable,
                AttestError::Internal(_) => Code::Internal,
            },
            Self::Count(_)
            | Self::List(_)
            | Self::NoSelectors(_)
            | Self::Fetch(_)
            | Self::Remove(_)
            | Self::Ban(_)
            | Self::Update(_)
            | Self::NoCaller
            | Self::FetchToken(_)
            | Self::TakeToken(_)
            | Self::TokenId(_)
            | Self::ReceiveChallenge(_)
            | Self::TooManyChallenges
            | Self::ServerId
            | Self::Put(_)
            | Self::Sign(_)
            | Self::CreateToken(_)
            | Self::TokenEntryId(_)
            | Self::TokenEntry(_) => Code::Internal,
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self {
            Self::MustReattest => Some(Reason::AgentMustReattest),
            // SPIRE sends none here, so its agents retry for ever; with it they stop (docs/differences.md).
            Self::Banned => Some(Reason::AgentBanned),
            _ => None,
        }
    }
}

impl From<AgentError> for Status {
    fn from(error: AgentError) -> Self {
        to_status(&error)
    }
}
