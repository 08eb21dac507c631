//! [`SqlStore`]: opening, and the port.

mod port;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use steeple_datastore::Result;

use crate::changes::{self, Tx};
use crate::config::{DatabaseConfig, NetworkConfig, Server, SqliteConfig, Target};
use crate::conn::{Conn, Dialect, Purpose};
use crate::error::{self, OpenError};
use crate::foreign;
use crate::migrations;
use crate::notify::Listener;
use crate::readers::{Keep, Readers, Source};
use crate::schema::{self, Found};
use crate::watermark::{self, Watermark};
use crate::writer::{Log, Worker, Writer};

/// The state of a trust domain in a SQL database.
pub struct SqlStore {
    writer: Writer,
    /// None where only the writer's connection sees the database.
    readers: Option<Readers>,
    /// Of a replica.
    replica: Option<Readers>,
    log: Arc<Log>,
    /// Id of the log that our follower reads: of the snapshot taken last.
    followed: Mutex<String>,
}

impl SqlStore {
    /// Opens a database of any engine; see the two functions below.
    ///
    /// # Errors
    /// Theirs.
    pub fn open(config: &DatabaseConfig) -> std::result::Result<Self, OpenError> {
        match config {
            DatabaseConfig::Sqlite(config) => Self::open_sqlite(config),
            DatabaseConfig::Network(config) => Self::open_network(config),
        }
    }

    /// Opens a SQLite database, SPIRE's or ours, or makes one. Blocks while another server holds the file's lock, up to
    /// the busy timeout; call it at start, or on a blocking thread.
    ///
    /// # Errors
    /// What an operator has to know: the string, the file or the schema is not as it must be.
    pub fn open_sqlite(config: &SqliteConfig) -> std::result::Result<Self, OpenError> {
        let target = Target::parse(&config.connection_string)?;
        tracing::info!(subsystem_name = "sql", db_type = "sqlite3", "Opening SQL database");
        let path = config.connection_string.as_str();
        let failed = |reason: rusqlite::Error| OpenError::Open {
            path: path.into(),
            reason: error::engine_text(&reason),
        };
        let conn = Conn::open(&target).map_err(failed)?;
        tune(&conn, &target).map_err(failed)?;
        let watermark = prepare(&conn, path, config.disable_migration)?;
        let readers =
            (!target.in_memory).then(|| Readers::new(Source::File(target), config.readers, Keep::ALL));
        let store = Self::start(
            conn,
            path,
            Parts { server: None, watermark, poll: config.poll, readers, replica: None },
        )?;
        connected("sqlite3", rusqlite::version(), false);
        Ok(store)
    }

    /// Opens a database on a server, SPIRE's or ours, or fills an empty one. Blocks; call it on a blocking thread.
    ///
    /// # Errors
    /// As [`SqlStore::open_sqlite`]; no text holds a password.
    pub fn open_network(config: &NetworkConfig) -> std::result::Result<Self, OpenError> {
        let server = config.primary()?;
        let replica = config.replica()?;
        let kind = config.kind.name();
        tracing::info!(subsystem_name = "sql", db_type = kind, "Opening SQL database");
        let place = server.place();
        let conn = Conn::connect(&server, Purpose::Write)
            .map_err(|reason| OpenError::Open { path: place.clone(), reason: bare(&reason) })?;
        let version = conn.first("SELECT version()", &[], |row| Ok(row.text(0)?.to_owned()));
        prepare(&conn, &place, config.disable_migration)?;
        // Two connections are the writer's and the listener's.
        let size = config.max_open_conns.filter(|most| *most > 0).unwrap_or(READERS + 2).saturating_sub(2);
        let size = size.clamp(1, READERS) as usize;
        let keep = Keep {
            idle: config.max_idle_conns.map_or(size, |most| most as usize),
            // SPIRE's.
            unused: Some(Duration::from_secs(30)),
            lifetime: config.conn_max_lifetime.filter(|limit| !limit.is_zero()),
        };
        let readers = Some(Readers::new(Source::Server(server.clone()), size, keep));
        let read_only = replica.is_some();
        let replica = replica.map(|server| Readers::new(Source::Server(server), size, keep));
        let parts = Parts { server: Some(server), watermark: None, poll: config.poll, readers, replica };
        let store = Self::start(conn, &place, parts)?;
        connected(kind, &version.ok().flatten().unwrap_or_default(), false);
        if read_only {
            connected(kind, "", true);
        }
        Ok(store)
    }

    fn start(conn: Conn, path: &str, parts: Parts) -> std::result::Result<Self, OpenError> {
        let setup = |source| OpenError::Setup { path: path.into(), source };
        let failed =
            |reason: std::io::Error| OpenError::Open { path: path.into(), reason: reason.to_string() };
        let data_version = conn.data_version().map_err(setup)?;
        let log_id = changes::log_id(&conn).map_err(setup)?;
        let log = Log::new(log_id.clone(), changes::head(&conn).map_err(setup)?);
        let listener = match &parts.server {
            Some(server) => Listener::start(server, Arc::clone(&log)).map_err(failed)?,
            None => None,
        };
        let worker = Worker {
            conn,
            server: parts.server,
            watermark: parts.watermark,
            log: Arc::clone(&log),
            listener,
            data_version,
            poll: parts.poll,
            lively: 0,
            complained: false,
        };
        let writer = Writer::start(worker).map_err(failed)?;
        Ok(Self { writer, readers: parts.readers, replica: parts.replica, log, followed: Mutex::new(log_id) })
    }

    /// Finishes the writes that wait and closes the database; later calls fail. Dropping the store does the same in
    /// the background.
    pub async fn close(&self) {
        for readers in [&self.readers, &self.replica].into_iter().flatten() {
            readers.close().await;
        }
        self.writer.close().await;
    }

    async fn read<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Conn) -> Result<T> + Send + 'static,
    {
        match &self.readers {
            Some(readers) => readers.read(op).await,
            None => self.writer.read(op).await,
        }
    }

    /// What needs no transaction.
    async fn ask<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Conn) -> Result<T> + Send + 'static,
    {
        match &self.readers {
            Some(readers) => readers.ask(op).await,
            None => self.writer.read(op).await,
        }
    }

    /// Lists and counts: on the replica if there is one that has all that this server has seen.
    async fn read_list<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Conn) -> Result<T> + Clone + Send + 'static,
    {
        if let Some(replica) = &self.replica {
            let (log_id, seen) = (self.log.id(), *self.log.head.borrow());
            let list = op.clone();
            let answer = replica
                .read(move |conn| {
                    let state = foreign::state(conn)?;
                    let fresh = state.log_id == log_id && state.head >= seen;
                    if fresh { list(conn).map(Some) } else { Ok(None) }
                })
                .await;
            match answer {
                Ok(Some(answer)) => return Ok(answer),
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(subsystem_name = "sql", %error, "Replica cannot be read; asking the primary");
                }
            }
        }
        self.read(op).await
    }

    /// `op` runs again if the engine undid it.
    async fn write<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.writer.write(op).await
    }

    fn followed(&self) -> MutexGuard<'_, String> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that read from a database server, at most.
const READERS: u32 = 16;

/// What a store is made of beside its connection.
struct Parts {
    server: Option<Server>,
    watermark: Option<Watermark>,
    poll: Duration,
    readers: Option<Readers>,
    replica: Option<Readers>,
}

/// An error's text without our prefix.
pub(crate) fn bare(error: &steeple_datastore::Error) -> String {
    let text = error.to_string();
    text.strip_prefix("datastore-sql: ").unwrap_or(&text).to_owned()
}

fn connected(kind: &str, version: &str, read_only: bool) {
    tracing::info!(subsystem_name = "sql", "type" = kind, version, read_only, "Connected to SQL database");
}

impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").field("head", &*self.log.head.borrow()).finish_non_exhaustive()
    }
}

pub(crate) fn tune(conn: &Conn, target: &Target) -> rusqlite::Result<()> {
    // Another server may be switching at this moment, and that is not waited for by the engine.
    let mut tries = 0;
    while let Err(error) = conn.pragma("journal_mode", "WAL") {
        let busy = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
        if !busy || tries == 100 {
            return Err(error);
        }
        tries += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    conn.pragma("synchronous", target.synchronous.name())?;
    // KiB.
    conn.pragma("cache_size", "-2048")?;
    // What a savepoint would restore.
    conn.pragma("temp_store", "MEMORY")?;
    // The log file shrinks to this after a burst.
    conn.pragma("journal_size_limit", "8388608")?;
    Ok(())
}

/// Makes what is missing and notices what others wrote since, in one transaction.
pub(crate) fn prepare(
    conn: &Conn,
    path: &str,
    disable_migration: bool,
) -> std::result::Result<Option<Watermark>, OpenError> {
    let setup = |source| OpenError::Setup { path: path.into(), source };
    conn.begin().map_err(setup)?;
    schema::lock(conn).map_err(setup)?;
    match schema::look(conn).map_err(setup)? {
        Found::Nothing => {
            tracing::info!(subsystem_name = "sql", "Initializing new database");
            schema::create(conn).map_err(setup)?;
        }
        Found::Spire => migrations::bring_up(conn, path, disable_migration)?,
        Found::Foreign { table } => return Err(OpenError::NotSpire { path: path.into(), table }),
    }
    let log = schema::add_ours(conn).map_err(setup)?;
    if let schema::Log::Unknown { format } = log {
        return Err(schema::log_format_error(path, format));
    }
    if conn.dialect() != Dialect::Sqlite {
        let head = changes::head(conn).map_err(setup)?;
        watermark::notice_move(conn, head).map_err(setup)?;
    }
    let mut tx = Tx::new(conn);
    foreign::reconcile(&mut tx).map_err(setup)?;
    tx.number().map_err(setup)?;
    let file = conn.file();
    if let (schema::Log::Found, Some(file)) = (log, &file) {
        notice_restore(conn, file).map_err(setup)?;
    }
    // Under the write lock, so that a second server does not take a log without a note for a restored one.
    let watermark = match file {
        None => None,
        Some(file) => {
            let head = changes::head(conn).map_err(setup)?;
            let log_id = changes::log_id(conn).map_err(setup)?;
            Watermark::create(&file, log_id, head).inspect_err(watermark::complain).ok()
        }
    };
    conn.commit().map_err(setup)?;
    schema::unlock(conn).map_err(setup)?;
    Ok(watermark)
}

fn notice_restore(conn: &Conn, file: &Path) -> Result<()> {
    let (log_id, head) = (changes::log_id(conn)?, changes::head(conn)?);
    match Watermark::read(file) {
        Some((noted, at)) if noted == log_id && at <= head => Ok(()),
        noted => {
            tracing::warn!(
                subsystem_name = "sql",
                "The database was restored from a copy: its change log starts anew"
            );
            changes::renew(conn, noted.map_or(head, |(_, at)| at))
        }
    }
}
