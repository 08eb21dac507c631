//! SPIRE's tables and ours: making them, and refusing what is neither.

mod spire;

use steeple_datastore::Result;

use crate::conn::{Conn, NOW, args, last_id_of};
use crate::error::OpenError;

pub(crate) use spire::{CODE_VERSION, VERSION};

/// Number of the layout of our own tables.
const LOG_FORMAT: i64 = 1;

/// The change log and what it needs, beside SPIRE's tables. `IF NOT EXISTS`, so that an index that was dropped
/// comes back.
const OURS: &[&str] = &[
    // One row. `head`: newest revision; the log holds the revisions after `trimmed`. `*_event`: the newest of SPIRE's
    // event rows that the log knows of.
    "CREATE TABLE IF NOT EXISTS steeple_meta (id integer primary key, format integer NOT NULL, \
     log_id varchar(64) NOT NULL, head bigint NOT NULL, trimmed bigint NOT NULL, \
     entries_event bigint NOT NULL, agents_event bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS steeple_changes (revision integer primary key, kind integer NOT NULL, \
     name varchar(2048) NOT NULL, data blob)",
    // How each row of `bundles` looked when the log last knew of it: SPIRE has no event table for them.
    "CREATE TABLE IF NOT EXISTS steeple_bundle_marks (trust_domain varchar(255) primary key, \
     mark varchar(255) NOT NULL)",
    "CREATE INDEX IF NOT EXISTS steeple_registered_entries_identity \
     ON registered_entries(spiffe_id, parent_id)",
];

/// What is in a database.
pub(crate) enum Found {
    Nothing,
    Spire {
        version: i64,
    },
    /// A table of SPIRE's name without SPIRE's version row.
    Foreign {
        table: String,
    },
}

/// Looks, inside a transaction.
pub(crate) fn look(conn: &Conn) -> Result<Found> {
    if !has_table(conn, "migrations")? {
        for table in ["bundles", "registered_entries", "attested_node_entries", "join_tokens"] {
            if has_table(conn, table)? {
                return Ok(Found::Foreign { table: table.into() });
            }
        }
        return Ok(Found::Nothing);
    }
    let version = conn.first("SELECT version FROM migrations ORDER BY id LIMIT 1", &[], |row| row.int(0))?;
    Ok(Found::Spire { version: version.unwrap_or_default() })
}

/// SPIRE's tables in an empty database.
pub(crate) fn create(conn: &Conn) -> Result<()> {
    for statement in spire::TABLES {
        conn.script(statement)?;
    }
    conn.exec(
        &format!("INSERT INTO migrations (created_at, updated_at, version, code_version) VALUES ({NOW}, {NOW}, ?, ?)"),
        &args![VERSION, CODE_VERSION],
    )?;
    Ok(())
}

/// What [`add_ours`] came upon.
pub(crate) enum Log {
    Started,
    Found,
    /// A newer release's.
    Unknown {
        format: i64,
    },
}

/// Our tables, in a database of SPIRE's.
pub(crate) fn add_ours(conn: &Conn) -> Result<Log> {
    for statement in OURS {
        conn.script(statement)?;
    }
    match conn.first("SELECT format FROM steeple_meta", &[], |row| row.int(0))? {
        Some(LOG_FORMAT) => Ok(Log::Found),
        Some(format) => Ok(Log::Unknown { format }),
        None => start_log(conn).map(|()| Log::Started),
    }
}

/// A log that starts with what is stored: revision 1 cannot be replayed, only read as a snapshot. In an empty
/// database nothing needs that, and the log starts at 0.
fn start_log(conn: &Conn) -> Result<()> {
    let stored = "SELECT EXISTS (SELECT 1 FROM registered_entries) OR EXISTS (SELECT 1 FROM bundles) \
                  OR EXISTS (SELECT 1 FROM attested_node_entries)";
    let head = conn.first(stored, &[], |row| row.int(0))?.unwrap_or_default();
    conn.exec(
        &format!(
            "INSERT INTO steeple_meta (id, format, log_id, head, trimmed, entries_event, agents_event) \
             VALUES (1, ?, ?, ?, ?, {}, {})",
            last_id_of("registered_entries_events"),
            last_id_of("attested_node_entries_events"),
        ),
        &args![LOG_FORMAT, &uuid::Uuid::new_v4().to_string(), head, head],
    )?;
    conn.exec("DELETE FROM steeple_bundle_marks", &[])?;
    conn.exec(
        &format!(
            "INSERT INTO steeple_bundle_marks (trust_domain, mark) SELECT trust_domain, {} FROM bundles",
            crate::foreign::MARK
        ),
        &[],
    )?;
    Ok(())
}

/// Refuses versions we cannot serve, with what to do.
pub(crate) fn check_version(path: &str, found: i64) -> std::result::Result<(), OpenError> {
    let advice = match found {
        VERSION => return Ok(()),
        23..VERSION => "start a SPIRE 1.16 server on it once, which migrates it, then start this server",
        ..23 => "upgrade it with SPIRE release by release up to 1.16, then start this server",
        _ => "it was made by a newer SPIRE; use a newer release of this server",
    };
    Err(OpenError::Version { path: path.into(), found, expected: VERSION, advice })
}

/// The log format, for the refusal.
pub(crate) fn log_format_error(path: &str, found: i64) -> OpenError {
    OpenError::LogFormat { path: path.into(), found, expected: LOG_FORMAT }
}

fn has_table(conn: &Conn, name: &str) -> Result<bool> {
    let found =
        conn.first("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", &args![name], |row| {
            row.int(0)
        })?;
    Ok(found.is_some())
}
