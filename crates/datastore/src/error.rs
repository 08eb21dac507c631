//! What can go wrong while keeping state. "Not found" is `Ok(None)` where asking is normal.

use steeple_spiffe::TrustDomain;

/// Result of a datastore call.
pub type Result<T> = std::result::Result<T, Error>;

/// Situations, not callees. Messages that reach API clients equal SPIRE's and are asserted in the conformance suite.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request can never be stored. SPIRE answers InvalidArgument with prefix `datastore-validation: `.
    #[error("datastore-validation: {0}")]
    Invalid(String),
    /// A unique key is taken. SPIRE answers AlreadyExists with prefix `datastore-sql: `.
    #[error("datastore-sql: {0}")]
    AlreadyExists(String),
    /// What a write refers to does not exist. SPIRE answers NotFound with prefix `datastore-sql: `.
    #[error("datastore-sql: {0}")]
    NotFound(String),
    /// The write is refused by what else is stored (a bundle that entries federate with, mode restrict).
    #[error("datastore-sql: {0}")]
    FailedPrecondition(String),
    /// A banned agent attests again; it stays banned until it is deleted.
    #[error("agent is banned")]
    AgentBanned,
    /// An authority of the bundle cannot be tainted or revoked. SPIRE answers Internal; callers put before it what they wanted.
    #[error("{0}")]
    Authority(String),
    /// An entry is to federate with a trust domain whose bundle is not stored. SPIRE answers Internal.
    #[error("unable to find federated bundle \"{}\"", .0.as_id_str())]
    UnknownFederatedBundle(TrustDomain),
    /// A list was asked to go on after something that is no page token. SPIRE answers InvalidArgument.
    #[error("could not parse token '{0}'")]
    BadPageToken(String),
    /// The asked part of the log is gone: take a snapshot.
    #[error("change log no longer holds revision {0}")]
    LogTruncated(u64),
    /// The database could not do it now; a retry may succeed.
    #[error("datastore-sql: {0}")]
    Unavailable(String),
    /// Anything else, with where it happened.
    #[error("datastore-sql: {0}")]
    Internal(String),
}
