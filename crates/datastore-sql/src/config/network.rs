//! SPIRE's `connection_string` for `postgres` and `mysql`: those of the Go drivers SPIRE uses.

mod mysql;
mod postgres;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::error::OpenError;

/// A database server's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    Postgres,
    /// MySQL or MariaDB.
    MySql,
}

impl ServerKind {
    /// SPIRE's `database_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
        }
    }
}

/// How to reach a database server. Its strings may hold passwords.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkConfig {
    pub kind: ServerKind,
    pub connection_string: String,
    /// A replica, for lists and counts.
    pub ro_connection_string: Option<String>,
    pub root_ca_path: Option<PathBuf>,
    pub client_cert_path: Option<PathBuf>,
    pub client_key_path: Option<PathBuf>,
    /// Connections at most, `None` for SPIRE's 100, of which no more are opened than are used.
    pub max_open_conns: Option<u32>,
    /// Connections that are kept while nobody uses them.
    pub max_idle_conns: Option<u32>,
    /// How long one connection is used.
    pub conn_max_lifetime: Option<Duration>,
    /// A database of an older schema is refused, not migrated.
    pub disable_migration: bool,
    /// How often others' writes are looked for while nothing happens.
    pub poll: Duration,
}

impl NetworkConfig {
    pub fn new(kind: ServerKind, connection_string: impl Into<String>) -> Self {
        Self {
            kind,
            connection_string: connection_string.into(),
            ro_connection_string: None,
            root_ca_path: None,
            client_cert_path: None,
            client_key_path: None,
            max_open_conns: None,
            max_idle_conns: None,
            conn_max_lifetime: None,
            disable_migration: false,
            // PostgreSQL tells of our servers' writes, and the look is for SPIRE's. On MySQL it is for both, and there are more
            // looks while something happens.
            poll: Duration::from_millis(2500),
        }
    }

    /// Whether the strings and files are good, without connecting.
    ///
    /// # Errors
    /// Names what is wrong, as SPIRE does where it looks at the same.
    pub fn check(&self) -> Result<(), OpenError> {
        self.primary()?;
        self.replica().map(drop)
    }

    pub(crate) fn primary(&self) -> Result<Server, OpenError> {
        self.server(&self.connection_string)
    }

    pub(crate) fn replica(&self) -> Result<Option<Server>, OpenError> {
        let text = self.ro_connection_string.as_deref().filter(|text| !text.is_empty());
        text.map(|text| self.server(text)).transpose()
    }

    fn server(&self, text: &str) -> Result<Server, OpenError> {
        if text.is_empty() {
            return Err(OpenError::NoConnectionString);
        }
        match self.kind {
            // SPIRE's TLS paths are for MySQL; PostgreSQL's are in the connection string.
            ServerKind::Postgres => postgres::parse(text),
            ServerKind::MySql => mysql::parse(text, self),
        }
    }
}

impl fmt::Debug for NetworkConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkConfig").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// A connection string, understood.
#[derive(Clone)]
pub(crate) enum Server {
    Postgres {
        /// In the order to try.
        hosts: Vec<PgConnectOptions>,
        /// How long connecting to one may take.
        patience: Duration,
    },
    MySql {
        options: Box<MySqlConnectOptions>,
        patience: Duration,
        /// If the server does not let us in without TLS, try with it.
        or_tls: bool,
    },
}

impl Server {
    /// Where it is, for messages: no password.
    pub fn place(&self) -> String {
        match self {
            Self::Postgres { hosts, .. } => {
                let places: Vec<String> =
                    hosts.iter().map(|host| format!("{}:{}", host.get_host(), host.get_port())).collect();
                format!("postgres {}", places.join(","))
            }
            Self::MySql { options, .. } => match options.get_socket() {
                Some(socket) => format!("mysql {}", socket.display()),
                None => format!("mysql {}:{}", options.get_host(), options.get_port()),
            },
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

fn wrong(text: impl Into<String>) -> OpenError {
    OpenError::ConnectionString(text.into())
}

/// `%41` and, in a query, `+`.
fn unescape(text: &str, plus: bool) -> Result<String, OpenError> {
    let bad = || wrong("connection_string has an invalid URL escape");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().ok_or_else(bad)?, rest.next().ok_or_else(bad)?];
                let digits = std::str::from_utf8(&digits).map_err(|_| bad())?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
            }
            b'+' if plus => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests;
