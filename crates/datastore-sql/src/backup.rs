//! Backup and restore: one consistent state of a database in one file that any engine takes.
//!
//! A backup is one read transaction; servers go on. It holds every table of SPIRE's that carries state, with ids, and
//! says which revision of the change log it is. A restore is one write transaction, which is committed once the file
//! was read to its end and found whole: until then, and if anything fails, the target is what it was. The restored
//! database goes on with a new change log, so that every agent and server takes a snapshot.
//!
//! Keys of a KeyManager are not in the database and so not in the file.

mod dump;
mod file;
mod load;
mod open;
mod tables;
mod value;

use std::collections::BTreeMap;
use std::io;

use steeple_datastore::Error;

pub use dump::backup;
pub use file::Header;
pub use load::{Restored, restore};

use crate::error::OpenError;

/// What went into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub header: Header,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
}

/// Told now and then: a table and how many of its rows are done.
pub type Progress<'a> = &'a mut dyn FnMut(&str, u64);

/// Why there is no backup, or why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("datastore-sql: there is no SPIRE database in {0:?}")]
    NoDatabase(String),
    #[error("datastore-sql: {0}")]
    Database(#[from] Error),
    #[error("cannot write the backup: {0}")]
    Output(io::Error),
    #[error("cannot read the backup: {0}")]
    Input(io::Error),
    #[error("not a backup of this program: {0}")]
    NotABackup(String),
    #[error(
        "the backup has format {found}, expected {expected}: use the release that made it, or a newer one"
    )]
    Format { found: u64, expected: u64 },
    #[error(
        "the backup has schema version {found}, expected {expected} or older: use a newer release of this server"
    )]
    Schema { found: i64, expected: i64 },
    #[error("the backup is cut short: its end is missing; nothing was restored")]
    Truncated,
    #[error("the backup is damaged at line {line}: {reason}; nothing was restored")]
    Damaged { line: u64, reason: String },
    #[error("{table} row {row}: column {column} cannot be read: {reason}")]
    Unreadable { table: &'static str, row: i64, column: &'static str, reason: String },
    #[error(
        "the target {place:?} is not empty: {table} has {rows} rows; restore into an empty database, or give -force \
         to replace what is there"
    )]
    NotEmpty { place: String, table: &'static str, rows: i64 },
    #[error("the target {place:?} is in use ({who}): stop every server on it first")]
    InUse { place: String, who: String },
}
