//! From a database to the file.

use std::io::Write;

use jiff::Timestamp;
use serde_json::Value as Json;
use steeple_datastore::Result as Stored;

use super::file::{FORMAT, Header, TableLine, Writer};
use super::open;
use super::tables::{Kind, TABLES, Table};
use super::value::Value;
use super::{BackupError, Progress, Summary};
use crate::changes;
use crate::config::DatabaseConfig;
use crate::conn::{Arg, Conn, Row};
use crate::migrations;
use crate::schema::{self, Found, VERSION};

/// Rows read at a time.
const PAGE: usize = 1000;

/// Writes the database's state to `out`. `now` (Unix seconds) goes into the header. Blocks.
pub fn backup(
    config: &DatabaseConfig,
    now: i64,
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Summary, BackupError> {
    let (conn, place) = open::for_backup(config)?;
    conn.begin_read()?;
    let summary = dump(&conn, &place, now, out, progress);
    // Nothing was written.
    let _ = conn.rollback();
    conn.close();
    summary
}

fn dump(
    conn: &Conn,
    place: &str,
    now: i64,
    out: &mut dyn Write,
    progress: Progress<'_>,
) -> Result<Summary, BackupError> {
    match schema::look(conn)? {
        Found::Spire => {}
        Found::Nothing => return Err(BackupError::NoDatabase(place.into())),
        Found::Foreign { table } => {
            return Err(crate::error::OpenError::NotSpire { path: place.into(), table }.into());
        }
    }
    let stored = migrations::stored(conn)?;
    migrations::check_readable(&stored, place)?;
    let logged = schema::has_table(conn, "steeple_meta")?;
    let header = Header {
        steeple_backup: FORMAT,
        schema_version: stored.version.min(VERSION),
        code_version: stored.code_version,
        engine: conn.dialect().name().into(),
        log_id: if logged { changes::log_id(conn)? } else { String::new() },
        revision: if logged { changes::head(conn)?.0 } else { 0 },
        created_at: Timestamp::from_second(now).unwrap_or_default().to_string(),
    };
    let mut writer = Writer::start(out, &header)?;
    for table in TABLES {
        dump_table(conn, table, &mut writer, progress)?;
    }
    Ok(Summary { header, rows: writer.finish()? })
}

fn dump_table(
    conn: &Conn,
    table: &'static Table,
    writer: &mut Writer<'_>,
    progress: Progress<'_>,
) -> Result<(), BackupError> {
    let last_id = if table.has_id() {
        let sql = format!("SELECT {}", conn.dialect().last_id_of(table.name));
        conn.first(&sql, &[], |row| row.int(0))?.unwrap_or_default()
    } else {
        0
    };
    let columns = table.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    writer.table(&TableLine { table: table.name.into(), columns, last_id })?;
    let select = select(conn, table)?;
    let mut after = vec![-1; if table.has_id() { 1 } else { 3 }];
    let mut done = 0;
    loop {
        let args: Vec<Arg<'_>> = after.iter().map(|id| Arg::Int(*id)).collect();
        let page = conn.rows(&select, &args, |row| Ok(read_row(row, table)))?;
        let full = page.len() == PAGE;
        for row in page {
            let row = row?;
            after = key(&row, table);
            let json: Vec<Json> = row.iter().map(Value::to_json).collect();
            writer.row(table.name, &json)?;
            done += 1;
        }
        progress(table.name, done);
        if !full {
            return Ok(());
        }
    }
}

/// One page behind a key. What a column of a later schema version would hold is NULL.
fn select(conn: &Conn, table: &Table) -> Stored<String> {
    let mut names = Vec::new();
    for (name, _) in table.columns {
        let later = migrations::COLUMNS.iter().any(|added| added.table == table.name && added.name == *name);
        names.push(if later && !migrations::has_column(conn, table.name, name)? { "NULL" } else { name });
    }
    let behind = if table.has_id() {
        "id > ?"
    } else {
        "(bundle_id > ? OR (bundle_id = ? AND registered_entry_id > ?))"
    };
    let (names, order) = (names.join(", "), table.order());
    Ok(format!("SELECT {names} FROM {} WHERE {behind} ORDER BY {order} LIMIT {PAGE}", table.name))
}

/// Arguments of [`select`] for what is behind this row.
fn key(row: &[Value], table: &Table) -> Vec<i64> {
    let id = |column: usize| match row.get(column) {
        Some(Value::Int(id)) => *id,
        _ => 0,
    };
    if table.has_id() { vec![id(0)] } else { vec![id(0), id(0), id(1)] }
}

fn read_row(row: &Row<'_>, table: &'static Table) -> Result<Vec<Value>, BackupError> {
    let read = |(index, (name, kind)): (usize, &(&'static str, Kind))| {
        read_value(row, index, *kind).map_err(|reason| BackupError::Unreadable {
            table: table.name,
            row: row.int(0).unwrap_or_default(),
            column: name,
            reason: reason.to_string(),
        })
    };
    table.columns.iter().enumerate().map(read).collect()
}

fn read_value(row: &Row<'_>, column: usize, kind: Kind) -> Stored<Value> {
    if row.is_null(column)? {
        return Ok(Value::Null);
    }
    Ok(match kind {
        Kind::Int => Value::Int(row.int(column)?),
        Kind::Flag => Value::Flag(row.flag(column)?),
        Kind::Text => Value::Text(row.text(column)?.to_owned()),
        Kind::Blob => Value::Blob(row.blob(column)?.to_vec()),
        Kind::Time => Value::Time(row.time(column)?),
    })
}
