//! The engines' refusals as the port's situations.

use rusqlite::ErrorCode;
use sqlx::mysql::MySqlDatabaseError;
use sqlx::postgres::PgDatabaseError;
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
    /// The text never quotes the connection string: it may hold a password.
    #[error("datastore-sql: {0}")]
    ConnectionString(String),
    #[error("datastore-sql: cannot open {path:?}: {reason}")]
    Open { path: String, reason: String },
    #[error("datastore-sql: {path:?} is not a SPIRE database: it has table {table:?} but no \"migrations\"")]
    NotSpire { path: String, table: String },
    #[error(
        "datastore-sql: database {path:?} has schema version {found} (written by release {}), expected {expected}; \
         {advice}", if .code_version.is_empty() { "unknown" } else { .code_version }
    )]
    Version { path: String, found: i64, expected: i64, code_version: String, advice: &'static str },
    #[error(
        "datastore-sql: error getting DB code version: unable to parse code version from DB: {reason}; \
         {path:?} has {found:?} in migrations.code_version"
    )]
    CodeVersion { path: String, found: String, reason: String },
    #[error(
        "datastore-sql: database {path:?} was written by a newer release (change log format {found}, expected \
         {expected}); run that release or a newer one"
    )]
    LogFormat { path: String, found: i64, expected: i64 },
    #[error("datastore-sql: setting up {path:?}: {source}")]
    Setup { path: String, source: Error },
}

/// What a failure did, and so what may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The engine gave the transaction up for another's sake (deadlock, lock wait): run it again.
    Aborted,
    /// The connection is gone, and what was not committed with it: connect, then run it again.
    Broken,
}

/// What SQLite said, without our prefix.
pub(crate) fn sqlite(error: rusqlite::Error) -> Error {
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
        // Without the statement, which may be megabytes long: no status could carry it.
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// What a database server said, as the drivers that SPIRE uses show it.
pub(crate) fn network(error: &sqlx::Error) -> (Error, Option<Fault>) {
    let sqlx::Error::Database(reason) = error else {
        return match error {
            sqlx::Error::Encode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::RowNotFound
            | sqlx::Error::ColumnIndexOutOfBounds { .. } => (Error::Internal(error.to_string()), None),
            _ => (Error::Unavailable(format!("lost the database: {error}")), Some(Fault::Broken)),
        };
    };
    if let Some(reason) = reason.try_downcast_ref::<PgDatabaseError>() {
        return postgres(reason.code(), format!("pq: {}", reason.message()));
    }
    if let Some(reason) = reason.try_downcast_ref::<MySqlDatabaseError>() {
        let state = reason.code().unwrap_or_default();
        return mysql(reason.number(), format!("Error {} ({state}): {}", reason.number(), reason.message()));
    }
    (Error::Internal(error.to_string()), None)
}

/// Why a server did not let us in, with what to do where the engine's or the driver's words do not tell.
pub(crate) fn refused(error: &sqlx::Error, over_mysql_socket: bool) -> Error {
    const SECRET: &str = "caching_sha2_password, MySQL 8's default, sends passwords over TLS only: add tls=true or \
                          tls=skip-verify to connection_string or set root_ca_path, or give the user mysql_native_password";
    const AUTHORITY: &str = "the authority that signed it is to be named by sslrootcert in connection_string (PostgreSQL) \
                             or by root_ca_path (MySQL)";
    if let Some((_, reason)) = error.to_string().split_once("invalid peer certificate: ") {
        let advice = if reason.contains("UnknownIssuer") { format!("; {AUTHORITY}") } else { String::new() };
        return Error::Unavailable(format!("the server's certificate is not trusted: {reason}{advice}"));
    }
    match (error, network(error).0) {
        (sqlx::Error::Configuration(reason), _) if reason.to_string().starts_with("RSA auth backend") => {
            Error::Unavailable(format!("the server asks for a password without TLS; {SECRET}"))
        }
        // Over its socket, which MySQL trusts and the driver does not.
        (sqlx::Error::Database(reason), Error::Unavailable(text))
            if over_mysql_socket && reason.code().is_some_and(|state| state == "28000") =>
        {
            Error::Unavailable(format!("{text}; if the password is right: {SECRET}"))
        }
        (_, error) => error,
    }
}

/// By SQLSTATE.
fn postgres(code: &str, text: String) -> (Error, Option<Fault>) {
    match code {
        "40001" | "40P01" | "55P03" => (Error::Unavailable(text), Some(Fault::Aborted)),
        // Shutdown, crash of another session, starting up, idle for too long; read only: a standby.
        "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25006" => {
            (Error::Unavailable(text), Some(Fault::Broken))
        }
        _ if code.starts_with("08") => (Error::Unavailable(text), Some(Fault::Broken)),
        _ if code.starts_with("23") => (Error::AlreadyExists(text), None),
        // Resources, refused log-ins, system errors.
        _ if ["53", "28", "58"].iter().any(|class| code.starts_with(class)) => {
            (Error::Unavailable(text), None)
        }
        _ => (Error::Internal(text), None),
    }
}

/// By error number.
fn mysql(number: u16, text: String) -> (Error, Option<Fault>) {
    match number {
        // Lock wait, deadlock, a row changed since it was read.
        1205 | 1213 | 1020 => (Error::Unavailable(text), Some(Fault::Aborted)),
        // Shutdown, killed, idle for too long, read only: a server that became a replica.
        1053 | 1317 | 1927 | 4031 | 1290 | 1836 | 1792 => (Error::Unavailable(text), Some(Fault::Broken)),
        1062 | 1169 | 1586 => (Error::AlreadyExists(text), None),
        // Disk and memory full, too many connections, refused log-ins.
        1021 | 1037 | 1038 | 1040 | 1041 | 1044 | 1045 | 1114 | 1129 | 1130 | 1203 | 1226 | 3024 => {
            (Error::Unavailable(text), None)
        }
        _ => (Error::Internal(text), None),
    }
}

/// Engines name a unique key in their own words; ours are SQLite's everywhere.
pub(crate) fn taken<T>(result: Result<T, Error>, key: &str) -> Result<T, Error> {
    match result {
        Err(Error::AlreadyExists(_)) => steeple_datastore::validate::taken(key),
        other => other,
    }
}

/// A row that cannot be understood.
pub(crate) fn corrupt(what: &str, which: &str, reason: impl std::fmt::Display) -> Error {
    Error::Internal(format!("stored {what} {which:?} cannot be read: {reason}"))
}
