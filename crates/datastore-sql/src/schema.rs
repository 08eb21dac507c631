//! SPIRE's tables and ours: making them, and refusing what is neither.

mod spire;

use steeple_datastore::{Error, Result};

use crate::conn::{Conn, Dialect, args};
use crate::error::OpenError;

pub(crate) use spire::{CODE_VERSION, VERSION};

/// Number of the layout of our own tables.
const LOG_FORMAT: i64 = 1;

/// The change log and what it needs, beside SPIRE's tables. `IF NOT EXISTS`, so that what was dropped comes back.
fn ours(dialect: Dialect) -> Vec<String> {
    // A SQLite table's integer primary key is its row id.
    let (revision, blob) = match dialect {
        Dialect::Sqlite => ("integer", "blob"),
        Dialect::Postgres => ("bigint", "bytea"),
        Dialect::MySql => ("bigint", "longblob"),
    };
    let mut tables = vec![
        // One row. `head`: newest revision; the log holds the revisions after `trimmed`. `*_event`: the newest of SPIRE's
        // event rows that the log knows of.
        "CREATE TABLE IF NOT EXISTS steeple_meta (id integer primary key, format integer NOT NULL, \
         log_id varchar(64) NOT NULL, head bigint NOT NULL, trimmed bigint NOT NULL, \
         entries_event bigint NOT NULL, agents_event bigint NOT NULL)"
            .into(),
        format!(
            "CREATE TABLE IF NOT EXISTS steeple_changes (revision {revision} primary key, kind integer NOT NULL, \
             name varchar(2048) NOT NULL, data {blob})"
        ),
        // How each row of `bundles` looked when the log last knew of it: SPIRE has no event table for them.
        "CREATE TABLE IF NOT EXISTS steeple_bundle_marks (trust_domain varchar(255) primary key, \
         mark varchar(255) NOT NULL)"
            .into(),
    ];
    if dialect != Dialect::Sqlite {
        // Which database the log was written in: see `watermark`.
        tables.push(
            "CREATE TABLE IF NOT EXISTS steeple_place (id integer primary key, place varchar(255) NOT NULL)"
                .into(),
        );
        // Ids of SPIRE's events that may still appear: see `foreign`. `since` in Unix seconds.
        tables.push(
            "CREATE TABLE IF NOT EXISTS steeple_event_gaps (kind integer NOT NULL, event_id bigint NOT NULL, \
             since bigint NOT NULL, primary key (kind, event_id))"
                .into(),
        );
    }
    tables
}

/// Serves the look for a similar entry.
const IDENTITY_INDEX: &str = "steeple_registered_entries_identity";

/// What is in a database.
pub(crate) enum Found {
    Nothing,
    Spire,
    /// A table of SPIRE's name without SPIRE's version row.
    Foreign {
        table: String,
    },
}

/// Looks, inside a transaction.
pub(crate) fn look(conn: &Conn) -> Result<Found> {
    clear_unfinished(conn)?;
    if !has_table(conn, "migrations")? {
        for table in ["bundles", "registered_entries", "attested_node_entries", "join_tokens"] {
            if has_table(conn, table)? {
                return Ok(Found::Foreign { table: table.into() });
            }
        }
        return Ok(Found::Nothing);
    }
    Ok(Found::Spire)
}

/// SPIRE's tables in an empty database.
pub(crate) fn create(conn: &Conn) -> Result<()> {
    let dialect = conn.dialect();
    if dialect == Dialect::MySql {
        // Each statement is its own transaction there: a start that is cut off in between leaves this table.
        conn.script(&format!("CREATE TABLE {CREATING} (id integer primary key)"))?;
    }
    for statement in spire::TABLES {
        conn.script(&spire::translate(statement, dialect))?;
    }
    let now = dialect.now();
    conn.exec(
        &format!("INSERT INTO migrations (created_at, updated_at, version, code_version) VALUES ({now}, {now}, ?, ?)"),
        &args![VERSION, CODE_VERSION],
    )?;
    if dialect == Dialect::MySql {
        conn.script(&format!("DROP TABLE {CREATING}"))?;
    }
    Ok(())
}

/// See [`create`].
const CREATING: &str = "steeple_creating";

/// Drops what a start that was cut off has made of an empty database.
fn clear_unfinished(conn: &Conn) -> Result<()> {
    if conn.dialect() != Dialect::MySql || !has_table(conn, CREATING)? {
        return Ok(());
    }
    for table in spire::names() {
        conn.script(&format!("DROP TABLE IF EXISTS {table}"))?;
    }
    conn.script(&format!("DROP TABLE {CREATING}"))
}

/// Has one server at a time look at the schema and change it. On a database server; SQLite's write lock does it there.
pub(crate) fn lock(conn: &Conn) -> Result<()> {
    match conn.dialect() {
        Dialect::Sqlite => Ok(()),
        Dialect::Postgres => {
            conn.first("SELECT pg_advisory_xact_lock(7305804402)", &[], |_| Ok(())).map(drop)
        }
        Dialect::MySql => {
            // Names are the server's, not the database's.
            let sql = "SELECT GET_LOCK(LEFT(CONCAT('steeple ', DATABASE()), 64), 60)";
            match conn.first(sql, &[], |row| row.int(0))? {
                Some(1) => Ok(()),
                _ => Err(Error::Unavailable("another server is changing the schema".into())),
            }
        }
    }
}

/// As it was before [`lock`]; PostgreSQL's ends with the transaction.
pub(crate) fn unlock(conn: &Conn) -> Result<()> {
    if conn.dialect() == Dialect::MySql {
        let sql = "SELECT RELEASE_LOCK(LEFT(CONCAT('steeple ', DATABASE()), 64))";
        conn.first(sql, &[], |_| Ok(()))?;
    }
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
    for statement in ours(conn.dialect()) {
        conn.script(&statement)?;
    }
    if !has_index(conn)? {
        conn.script(&format!("CREATE INDEX {IDENTITY_INDEX} ON registered_entries(spiffe_id, parent_id)"))?;
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
            conn.dialect().last_id_of("registered_entries_events"),
            conn.dialect().last_id_of("attested_node_entries_events"),
        ),
        &args![LOG_FORMAT, &uuid::Uuid::new_v4().to_string(), head, head],
    )?;
    crate::foreign::mark_all(conn)
}

/// The log format, for the refusal.
pub(crate) fn log_format_error(path: &str, found: i64) -> OpenError {
    OpenError::LogFormat { path: path.into(), found, expected: LOG_FORMAT }
}

pub(crate) fn has_table(conn: &Conn, name: &str) -> Result<bool> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?",
        Dialect::Postgres => "SELECT 1 FROM pg_class WHERE oid = to_regclass(?)",
        Dialect::MySql => {
            "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?"
        }
    };
    Ok(conn.first(sql, &args![name], |row| row.int(0))?.is_some())
}

fn has_index(conn: &Conn) -> Result<bool> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?",
        Dialect::Postgres => "SELECT 1 FROM pg_class WHERE oid = to_regclass(?)",
        Dialect::MySql => {
            "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() AND index_name = ? LIMIT 1"
        }
    };
    Ok(conn.first(sql, &args![IDENTITY_INDEX], |row| row.int(0))?.is_some())
}
