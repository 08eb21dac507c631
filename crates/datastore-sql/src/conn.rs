//! The layer below which an engine differs: a connection that runs SQL text with `?` placeholders. What SQL itself
//! spells differently from engine to engine is here too.

use std::path::PathBuf;

use rusqlite::config::DbConfig;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OpenFlags, ToSql};
use steeple_datastore::Result;

use crate::config::Target;
use crate::error;

/// The time now, in SPIRE's text form. The engine's clock stamps event rows: they are pruned by it.
pub(crate) const NOW: &str = "strftime('%Y-%m-%d %H:%M:%f', 'now') || '+00:00'";

/// A datetime column in Unix seconds.
pub(crate) fn epoch(column: &str) -> String {
    format!("CAST(strftime('%s', {column}) AS INTEGER)")
}

/// The highest id that a table ever gave out.
pub(crate) fn last_id_of(table: &str) -> String {
    format!("COALESCE((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0)")
}

/// One argument of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl From<i64> for Arg<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<i32> for Arg<'_> {
    fn from(value: i32) -> Self {
        Self::Int(value.into())
    }
}

/// Row ids and revisions fit; a page token may not, and then matches nothing.
impl From<u64> for Arg<'_> {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Arg<'_> {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Arg<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Blob(value)
    }
}

impl<'a, T: Into<Arg<'a>>> From<Option<T>> for Arg<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl ToSql for Arg<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(value) => ValueRef::Integer(*value),
            Self::Text(value) => ValueRef::Text(value.as_bytes()),
            Self::Blob(value) => ValueRef::Blob(value),
        }))
    }
}

/// `args![id, "name", None]`
macro_rules! args {
    ($($value:expr),* $(,)?) => { [$($crate::conn::Arg::from($value)),*] };
}
pub(crate) use args;

/// One row of an answer. SPIRE's rows may hold NULL where a column came later: it reads as the empty value.
pub(crate) struct Row<'a>(&'a rusqlite::Row<'a>);

impl Row<'_> {
    pub fn int(&self, column: usize) -> Result<i64> {
        Ok(self.0.get::<_, Option<i64>>(column).map_err(error::sql)?.unwrap_or_default())
    }

    pub fn flag(&self, column: usize) -> Result<bool> {
        Ok(self.int(column)? != 0)
    }

    pub fn text(&self, column: usize) -> Result<&str> {
        match self.0.get_ref(column).map_err(error::sql)? {
            ValueRef::Null => Ok(""),
            value => value.as_str().map_err(|wrong| error::sql(wrong.into())),
        }
    }

    pub fn blob(&self, column: usize) -> Result<&[u8]> {
        match self.0.get_ref(column).map_err(error::sql)? {
            ValueRef::Null => Ok(&[]),
            ValueRef::Blob(bytes) | ValueRef::Text(bytes) => Ok(bytes),
            value => value.as_blob().map_err(|wrong| error::sql(wrong.into())),
        }
    }
}

/// A connection. Statements are kept prepared.
pub(crate) struct Conn(Connection);

impl Conn {
    /// Opens or creates the database.
    pub fn open(target: &Target) -> rusqlite::Result<Self> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        if target.is_uri {
            flags |= OpenFlags::SQLITE_OPEN_URI;
        }
        let db = Connection::open_with_flags(&target.name, flags)?;
        db.busy_timeout(target.busy_timeout)?;
        db.set_prepared_statement_cache_capacity(64);
        // Plans do not depend on the values bound: nothing is planned anew.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(Self(db))
    }

    /// A setting of the engine. What it answers (the value in force) is of no use here: a database in memory has its
    /// own journal mode.
    pub fn pragma(&self, name: &str, value: &str) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare(&format!("PRAGMA {name} = {value}"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// The database's file, absolute; `None` in memory.
    pub fn file(&self) -> Option<PathBuf> {
        self.0.path().filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// Rises when another connection commits.
    pub fn data_version(&self) -> Result<i64> {
        self.first("PRAGMA data_version", &[], |row| row.int(0)).map(Option::unwrap_or_default)
    }

    /// No transaction is open: after a failure the engine may have rolled back by itself.
    pub fn is_idle(&self) -> bool {
        self.0.is_autocommit()
    }

    /// Several statements without arguments.
    pub fn script(&self, sql: &str) -> Result<()> {
        self.0.execute_batch(sql).map_err(error::sql)
    }

    /// Runs a statement; returns how many rows it changed.
    pub fn exec(&self, sql: &str, args: &[Arg<'_>]) -> Result<u64> {
        let mut statement = self.0.prepare_cached(sql).map_err(error::sql)?;
        let changed = statement.execute(rusqlite::params_from_iter(args)).map_err(error::sql)?;
        Ok(changed as u64)
    }

    /// Runs an INSERT; returns the id of the row.
    pub fn insert(&self, sql: &str, args: &[Arg<'_>]) -> Result<i64> {
        self.exec(sql, args)?;
        Ok(self.0.last_insert_rowid())
    }

    pub fn each(
        &self,
        sql: &str,
        args: &[Arg<'_>],
        mut take: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut statement = self.0.prepare_cached(sql).map_err(error::sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(args)).map_err(error::sql)?;
        while let Some(row) = rows.next().map_err(error::sql)? {
            take(&Row(row))?;
        }
        Ok(())
    }

    pub fn rows<T>(
        &self,
        sql: &str,
        args: &[Arg<'_>],
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut all = Vec::new();
        self.each(sql, args, |row| {
            all.push(read(row)?);
            Ok(())
        })?;
        Ok(all)
    }

    pub fn first<T>(
        &self,
        sql: &str,
        args: &[Arg<'_>],
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        let mut statement = self.0.prepare_cached(sql).map_err(error::sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(args)).map_err(error::sql)?;
        rows.next().map_err(error::sql)?.map(|row| read(&Row(row))).transpose()
    }
}
