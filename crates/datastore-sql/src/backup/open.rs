//! Connections for the two commands.

use std::time::Duration;

use rusqlite::ErrorCode;
use steeple_datastore::Revision;

use super::BackupError;
use crate::config::{DatabaseConfig, Target};
use crate::conn::{Conn, Dialect, Purpose};
use crate::error::{self, OpenError};
use crate::store::{bare, prepare, tune};
use crate::watermark::{self, Watermark};

/// A connection that changes nothing, on a database that is there, and how messages name that.
pub(super) fn for_backup(config: &DatabaseConfig) -> Result<(Conn, String), OpenError> {
    match config {
        DatabaseConfig::Sqlite(sqlite) => {
            let target = Target::parse(&sqlite.connection_string)?;
            let path = &sqlite.connection_string;
            let conn = Conn::open_existing(&target).map_err(|reason| failed(path, &reason))?;
            Ok((conn, path.clone()))
        }
        DatabaseConfig::Network(network) => {
            let server = network.primary()?;
            let place = server.place();
            let conn = Conn::connect(&server, Purpose::Read)
                .map_err(|reason| OpenError::Open { path: place.clone(), reason: bare(&reason) })?;
            Ok((conn, place))
        }
    }
}

/// A connection to a database whose schema is ours and which nobody else uses, as far as one can tell.
pub(super) fn for_restore(config: &DatabaseConfig) -> Result<(Conn, String), BackupError> {
    let (conn, place, disable_migration) = match config {
        DatabaseConfig::Sqlite(sqlite) => {
            let path = sqlite.connection_string.clone();
            let target = Target::parse(&path)?;
            let conn = Conn::open(&Target { busy_timeout: Duration::from_secs(1), ..target.clone() })
                .map_err(|reason| failed(&path, &reason))?;
            lock_file(&conn, &path)?;
            tune(&conn, &target).map_err(|reason| failed(&path, &reason))?;
            (conn, path, sqlite.disable_migration)
        }
        DatabaseConfig::Network(network) => {
            let server = network.primary()?;
            let place = server.place();
            let conn = Conn::connect(&server, Purpose::Write)
                .map_err(|reason| OpenError::Open { path: place.clone(), reason: bare(&reason) })?;
            check_sessions(&conn, &place)?;
            (conn, place, network.disable_migration)
        }
    };
    prepare(&conn, &place, disable_migration)?;
    Ok((conn, place))
}

/// Notes the new log beside the file, so that the next start does not take it for another restore.
pub(super) fn note(conn: &Conn, log_id: &str, head: Revision) {
    if let Some(file) = conn.file() {
        let _ = Watermark::create(&file, log_id.into(), head).inspect_err(watermark::complain);
    }
}

/// Takes the file for this connection alone. In WAL mode whoever has it open holds a lock on it.
fn lock_file(conn: &Conn, path: &str) -> Result<(), BackupError> {
    let locked = conn.pragma("locking_mode", "EXCLUSIVE").and_then(|()| conn.pragma("journal_mode", "WAL"));
    match locked {
        Ok(()) => Ok(()),
        Err(reason)
            if matches!(
                reason.sqlite_error_code(),
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
            ) =>
        {
            Err(BackupError::InUse { place: path.into(), who: "another process has the file open".into() })
        }
        Err(reason) => Err(failed(path, &reason).into()),
    }
}

/// Sessions of the same user on the same database: servers, most likely. Those that are just ending are waited for.
fn check_sessions(conn: &Conn, place: &str) -> Result<(), BackupError> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => return Ok(()),
        Dialect::Postgres => {
            "SELECT 'pid ' || pid::text || ' from ' || COALESCE(client_addr::text, 'a local socket') \
             FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user \
             AND pid <> pg_backend_pid() AND backend_type = 'client backend' ORDER BY pid"
        }
        Dialect::MySql => {
            "SELECT CONCAT('connection ', ID, ' from ', HOST) FROM information_schema.processlist \
             WHERE DB = DATABASE() AND USER = SUBSTRING_INDEX(USER(), '@', 1) AND ID <> CONNECTION_ID() ORDER BY ID"
        }
    };
    for pause in [50, 200, 750, 1000, 0] {
        let sessions = conn.rows(sql, &[], |row| Ok(row.text(0)?.to_owned()))?;
        if sessions.is_empty() {
            return Ok(());
        }
        if pause == 0 {
            return Err(BackupError::InUse { place: place.into(), who: sessions.join(", ") });
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    Ok(())
}

fn failed(path: &str, reason: &rusqlite::Error) -> OpenError {
    OpenError::Open { path: path.into(), reason: error::engine_text(reason) }
}
