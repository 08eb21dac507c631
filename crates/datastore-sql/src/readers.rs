//! Connections that read. Each read is one transaction on a blocking thread and sees one state of the database.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use steeple_datastore::{Error, Result};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{Server, Target};
use crate::conn::{Conn, Purpose};
use crate::error::{self, Fault};

/// A few connections, opened when they are first needed.
#[derive(Clone)]
pub(crate) struct Readers(Arc<Pool>);

struct Pool {
    source: Source,
    idle: Mutex<Vec<Reader>>,
    places: Arc<Semaphore>,
    keep: Keep,
}

/// What is read from.
pub(crate) enum Source {
    File(Target),
    Server(Server),
}

/// Which connections stay open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    pub idle: usize,
    /// Unused for so long, one is closed.
    pub unused: Option<Duration>,
    pub lifetime: Option<Duration>,
}

impl Keep {
    pub const ALL: Self = Self { idle: usize::MAX, unused: None, lifetime: None };
}

struct Reader {
    conn: Conn,
    opened: Instant,
    used: Instant,
}

impl Readers {
    pub fn new(source: Source, size: usize, keep: Keep) -> Self {
        let places = Arc::new(Semaphore::new(size.max(1)));
        Self(Arc::new(Pool { source, idle: Mutex::new(Vec::new()), places, keep }))
    }

    pub async fn read<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Conn) -> Result<T> + Send + 'static,
    {
        let closed = || Error::Unavailable("the datastore is closed".into());
        let place = Arc::clone(&self.0.places).acquire_owned().await.map_err(|_| closed())?;
        let pool = Arc::clone(&self.0);
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            let reader = pool.begin()?;
            let result = op(&reader.conn);
            // Nothing was written; a failure here only costs the connection.
            let _ = reader.conn.rollback();
            pool.put_back(reader);
            result
        });
        work.await.map_err(|reason| Error::Internal(format!("read failed: {reason}")))?
    }

    /// As [`Readers::read`] for what needs no transaction, which is two statements less; runs again on another
    /// connection if the one it was given had died.
    pub async fn ask<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Conn) -> Result<T> + Send + 'static,
    {
        let closed = || Error::Unavailable("the datastore is closed".into());
        let place = Arc::clone(&self.0.places).acquire_owned().await.map_err(|_| closed())?;
        let pool = Arc::clone(&self.0);
        let work = tokio::task::spawn_blocking(move || {
            let _place = place;
            loop {
                let idle = pool.idle().pop();
                let again = idle.is_some();
                let reader = match idle {
                    Some(reader) => reader,
                    None => pool.open()?,
                };
                let result = op(&reader.conn);
                if !again || reader.conn.fault() != Some(Fault::Broken) {
                    pool.put_back(reader);
                    return result;
                }
            }
        });
        work.await.map_err(|reason| Error::Internal(format!("read failed: {reason}")))?
    }

    /// Closes the connections; later reads fail, those that run go on.
    pub async fn close(&self) {
        self.0.places.close();
        let idle = std::mem::take(&mut *self.0.idle());
        let _ = tokio::task::spawn_blocking(move || idle.into_iter().for_each(|reader| reader.conn.close()))
            .await;
    }
}

impl Pool {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection in a transaction. One that broke while nobody used it is not the caller's trouble.
    fn begin(&self) -> Result<Reader> {
        loop {
            let idle = self.idle().pop();
            let Some(reader) = idle else {
                let reader = self.open()?;
                reader.conn.begin_read()?;
                return Ok(reader);
            };
            if self.is_worn(&reader) {
                reader.conn.close();
                continue;
            }
            match reader.conn.begin_read() {
                Ok(()) => return Ok(reader),
                Err(_) if reader.conn.fault() == Some(Fault::Broken) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn is_worn(&self, reader: &Reader) -> bool {
        let over =
            |limit: Option<Duration>, since: Instant| limit.is_some_and(|limit| since.elapsed() > limit);
        over(self.keep.lifetime, reader.opened) || over(self.keep.unused, reader.used)
    }

    fn open(&self) -> Result<Reader> {
        let conn = match &self.source {
            Source::File(target) => open_file(target).map_err(error::sqlite)?,
            Source::Server(server) => Conn::connect(server, Purpose::Read)?,
        };
        let now = Instant::now();
        Ok(Reader { conn, opened: now, used: now })
    }

    /// Keeps a connection unless it is stuck in a transaction or broken, or the pool is full or closed.
    fn put_back(&self, mut reader: Reader) {
        if !reader.conn.is_idle() || reader.conn.fault() == Some(Fault::Broken) {
            return;
        }
        reader.used = Instant::now();
        let mut idle = self.idle();
        let worn: Vec<Reader> = idle.extract_if(.., |reader| self.is_worn(reader)).collect();
        let mut left = worn;
        if self.places.is_closed() || idle.len() >= self.keep.idle {
            left.push(reader);
        } else {
            idle.push(reader);
        }
        drop(idle);
        for reader in left {
            reader.conn.close();
        }
    }
}

fn open_file(target: &Target) -> rusqlite::Result<Conn> {
    let conn = Conn::open(target)?;
    // KiB. What is hot stays in the kernel's cache anyway.
    conn.pragma("cache_size", "-1024")?;
    conn.pragma("query_only", "ON")?;
    Ok(conn)
}
