//! A connection to a database server. Calls block: each connection has a runtime of its own, driven by the thread that
//! calls, which is never a runtime's worker.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::mysql::{MySqlArguments, MySqlRow, MySqlSslMode};
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo};
use sqlx::{
    Arguments, AssertSqlSafe, ConnectOptions, Connection, Encode, Executor, MySqlConnection, PgConnection,
    Postgres, Type,
};
use tokio::runtime::Runtime;

use super::{Arg, Dialect};
use crate::config::Server;
use crate::time::Stamp;

/// A statement that takes longer is given up with its connection: nobody waits that long, and the server may be gone.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Write,
    Read,
}

pub(super) struct Network {
    /// `None` once closed.
    runtime: Option<Runtime>,
    link: Option<Link>,
    /// Statements in the engine's spelling.
    texts: HashMap<String, Arc<str>>,
}

enum Link {
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

/// Rows of an answer.
pub(super) enum Rows {
    Postgres(Vec<PgRow>),
    MySql(Vec<MySqlRow>),
}

impl Network {
    /// Connects; of several PostgreSQL servers, to the first that is no standby.
    pub fn connect(server: &Server, purpose: Purpose) -> Result<Self, sqlx::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut network = Self { runtime: Some(runtime), link: None, texts: HashMap::new() };
        network.link = Some(match server {
            Server::Postgres { hosts, patience } => {
                let mut last = None;
                let mut found = None;
                for options in hosts {
                    match network.wait(*patience, connect_postgres(options, hosts.len() > 1, purpose)) {
                        Ok(conn) => {
                            found = Some(conn);
                            break;
                        }
                        Err(error) => last = Some(error),
                    }
                }
                Link::Postgres(match found {
                    Some(conn) => conn,
                    None => return Err(last.unwrap_or(sqlx::Error::PoolClosed)),
                })
            }
            Server::MySql { options, patience, or_tls } => {
                let refused = |error: &sqlx::Error| {
                    *or_tls && !matches!(error, sqlx::Error::Database(_) | sqlx::Error::Io(_))
                };
                Link::MySql(match network.wait(*patience, options.connect()) {
                    Err(error) if refused(&error) => {
                        let options = options.clone().ssl_mode(MySqlSslMode::Required);
                        network.wait(*patience, options.connect()).map_err(|_| error)?
                    }
                    other => other?,
                })
            }
        });
        network.script(setup(network.dialect(), purpose))?;
        Ok(network)
    }

    pub fn dialect(&self) -> Dialect {
        match &self.link {
            Some(Link::MySql(_)) => Dialect::MySql,
            Some(Link::Postgres(_)) | None => Dialect::Postgres,
        }
    }

    fn wait<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let runtime = self.runtime.as_ref().ok_or(sqlx::Error::PoolClosed)?;
        wait(runtime, patience, work)
    }

    /// Statements without arguments, in the simple protocol: what begins and ends transactions cannot be prepared.
    pub fn script(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let runtime = self.runtime.as_ref().ok_or(sqlx::Error::PoolClosed)?;
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self.link.as_mut().ok_or(sqlx::Error::PoolClosed)? {
            Link::Postgres(conn) => wait(runtime, PATIENCE, conn.execute(sql)).map(drop),
            Link::MySql(conn) => wait(runtime, PATIENCE, conn.execute(sql)).map(drop),
        }
    }

    /// Rows changed, and the id of the row inserted last where the engine tells.
    pub fn exec(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<(u64, u64), sqlx::Error> {
        let text = self.text(sql);
        let runtime = self.runtime.as_ref().ok_or(sqlx::Error::PoolClosed)?;
        match self.link.as_mut().ok_or(sqlx::Error::PoolClosed)? {
            Link::Postgres(conn) => {
                let query = sqlx::query_with(AssertSqlSafe(text), postgres_args(args)?);
                let done = wait(runtime, PATIENCE, query.execute(conn))?;
                Ok((done.rows_affected(), 0))
            }
            Link::MySql(conn) => {
                let query = sqlx::query_with(AssertSqlSafe(text), mysql_args(args)?);
                let done = wait(runtime, PATIENCE, query.execute(conn))?;
                Ok((done.rows_affected(), done.last_insert_id()))
            }
        }
    }

    pub fn rows(&mut self, sql: &str, args: &[Arg<'_>]) -> Result<Rows, sqlx::Error> {
        let text = self.text(sql);
        let runtime = self.runtime.as_ref().ok_or(sqlx::Error::PoolClosed)?;
        match self.link.as_mut().ok_or(sqlx::Error::PoolClosed)? {
            Link::Postgres(conn) => {
                let query = sqlx::query_with(AssertSqlSafe(text), postgres_args(args)?);
                wait(runtime, PATIENCE, query.fetch_all(conn)).map(Rows::Postgres)
            }
            Link::MySql(conn) => {
                let query = sqlx::query_with(AssertSqlSafe(text), mysql_args(args)?);
                wait(runtime, PATIENCE, query.fetch_all(conn)).map(Rows::MySql)
            }
        }
    }

    /// Says goodbye to the server, which would log a connection that only breaks off.
    pub fn close(&mut self) {
        let (Some(runtime), Some(link)) = (self.runtime.as_ref(), self.link.take()) else { return };
        let patience = Duration::from_secs(1);
        let _ = match link {
            Link::Postgres(conn) => wait(runtime, patience, conn.close()),
            Link::MySql(conn) => wait(runtime, patience, conn.close()),
        };
    }

    fn text(&mut self, sql: &str) -> Arc<str> {
        if let Some(text) = self.texts.get(sql) {
            return Arc::clone(text);
        }
        let text: Arc<str> = self.dialect().translate(sql).into();
        // Statements with lists have many lengths.
        if self.texts.len() == 500 {
            self.texts.clear();
        }
        self.texts.insert(sql.to_owned(), Arc::clone(&text));
        text
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.link = None;
        if let Some(runtime) = self.runtime.take() {
            // A runtime that is dropped waits, which is not allowed everywhere.
            runtime.shutdown_background();
        }
    }
}

fn wait<T>(
    runtime: &Runtime,
    patience: Duration,
    work: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let late = |_| {
        let text = format!("the database did not answer within {} s", patience.as_secs());
        sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
    };
    runtime.block_on(async { tokio::time::timeout(patience, work).await.map_err(late)? })
}

async fn connect_postgres(
    options: &sqlx::postgres::PgConnectOptions,
    one_of_many: bool,
    purpose: Purpose,
) -> Result<PgConnection, sqlx::Error> {
    let mut conn = options.connect().await?;
    if one_of_many && purpose == Purpose::Write {
        let standby: bool = sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(&mut conn).await?;
        if standby {
            let text = format!("{}:{} is a standby", options.get_host(), options.get_port());
            return Err(sqlx::Error::Io(std::io::Error::other(text)));
        }
    }
    Ok(conn)
}

/// A server that freezes in a transaction must not hold its locks for ever, nor wait for ever for another's. MySQL has
/// no limit on idle transactions; there the whole connection ends, and the writer is never idle for so long.
fn setup(dialect: Dialect, purpose: Purpose) -> &'static str {
    match (dialect, purpose) {
        (Dialect::MySql, Purpose::Write) => {
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; \
             SET SESSION wait_timeout = 60, SESSION innodb_lock_wait_timeout = 30, \
             SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_TRANS_TABLES')"
        }
        (Dialect::MySql, Purpose::Read) => "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        // Plans are made anew each time: one that is kept from when a table was small reads all of it when it has grown.
        (_, Purpose::Write) => {
            "SET plan_cache_mode = force_custom_plan; SET idle_in_transaction_session_timeout = '30s'; SET lock_timeout = '30s'; SET synchronous_commit = on"
        }
        (_, Purpose::Read) => "SET default_transaction_read_only = on",
    }
}

fn postgres_args(args: &[Arg<'_>]) -> Result<PgArguments, sqlx::Error> {
    let mut all = PgArguments::default();
    for arg in args {
        match *arg {
            Arg::Null => all.add(Untyped),
            Arg::Int(value) => all.add(value),
            Arg::Flag(value) => all.add(value),
            Arg::Text(value) => all.add(value),
            Arg::Blob(value) => all.add(value),
            Arg::Time(value) => all.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(all)
}

fn mysql_args(args: &[Arg<'_>]) -> Result<MySqlArguments, sqlx::Error> {
    let mut all = MySqlArguments::default();
    for arg in args {
        match *arg {
            Arg::Null => all.add(None::<&str>),
            Arg::Int(value) => all.add(value),
            Arg::Flag(value) => all.add(value),
            Arg::Text(value) => all.add(value),
            Arg::Blob(value) => all.add(value),
            Arg::Time(value) => all.add(value.mysql_text()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(all)
}

/// A NULL whose type the server infers from where it stands.
struct Untyped;

impl Type<Postgres> for Untyped {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(0))
    }
}

impl Encode<'_, Postgres> for Untyped {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

impl Type<Postgres> for Stamp {
    fn type_info() -> PgTypeInfo {
        // timestamptz
        PgTypeInfo::with_oid(Oid(1184))
    }
}

impl Encode<'_, Postgres> for Stamp {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&self.postgres_micros().to_be_bytes());
        Ok(IsNull::No)
    }
}
