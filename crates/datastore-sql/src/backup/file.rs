//! The file: JSON lines. A header, for each table a line with its name and columns and then one array a row, and a trailer
//! with counts and the SHA-256 of all that stands before it, so that a file that was cut short or changed is noticed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, Read, Write};

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::BackupError;

/// Number of the format.
pub(super) const FORMAT: u64 = 1;

/// The longest line taken: a bundle of 16 MB, MySQL's limit, is 22 MB in base64.
const MAX_LINE: u64 = 64 * 1024 * 1024;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Number of the format.
    pub steeple_backup: u64,
    /// SPIRE's schema version of what is in the file.
    pub schema_version: i64,
    /// `migrations.code_version` of the database.
    pub code_version: String,
    /// `database_type` of the database.
    pub engine: String,
    /// The change log, empty if the database had none.
    pub log_id: String,
    /// The newest revision of the change log.
    pub revision: u64,
    /// RFC 3339.
    pub created_at: String,
}

/// Before a table's rows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TableLine {
    pub table: String,
    pub columns: Vec<String>,
    /// The highest id given out so far: it is not given out again.
    pub last_id: i64,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    rows: BTreeMap<String, u64>,
    sha256: String,
}

/// Writes lines and their digest.
pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
    digest: Context,
    rows: BTreeMap<String, u64>,
}

impl<'a> Writer<'a> {
    pub fn start(out: &'a mut dyn Write, header: &Header) -> Result<Self, BackupError> {
        let mut writer = Self { out, digest: Context::new(&SHA256), rows: BTreeMap::new() };
        writer.line(header)?;
        Ok(writer)
    }

    pub fn table(&mut self, table: &TableLine) -> Result<(), BackupError> {
        self.rows.insert(table.table.clone(), 0);
        self.line(table)
    }

    pub fn row(&mut self, table: &str, row: &[Json]) -> Result<(), BackupError> {
        if let Some(count) = self.rows.get_mut(table) {
            *count += 1;
        }
        self.line(&row)
    }

    /// Writes the trailer; answers the rows of each table.
    pub fn finish(mut self) -> Result<BTreeMap<String, u64>, BackupError> {
        let sha256 = hex(self.digest.clone().finish().as_ref());
        self.line(&Trailer { rows: self.rows.clone(), sha256 })?;
        self.out.flush().map_err(BackupError::Output)?;
        Ok(self.rows)
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), BackupError> {
        let mut text = serde_json::to_vec(line).map_err(|reason| BackupError::Output(reason.into()))?;
        text.push(b'\n');
        self.digest.update(&text);
        self.out.write_all(&text).map_err(BackupError::Output)
    }
}

/// What comes next in a file.
#[derive(Debug)]
pub(super) enum Line {
    Table(TableLine),
    Row(Vec<Json>),
    /// The trailer, which fits what was read.
    End(BTreeMap<String, u64>),
}

/// Reads lines and checks them against the trailer.
pub(super) struct Reader<'a> {
    from: &'a mut dyn BufRead,
    digest: Context,
    rows: BTreeMap<String, u64>,
    table: String,
    number: u64,
    text: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub fn start(from: &'a mut dyn BufRead) -> Result<(Self, Header), BackupError> {
        let mut reader = Self {
            from,
            digest: Context::new(&SHA256),
            rows: BTreeMap::new(),
            table: String::new(),
            number: 0,
            text: Vec::new(),
        };
        if !reader.read()? {
            return Err(BackupError::NotABackup("the file is empty".into()));
        }
        // First the number alone: a later format may have another header.
        let json: Json = serde_json::from_slice(&reader.text)
            .map_err(|_| BackupError::NotABackup("the first line is no header of a backup".into()))?;
        match json.get("steeple_backup").and_then(Json::as_u64) {
            Some(FORMAT) => {}
            Some(found) => return Err(BackupError::Format { found, expected: FORMAT }),
            None => {
                return Err(BackupError::NotABackup("the first line is no header of a backup".into()));
            }
        }
        let header = serde_json::from_value(json).map_err(|reason| reader.damaged(reason.to_string()))?;
        reader.take();
        Ok((reader, header))
    }

    pub fn next(&mut self) -> Result<Line, BackupError> {
        if !self.read()? {
            return Err(BackupError::Truncated);
        }
        match self.text.first() {
            Some(b'[') => {
                let row = self.parse()?;
                match self.rows.get_mut(&self.table) {
                    Some(count) => *count += 1,
                    None => return Err(self.damaged("a row stands before the first table".into())),
                }
                self.take();
                Ok(Line::Row(row))
            }
            _ if self.text.starts_with(b"{\"table\"") => {
                let table: TableLine = self.parse()?;
                self.table.clone_from(&table.table);
                if self.rows.insert(table.table.clone(), 0).is_some() {
                    return Err(self.damaged(format!("table {:?} is there twice", table.table)));
                }
                self.take();
                Ok(Line::Table(table))
            }
            _ => {
                let trailer: Trailer = self.parse()?;
                let sha256 = hex(self.digest.clone().finish().as_ref());
                if trailer.rows != self.rows {
                    return Err(self.damaged("rows are missing or too many".into()));
                }
                if trailer.sha256 != sha256 {
                    return Err(self.damaged("the SHA-256 differs: the file was changed or damaged".into()));
                }
                if self.read()? {
                    return Err(self.damaged("something stands behind the end".into()));
                }
                Ok(Line::End(trailer.rows))
            }
        }
    }

    /// Says which line does not fit.
    pub fn damaged(&self, reason: String) -> BackupError {
        BackupError::Damaged { line: self.number, reason }
    }

    /// The next line with its end; false at the file's end. A line without an end was cut short.
    fn read(&mut self) -> Result<bool, BackupError> {
        self.text.clear();
        self.number += 1;
        let mut limited = Read::take(&mut *self.from, MAX_LINE);
        let length = limited.read_until(b'\n', &mut self.text).map_err(BackupError::Input)?;
        if length == 0 {
            return Ok(false);
        }
        if self.text.last() != Some(&b'\n') {
            return Err(match length as u64 {
                MAX_LINE => self.damaged("the line is too long".into()),
                _ => BackupError::Truncated,
            });
        }
        Ok(true)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, BackupError> {
        serde_json::from_slice(&self.text).map_err(|reason| self.damaged(reason.to_string()))
    }

    /// The line was what it should be.
    fn take(&mut self) {
        self.digest.update(&self.text);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
