//! A note beside the database (`<database>-steeple`) of which log it held and how far that log had come. A database
//! that is behind its note, or has none, was restored from a copy: agents may have seen revisions that are now
//! different, so the log starts anew under another id.
//!
//! A database server's log notes where it was written instead (`steeple_place`): a copy that is restored, and a standby that
//! becomes the primary, are other places.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use steeple_datastore::{Result, Revision};

use crate::changes;
use crate::conn::{Conn, Dialect, args};

/// The note, open for writing.
pub(crate) struct Watermark {
    file: File,
    log_id: String,
    complained: bool,
}

impl Watermark {
    pub fn path(database: &Path) -> PathBuf {
        let mut name = database.as_os_str().to_owned();
        name.push("-steeple");
        name.into()
    }

    /// The log and revision that were noted, if any.
    pub fn read(database: &Path) -> Option<(String, Revision)> {
        let mut text = String::new();
        File::open(Self::path(database)).ok()?.read_to_string(&mut text).ok()?;
        let (log_id, head) = text.trim_end().split_once(' ')?;
        Some((log_id.to_owned(), Revision(head.parse().ok()?)))
    }

    pub fn create(database: &Path, log_id: String, head: Revision) -> io::Result<Self> {
        let file = File::options().create(true).write(true).truncate(false).open(Self::path(database))?;
        let mut watermark = Self { file, log_id, complained: false };
        watermark.try_note(head)?;
        Ok(watermark)
    }

    /// Notes how far the log has come. It is not synced: a note that is behind does no harm.
    pub fn note(&mut self, head: Revision) {
        match self.try_note(head) {
            Ok(()) => self.complained = false,
            Err(error) if !self.complained => {
                self.complained = true;
                complain(&error);
            }
            Err(_) => {}
        }
    }

    /// Always of one length, so that it is replaced as a whole.
    fn try_note(&mut self, head: Revision) -> io::Result<()> {
        self.file.write_all_at(format!("{} {:020}\n", self.log_id, head.0).as_bytes(), 0)
    }
}

/// On a database server, in a transaction: if this is not the place where the log was written, or it is behind what was
/// `seen` of it, the log starts anew.
pub(crate) fn notice_move(conn: &Conn, seen: Revision) -> Result<()> {
    conn.first("SELECT id FROM steeple_meta FOR UPDATE", &[], |row| row.int(0))?;
    let here = place(conn)?;
    let noted = conn.first("SELECT place FROM steeple_place", &[], |row| Ok(row.text(0)?.to_owned()))?;
    match noted {
        Some(noted) if noted == here => return Ok(()),
        Some(_) => {
            tracing::warn!(
                subsystem_name = "sql",
                "The database was restored from a copy or failed over to a standby: its change log starts anew"
            );
            changes::renew(conn, seen.max(changes::head(conn)?))?;
            conn.exec("UPDATE steeple_place SET place = ?", &args![&here])?;
        }
        None => {
            conn.exec("INSERT INTO steeple_place (id, place) VALUES (1, ?)", &args![&here])?;
        }
    }
    Ok(())
}

/// What differs between a database and its copies. PostgreSQL: the table's and the database's numbers, and the timeline, which a standby
/// changes when it becomes the primary. MySQL: when the table was made.
fn place(conn: &Conn) -> Result<String> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => return Ok(String::new()),
        Dialect::Postgres => {
            "SELECT (SELECT oid FROM pg_database WHERE datname = current_database())::text || '/' || \
             to_regclass('steeple_meta')::oid::text || '/' || LEFT(pg_walfile_name(pg_current_wal_lsn()), 8)"
        }
        Dialect::MySql => {
            "SELECT CAST(CREATE_TIME AS CHAR) FROM information_schema.tables WHERE table_schema = DATABASE() \
             AND table_name = 'steeple_meta'"
        }
    };
    Ok(conn.first(sql, &[], |row| Ok(row.text(0)?.to_owned()))?.unwrap_or_default())
}

/// Without a note the server works; only a restored database goes unnoticed.
pub(crate) fn complain(error: &io::Error) {
    tracing::warn!(subsystem_name = "sql", %error, "Cannot note the change log's position beside the database");
}
