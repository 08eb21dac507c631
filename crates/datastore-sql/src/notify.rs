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

const RETRY: Duration = Duration::from_secs(1);

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

/// Never returns. What is missed meanwhile is seen by the writer's next look.
async fn listen(hosts: &[PgConnectOptions], log: &Log) {
    loop {
        for host in hosts {
            // A standby refuses LISTEN.
            let _ = listen_to(host, log).await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn listen_to(host: &PgConnectOptions, log: &Log) -> std::result::Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(Duration::from_secs(10))
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(host.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(CHANNEL).await?;
    // The end of the connection ends this: the primary may be another host then.
    while let Some(notification) = listener.try_recv().await? {
        let (id, head) = notification.payload().split_once(' ').unwrap_or_default();
        if let Ok(head) = head.parse() {
            log.rise(id, Revision(head));
        }
    }
    Ok(())
}
