//! The layer below which an engine differs: a connection that runs SQL text with `?` placeholders. What SQL itself
//! spells differently from engine to engine is in [`Dialect`].

mod args;
mod dialect;
mod network;
mod row;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use steeple_datastore::Result;

use crate::config::{Server, Target};
use crate::error::{self, Fault};
use network::{Network, Rows};

pub(crate) use args::{Arg, args};
pub(crate) use dialect::Dialect;
pub(crate) use network::Purpose;
pub(crate) use row::Row;

/// A statement for many rows holds megabytes: one with more arguments is not kept prepared (SQLite).
const KEPT: usize = 64;

/// A connection. Statements are kept prepared.
pub(crate) struct Conn {
    engine: Engine,
    dialect: Dialect,
    /// A transaction of a database server is open; SQLite knows itself.
    open: Cell<bool>,
    fault: Cell<Option<Fault>>,
}

enum Engine {
    Sqlite(Box<Connection>),
    Network(RefCell<Network>),
}

impl Conn {
    /// Opens or creates a SQLite database.
    pub fn open(target: &Target) -> rusqlite::Result<Self> {
        Self::open_file(target, OpenFlags::SQLITE_OPEN_CREATE)
    }

    /// Opens a SQLite database that is there.
    pub fn open_existing(target: &Target) -> rusqlite::Result<Self> {
        Self::open_file(target, OpenFlags::empty())
    }

    fn open_file(target: &Target, more: OpenFlags) -> rusqlite::Result<Self> {
        let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
        if target.is_uri {
            flags |= OpenFlags::SQLITE_OPEN_URI;
        }
        let db = Connection::open_with_flags(&target.name, flags)?;
        db.busy_timeout(target.busy_timeout)?;
        db.set_prepared_statement_cache_capacity(64);
        // Plans do not depend on the values bound: nothing is planned anew.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(Self::new(Engine::Sqlite(Box::new(db)), Dialect::Sqlite))
    }

    /// Connects to a database server.
    pub fn connect(server: &Server, purpose: Purpose) -> Result<Self> {
        let socket = matches!(server, Server::MySql { options, .. } if options.get_socket().is_some());
        let network = Network::connect(server, purpose).map_err(|reason| error::refused(&reason, socket))?;
        let dialect = network.dialect();
        Ok(Self::new(Engine::Network(RefCell::new(network)), dialect))
    }

    fn new(engine: Engine, dialect: Dialect) -> Self {
        Self { engine, dialect, open: Cell::new(false), fault: Cell::new(None) }
    }

    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A setting of SQLite. What it answers (the value in force) is of no use here: a database in memory has its
    /// own journal mode.
    pub fn pragma(&self, name: &str, value: &str) -> rusqlite::Result<()> {
        let Engine::Sqlite(db) = &self.engine else { return Ok(()) };
        let mut statement = db.prepare(&format!("PRAGMA {name} = {value}"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// The database's file, absolute; `None` in memory and on a server.
    pub fn file(&self) -> Option<PathBuf> {
        let Engine::Sqlite(db) = &self.engine else { return None };
        db.path().filter(|path| !path.is_empty()).map(PathBuf::from)
    }

    /// SQLite: rises when another connection commits.
    pub fn data_version(&self) -> Result<i64> {
        match self.dialect {
            Dialect::Sqlite => {
                self.first("PRAGMA data_version", &[], |row| row.int(0)).map(Option::unwrap_or_default)
            }
            Dialect::Postgres | Dialect::MySql => Ok(0),
        }
    }

    /// No transaction is open: after a failure the engine may have rolled back by itself.
    pub fn is_idle(&self) -> bool {
        match &self.engine {
            Engine::Sqlite(db) => db.is_autocommit(),
            Engine::Network(_) => !self.open.get(),
        }
    }

    /// What the last failure did to the transaction or the connection.
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get()
    }

    /// Begins a transaction that writes.
    pub fn begin(&self) -> Result<()> {
        self.start(match self.dialect {
            Dialect::Sqlite => "BEGIN IMMEDIATE",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE",
            Dialect::MySql => "START TRANSACTION",
        })
    }

    /// Begins a transaction that sees one state of the database.
    pub fn begin_read(&self) -> Result<()> {
        self.start(match self.dialect {
            Dialect::Sqlite => "BEGIN",
            Dialect::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
            Dialect::MySql => "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        })
    }

    fn start(&self, sql: &str) -> Result<()> {
        self.fault.set(None);
        self.control(sql)?;
        self.open.set(true);
        Ok(())
    }

    /// An `Err` says nothing of what the engine did.
    pub fn commit(&self) -> Result<()> {
        let done = self.control("COMMIT");
        self.open.set(false);
        done
    }

    pub fn rollback(&self) -> Result<()> {
        let done = self.control("ROLLBACK");
        self.open.set(false);
        done
    }

    /// A statement of the transaction's own.
    pub fn control(&self, sql: &str) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(_) => self.exec(sql, &[]).map(drop),
            Engine::Network(_) => self.script(sql),
        }
    }

    /// Several statements without arguments.
    pub fn script(&self, sql: &str) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(db) => db.execute_batch(sql).map_err(error::sqlite),
            Engine::Network(network) => network.borrow_mut().script(sql).map_err(|error| self.failed(&error)),
        }
    }

    /// Runs a statement; returns how many rows it changed.
    pub fn exec(&self, sql: &str, args: &[Arg<'_>]) -> Result<u64> {
        match &self.engine {
            Engine::Sqlite(db) => {
                let mut statement = db.prepare_cached(sql).map_err(error::sqlite)?;
                let changed = statement.execute(rusqlite::params_from_iter(args)).map_err(error::sqlite)?;
                if args.len() > KEPT {
                    statement.discard();
                }
                Ok(changed as u64)
            }
            Engine::Network(network) => {
                let done = network.borrow_mut().exec(sql, args).map_err(|error| self.failed(&error))?;
                Ok(done.0)
            }
        }
    }

    /// Runs an INSERT of one row; returns its id.
    pub fn insert(&self, sql: &str, args: &[Arg<'_>]) -> Result<i64> {
        match &self.engine {
            Engine::Sqlite(db) => {
                self.exec(sql, args)?;
                Ok(db.last_insert_rowid())
            }
            Engine::Network(network) if self.dialect == Dialect::MySql => {
                let done = network.borrow_mut().exec(sql, args).map_err(|error| self.failed(&error))?;
                Ok(done.1 as i64)
            }
            Engine::Network(_) => {
                let sql = format!("{sql}{}", self.dialect.returning_id());
                self.first(&sql, args, |row| row.int(0)).map(Option::unwrap_or_default)
            }
        }
    }

    /// Runs an INSERT of some rows; returns their ids.
    pub fn insert_each(&self, sql: &str, args: &[Arg<'_>], rows: usize) -> Result<Vec<i64>> {
        if self.dialect == Dialect::Postgres {
            return self.rows(&format!("{sql}{}", self.dialect.returning_id()), args, |row| row.int(0));
        }
        let id = self.insert(sql, args)?;
        // SQLite tells the last one, MySQL the first; both give them out in a row.
        let first = if self.dialect == Dialect::Sqlite { id - rows as i64 + 1 } else { id };
        Ok((first..).take(rows).collect())
    }

    /// Hands each row to `take`, which runs no statement.
    pub fn each(
        &self,
        sql: &str,
        args: &[Arg<'_>],
        mut take: impl FnMut(&Row<'_>) -> Result<()>,
    ) -> Result<()> {
        match &self.engine {
            Engine::Sqlite(db) => {
                let mut statement = db.prepare_cached(sql).map_err(error::sqlite)?;
                let mut rows = statement.query(rusqlite::params_from_iter(args)).map_err(error::sqlite)?;
                while let Some(row) = rows.next().map_err(error::sqlite)? {
                    take(&Row::Sqlite(row))?;
                }
                drop(rows);
                if args.len() > KEPT {
                    statement.discard();
                }
                Ok(())
            }
            Engine::Network(network) => {
                let rows = network.borrow_mut().rows(sql, args).map_err(|error| self.failed(&error))?;
                match &rows {
                    Rows::Postgres(rows) => rows.iter().try_for_each(|row| take(&Row::Postgres(row))),
                    Rows::MySql(rows) => rows.iter().try_for_each(|row| take(&Row::MySql(row))),
                }
            }
        }
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

    /// The first row of an answer, which should not have many.
    pub fn first<T>(
        &self,
        sql: &str,
        args: &[Arg<'_>],
        read: impl Fn(&Row<'_>) -> Result<T>,
    ) -> Result<Option<T>> {
        if let Engine::Sqlite(db) = &self.engine {
            let mut statement = db.prepare_cached(sql).map_err(error::sqlite)?;
            let mut rows = statement.query(rusqlite::params_from_iter(args)).map_err(error::sqlite)?;
            return rows.next().map_err(error::sqlite)?.map(|row| read(&Row::Sqlite(row))).transpose();
        }
        let mut first = None;
        self.each(sql, args, |row| {
            if first.is_none() {
                first = Some(read(row)?);
            }
            Ok(())
        })?;
        Ok(first)
    }

    /// Ends the connection in good order; dropping it breaks it off.
    pub fn close(self) {
        if let Engine::Network(network) = self.engine {
            network.into_inner().close();
        }
    }

    fn failed(&self, reason: &sqlx::Error) -> steeple_datastore::Error {
        let (error, fault) = error::network(reason);
        if fault.is_some() {
            self.fault.set(fault);
        }
        error
    }
}
