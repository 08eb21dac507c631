//! SQLite's refusals as the port's situations.

use rusqlite::ErrorCode;
use steeple_datastore::Error;

/// Why a database cannot be used. The texts go to the operator as they are.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("datastore-sql: connection_string must be set")]
    NoConnectionString,
    #[error("datastore-sql: unsupported scheme {0:?}")]
    Scheme(String),
    #[error("datastore-sql: connection_string has parameter {0:?}, which is not supported; remove it")]
    Parameter(String),
    #[error("datastore-sql: connection_string parameter {name} is {value:?}, expected {expected}")]
    ParameterValue { name: &'static str, value: String, expected: &'static str },
    #[error("datastore-sql: cannot open {path:?}: {reason}")]
    Open { path: String, reason: String },
    #[error("datastore-sql: {path:?} is not a SPIRE database: it has table {table:?} but no \"migrations\"")]
    NotSpire { path: String, table: String },
    #[error("datastore-sql: database {path:?} has schema version {found}, expected {expected}; {advice}")]
    Version { path: String, found: i64, expected: i64, advice: &'static str },
    #[error(
        "datastore-sql: database {path:?} was written by a newer release (change log format {found}, expected \
         {expected}); run that release or a newer one"
    )]
    LogFormat { path: String, found: i64, expected: i64 },
    #[error("datastore-sql: setting up {path:?}: {source}")]
    Setup { path: String, source: Error },
}

/// What the engine said, without our prefix.
pub(crate) fn sql(error: rusqlite::Error) -> Error {
    let text = engine_text(&error);
    match error.sqlite_error_code() {
        Some(ErrorCode::ConstraintViolation) => Error::AlreadyExists(text),
        Some(
            ErrorCode::DiskFull
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::SystemIoFailure
            | ErrorCode::CannotOpen
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory
            | ErrorCode::FileLockingProtocolFailed,
        ) => Error::Unavailable(text),
        _ => Error::Internal(text),
    }
}

/// SQLite's message where it left one, as SPIRE shows it.
pub(crate) fn engine_text(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        other => other.to_string(),
    }
}

/// A row that cannot be understood.
pub(crate) fn corrupt(what: &str, which: &str, reason: impl std::fmt::Display) -> Error {
    Error::Internal(format!("stored {what} {which:?} cannot be read: {reason}"))
}
