//! [`SqlStore`]: opening, and the port.

mod port;

use std::path::Path;
use std::time::Duration;

use steeple_datastore::{Result, Revision};
use tokio::sync::watch;

use crate::changes::{self, Tx};
use crate::config::{SqliteConfig, Target};
use crate::conn::Conn;
use crate::error::{self, OpenError};
use crate::foreign;
use crate::readers::Readers;
use crate::schema::{self, Found, Log};
use crate::watermark::{self, Watermark};
use crate::writer::Writer;

/// The state of a trust domain in a SQL database.
pub struct SqlStore {
    writer: Writer,
    /// None where only the writer's connection sees the database.
    readers: Option<Readers>,
    head: watch::Receiver<Revision>,
}

impl SqlStore {
    /// Opens a SQLite database, SPIRE's or ours, or makes one. Blocks while another server holds the file's lock, up to
    /// the busy timeout; call it at start, or on a blocking thread.
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
        let watermark = prepare(&conn, path)?;
        let setup = |source| OpenError::Setup { path: path.into(), source };
        let data_version = conn.data_version().map_err(setup)?;
        let (sender, head) = watch::channel(changes::head(&conn).map_err(setup)?);
        let writer = Writer::start(conn, watermark, config.poll, sender, data_version)
            .map_err(|reason| OpenError::Open { path: path.into(), reason: reason.to_string() })?;
        tracing::info!(
            subsystem_name = "sql",
            "type" = "sqlite3",
            version = rusqlite::version(),
            read_only = false,
            "Connected to SQL database"
        );
        let readers = (!target.in_memory).then(|| Readers::new(target, config.readers));
        Ok(Self { writer, readers, head })
    }

    /// Finishes the writes that wait and closes the database; later calls fail. Dropping the store does the same in
    /// the background.
    pub async fn close(&self) {
        if let Some(readers) = &self.readers {
            readers.close();
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

    async fn write<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        self.writer.write(op).await
    }
}

impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").field("head", &*self.head.borrow()).finish_non_exhaustive()
    }
}

fn tune(conn: &Conn, target: &Target) -> rusqlite::Result<()> {
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
fn prepare(conn: &Conn, path: &str) -> std::result::Result<Option<Watermark>, OpenError> {
    let setup = |source| OpenError::Setup { path: path.into(), source };
    conn.exec("BEGIN IMMEDIATE", &[]).map_err(setup)?;
    match schema::look(conn).map_err(setup)? {
        Found::Nothing => {
            tracing::info!(subsystem_name = "sql", "Initializing new database");
            schema::create(conn).map_err(setup)?;
        }
        Found::Spire { version } => schema::check_version(path, version)?,
        Found::Foreign { table } => return Err(OpenError::NotSpire { path: path.into(), table }),
    }
    let log = schema::add_ours(conn).map_err(setup)?;
    if let Log::Unknown { format } = log {
        return Err(schema::log_format_error(path, format));
    }
    let mut tx = Tx::new(conn);
    foreign::reconcile(&mut tx).map_err(setup)?;
    tx.number().map_err(setup)?;
    let file = conn.file();
    if let (Log::Found, Some(file)) = (log, &file) {
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
    conn.exec("COMMIT", &[]).map_err(setup)?;
    foreign::warn_of_federation(conn).map_err(setup)?;
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
