//! Connections that read. Each read is one transaction on a blocking thread and sees one state of the database.

use std::sync::{Arc, Mutex, PoisonError};

use steeple_datastore::{Error, Result};
use tokio::sync::Semaphore;

use crate::config::Target;
use crate::conn::Conn;
use crate::error;

/// A few connections, opened when they are first needed.
#[derive(Clone)]
pub(crate) struct Readers(Arc<Pool>);

struct Pool {
    target: Target,
    idle: Mutex<Vec<Conn>>,
    places: Arc<Semaphore>,
}

impl Readers {
    pub fn new(target: Target, size: usize) -> Self {
        let places = Arc::new(Semaphore::new(size.max(1)));
        Self(Arc::new(Pool { target, idle: Mutex::new(Vec::new()), places }))
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
            let conn = pool.take()?;
            let result = in_transaction(&conn, op);
            pool.put_back(conn);
            result
        });
        work.await.map_err(|reason| Error::Internal(format!("read failed: {reason}")))?
    }

    /// Closes the connections; later reads fail, those that run go on.
    pub fn close(&self) {
        self.0.places.close();
        self.0.idle().clear();
    }
}

impl Pool {
    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Conn>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Result<Conn> {
        let idle = self.idle().pop();
        match idle {
            Some(conn) => Ok(conn),
            None => open(&self.target).map_err(error::sql),
        }
    }

    /// Keeps a connection unless it is stuck in a transaction or the pool is closed.
    fn put_back(&self, conn: Conn) {
        if conn.is_idle() && !self.places.is_closed() {
            self.idle().push(conn);
        }
    }
}

fn open(target: &Target) -> rusqlite::Result<Conn> {
    let conn = Conn::open(target)?;
    // KiB. What is hot stays in the kernel's cache anyway.
    conn.pragma("cache_size", "-1024")?;
    conn.pragma("query_only", "ON")?;
    Ok(conn)
}

fn in_transaction<T>(conn: &Conn, op: impl FnOnce(&Conn) -> Result<T>) -> Result<T> {
    conn.exec("BEGIN", &[])?;
    let result = op(conn);
    // Nothing was written; a failure here only costs the connection.
    let _ = conn.exec("ROLLBACK", &[]);
    result
}
