//! PostgreSQL's NOTIFY: each commit of a server tells the others its revision.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use steeple_datastore::{Result, Revision};
use tokio::sync::oneshot;

use crate::config::Server;
use crate::conn::{Conn, args};
use crate::writer::Log;

const CHANNEL: &str = "steeple";

const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// The pool tries as long to connect, at growing intervals up to a fifth of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells, at the commit of the transaction. Databases may hold several logs, in schemas of their own.
pub(crate) fn tell(conn: &Conn, log_id: &str, head: Revision) -> Result<()> {
    let text = format!("{log_id} {}", head.0);
    conn.first("SELECT pg_notify(?, ?)", &args![CHANNEL, &text], |_| Ok(())).map(drop)
}

/// A thread that listens until this is dropped.
pub(crate) struct Listener(#[allow(dead_code, reason = "its end is what tells")] oneshot::Sender<()>);

impl Listener {
    /// None where the engine has no such thing.
    pub fn start(server: &Server, log: Arc<Log>) -> std::io::Result<Option<Self>> {
        let Server::Postgres { hosts, .. } = server else { return Ok(None) };
        let hosts = hosts.clone();
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("datastore-listen".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = listen(&hosts, &log) => {}
                }
            });
        })?;
        Ok(Some(Self(stop)))
    }
}

/// Never returns.
async fn listen(hosts: &[PgConnectOptions], log: &Log) {
    let mut retry = FIRST_RETRY;
    loop {
        for host in hosts {
            // A standby refuses LISTEN.
            if listen_to(host, log).await.is_ok() {
                retry = FIRST_RETRY;
            }
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// Until the connection ends; the primary may be another host then. `Err`: it was not there at all.
async fn listen_to(host: &PgConnectOptions, log: &Log) -> std::result::Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(PATIENCE)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(host.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    // What was committed while nobody listened is told to nobody: it is looked up, from now on nothing is missed.
    let (id, head): (String, i64) =
        sqlx::query_as("SELECT log_id, head FROM steeple_meta").fetch_one(&mut listener).await?;
    log.listens(&id, Revision(head as u64));
    while let Ok(Some(notification)) = listener.try_recv().await {
        let (id, head) = notification.payload().split_once(' ').unwrap_or_default();
        if let Ok(head) = head.parse() {
            log.rise(id, Revision(head));
        }
    }
    Ok(())
}
