//! From the file to a database.

use std::io::BufRead;

use serde_json::Value as Json;
use steeple_datastore::Revision;

use super::file::{Header, Line, Reader, TableLine};
use super::open;
use super::tables::{Kind, TABLES, Table};
use super::value::Value;
use super::{BackupError, Progress, Summary};
use crate::config::DatabaseConfig;
use crate::conn::{Arg, Conn, Dialect, args};
use crate::schema::{self, VERSION};
use crate::{changes, foreign};

/// Values in one INSERT at most: SQLite takes 32,766, PostgreSQL and MySQL 65,535.
const BATCH_VALUES: usize = 4000;

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    pub summary: Summary,
    /// The new change log and where it starts.
    pub log_id: String,
    pub revision: u64,
}

/// Replaces the state of the database by that of a backup. Blocks. `force`: although there is a state.
pub fn restore(
    config: &DatabaseConfig,
    from: &mut dyn BufRead,
    force: bool,
    progress: Progress<'_>,
) -> Result<Restored, BackupError> {
    // A file that is no backup leaves no trace in the target.
    let (mut reader, header) = Reader::start(from)?;
    if header.schema_version > VERSION {
        return Err(BackupError::Schema { found: header.schema_version, expected: VERSION });
    }
    let (conn, place) = open::for_restore(config)?;
    conn.begin()?;
    // A server that starts now waits.
    schema::lock(&conn)?;
    let restored = replace(&conn, &place, &mut reader, header, force, progress)
        .and_then(|restored| conn.commit().map(|()| restored).map_err(Into::into));
    match &restored {
        Ok(restored) => open::note(&conn, &restored.log_id, Revision(restored.revision)),
        // It may be gone already, with the connection.
        Err(_) => drop(conn.rollback()),
    }
    let _ = schema::unlock(&conn);
    conn.close();
    restored
}

fn replace(
    conn: &Conn,
    place: &str,
    reader: &mut Reader<'_>,
    header: Header,
    force: bool,
    progress: Progress<'_>,
) -> Result<Restored, BackupError> {
    for table in TABLES {
        if !force {
            check_empty(conn, place, table)?;
        }
        conn.exec(&format!("DELETE FROM {}", table.name), &[])?;
    }
    let mut load: Option<Load<'_>> = None;
    let rows = loop {
        match reader.next()? {
            Line::Table(line) => {
                if let Some(mut load) = load.replace(Load::start(conn, line, reader)?) {
                    load.finish(progress)?;
                }
            }
            Line::Row(row) => match &mut load {
                Some(load) => load.row(&row, reader, progress)?,
                None => return Err(reader.damaged("a row stands before the first table".into())),
            },
            Line::End(rows) => {
                if let Some(mut load) = load.take() {
                    load.finish(progress)?;
                }
                break rows;
            }
        }
    };
    foreign::restart(conn)?;
    changes::renew(conn, Revision(header.revision))?;
    let (log_id, revision) = (changes::log_id(conn)?, changes::head(conn)?.0);
    Ok(Restored { summary: Summary { header, rows }, log_id, revision })
}

fn check_empty(conn: &Conn, place: &str, table: &'static Table) -> Result<(), BackupError> {
    let count = format!("SELECT COUNT(*) FROM {}", table.name);
    match conn.first(&count, &[], |row| row.int(0))?.unwrap_or_default() {
        0 => Ok(()),
        rows => Err(BackupError::NotEmpty { place: place.into(), table: table.name, rows }),
    }
}

/// Rows of one table on their way.
struct Load<'a> {
    conn: &'a Conn,
    table: &'static Table,
    /// For each value of a line: the column of the table.
    columns: Vec<usize>,
    last_id: i64,
    waiting: Vec<Vec<Value>>,
    done: u64,
}

impl<'a> Load<'a> {
    fn start(conn: &'a Conn, line: TableLine, reader: &Reader<'_>) -> Result<Self, BackupError> {
        let unknown = |what: &str, name: &str| {
            reader.damaged(format!("{what} {name:?} is not known; a newer release may have made this backup"))
        };
        let table = Table::find(&line.table).ok_or_else(|| unknown("table", &line.table))?;
        let mut columns = Vec::new();
        for name in &line.columns {
            let index = table.columns.iter().position(|(column, _)| column == name);
            let index = index.ok_or_else(|| unknown("column", name))?;
            if columns.contains(&index) {
                return Err(reader.damaged(format!("column {name:?} is there twice")));
            }
            columns.push(index);
        }
        Ok(Self { conn, table, columns, last_id: line.last_id, waiting: Vec::new(), done: 0 })
    }

    fn row(&mut self, json: &[Json], reader: &Reader<'_>, progress: Progress<'_>) -> Result<(), BackupError> {
        if json.len() != self.columns.len() {
            return Err(reader.damaged(format!("{} values for {} columns", json.len(), self.columns.len())));
        }
        let mut row = vec![Value::Null; self.table.columns.len()];
        for (json, index) in json.iter().zip(&self.columns) {
            let (name, kind) = self.table.columns[*index];
            let value = Value::from_json(json, kind)
                .ok_or_else(|| reader.damaged(format!("the value of column {name:?} has the wrong form")))?;
            row[*index] = value.prepared(self.conn.dialect());
        }
        self.waiting.push(row);
        if self.waiting.len() * self.table.columns.len() >= BATCH_VALUES {
            self.flush(progress)?;
        }
        Ok(())
    }

    fn flush(&mut self, progress: Progress<'_>) -> Result<(), BackupError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let kinds = self.table.columns.iter().map(|(_, kind)| placeholder(self.conn.dialect(), *kind));
        let row = format!("({})", kinds.collect::<Vec<_>>().join(", "));
        let rows = vec![row; self.waiting.len()].join(", ");
        let sql = format!("INSERT INTO {} ({}) VALUES {rows}", self.table.name, self.table.names());
        let args: Vec<Arg<'_>> = self.waiting.iter().flatten().map(Value::arg).collect();
        self.conn.exec(&sql, &args)?;
        self.done += self.waiting.len() as u64;
        self.waiting.clear();
        progress(self.table.name, self.done);
        Ok(())
    }

    /// Ids that were given out are not given out again. Never lowered: PostgreSQL's sequences know no rollback.
    fn finish(&mut self, progress: Progress<'_>) -> Result<(), BackupError> {
        self.flush(progress)?;
        if !self.table.has_id() {
            return Ok(());
        }
        let name = self.table.name;
        match self.conn.dialect() {
            Dialect::Sqlite => {
                self.conn.exec(
                    "INSERT INTO sqlite_sequence (name, seq) SELECT ?, 0 WHERE NOT EXISTS \
                     (SELECT 1 FROM sqlite_sequence WHERE name = ?)",
                    &args![name, name],
                )?;
                self.conn.exec(
                    "UPDATE sqlite_sequence SET seq = MAX(seq, ?) WHERE name = ?",
                    &args![self.last_id, name],
                )?;
            }
            Dialect::Postgres => {
                let sequence = format!("pg_get_serial_sequence('{name}', 'id')");
                let last =
                    format!("GREATEST(?, (SELECT COALESCE(MAX(id), 0) FROM {name}), nextval({sequence}))");
                let sql = format!("SELECT setval({sequence}, {last})");
                self.conn.first(&sql, &args![self.last_id], |_| Ok(()))?;
            }
            // An INSERT with an id moves the counter behind it, and DELETE does not move it back.
            Dialect::MySql => {}
        }
        Ok(())
    }
}

/// PostgreSQL is told each type: a NULL alone has none. Times are text, which it reads.
fn placeholder(dialect: Dialect, kind: Kind) -> &'static str {
    if dialect != Dialect::Postgres {
        return "?";
    }
    match kind {
        Kind::Int => "CAST(? AS bigint)",
        Kind::Flag => "CAST(? AS boolean)",
        Kind::Text => "CAST(? AS text)",
        Kind::Blob => "CAST(? AS bytea)",
        Kind::Time => "CAST(CAST(? AS text) AS timestamptz)",
    }
}
