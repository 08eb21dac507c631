//! An empty database for one test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::engine::Engine;
use crate::server::{Server, run};

/// An empty database. It is dropped with its owner.
#[derive(Debug)]
pub struct Database {
    engine: Engine,
    name: String,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// SQLite's folder.
    Folder(TempDir),
    Shared(&'static Server),
    Own(Arc<Server>),
}

impl Database {
    /// On a server that this process shares; it must not be stopped.
    pub fn new(engine: Engine) -> Result<Self> {
        if engine == Engine::Sqlite {
            let folder = tempfile::Builder::new().prefix("steeple-sqlite-").tempdir_in("/tmp")?;
            return Ok(Self { engine, name: "datastore.sqlite3".into(), place: Place::Folder(folder) });
        }
        Self::create(Place::Shared(shared(engine)?))
    }

    /// On a server of its own, which may be stopped, killed and started.
    pub fn alone(engine: Engine) -> Result<Self> {
        if engine == Engine::Sqlite {
            return Self::new(engine);
        }
        Self::on(&Arc::new(Server::start_new(engine)?))
    }

    /// On this server.
    pub fn on(server: &Arc<Server>) -> Result<Self> {
        Self::create(Place::Own(server.clone()))
    }

    fn create(place: Place) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let server = match &place {
            Place::Shared(server) => *server,
            Place::Own(server) => server,
            Place::Folder(_) => bail!("SQLite has no server"),
        };
        let engine = server.engine();
        match engine {
            Engine::Postgres => {
                server.query("postgres", &format!("create database {name} owner {}", Server::USER))?;
            }
            _ => {
                server.query("", &format!("create database {name} character set utf8mb4"))?;
            }
        }
        Ok(Self { engine, name, place })
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The database's name on its server; SQLite's file name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What stops, kills, pauses and starts it; `None` for SQLite.
    pub fn server(&self) -> Option<&Server> {
        match &self.place {
            Place::Folder(_) => None,
            Place::Shared(server) => Some(server),
            Place::Own(server) => Some(server),
        }
    }

    /// The server that this database has for itself.
    pub fn own_server(&self) -> Result<&Arc<Server>> {
        match &self.place {
            Place::Own(server) => Ok(server),
            _ => bail!("{}: the server is shared: use Database::alone", self.engine),
        }
    }

    /// SPIRE's `connection_string`, without TLS.
    pub fn connection_string(&self) -> String {
        self.connection_string_at(self.server().map_or(0, Server::port))
    }

    /// The same through another port of loopback: a proxy, a standby.
    pub fn connection_string_at(&self, port: u16) -> String {
        let (name, user, password) = (&self.name, Server::USER, Server::PASSWORD);
        match self.engine {
            Engine::Sqlite => self.sqlite_file().unwrap_or_default().display().to_string(),
            Engine::Postgres => {
                format!(
                    "host=127.0.0.1 port={port} dbname={name} user={user} password={password} sslmode=disable"
                )
            }
            Engine::MariaDb | Engine::MySql => {
                format!("{user}:{password}@tcp(127.0.0.1:{port})/{name}?parseTime=true")
            }
        }
    }

    /// SPIRE's `DataStore "sql"` block, with more keys of `plugin_data` if wanted.
    pub fn plugin(&self, more: &str) -> String {
        self.block(&self.connection_string(), more)
    }

    /// The same with this connection string.
    pub fn plugin_at(&self, connection_string: &str) -> String {
        self.block(connection_string, "")
    }

    fn block(&self, connection_string: &str, more: &str) -> String {
        let kind = self.engine.database_type();
        format!(
            "DataStore \"sql\" {{ plugin_data {{ database_type = \"{kind}\" connection_string = \"{connection_string}\" {more} }} }}"
        )
    }

    /// SQLite's file.
    pub fn sqlite_file(&self) -> Option<PathBuf> {
        match &self.place {
            Place::Folder(folder) => Some(folder.path().join(&self.name)),
            _ => None,
        }
    }

    /// Runs SQL on it as the server's administrator; rows as lines, columns separated by `|` (tab in MySQL).
    pub fn query(&self, sql: &str) -> Result<String> {
        if let Some(server) = self.server() {
            return server.query(&self.name, sql);
        }
        let file = self.sqlite_file().context("no file")?;
        run(Command::new("python3").args(["-c", SQLITE]).arg(file).arg(sql))
    }
}

/// Debian's Python carries SQLite.
const SQLITE: &str = "
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=10) as db:
    for row in db.execute(sys.argv[2]):
        print('|'.join('' if column is None else str(column) for column in row))
";

impl Drop for Database {
    fn drop(&mut self) {
        let Some(server) = self.server() else { return };
        // A server of its own goes with it.
        if matches!(self.place, Place::Shared(_)) {
            let force = if self.engine == Engine::Postgres { " with (force)" } else { "" };
            let place = if self.engine == Engine::Postgres { "postgres" } else { "" };
            server.query(place, &format!("drop database {}{force}", self.name)).ok();
        }
    }
}

/// One server of each engine for the process: the first test that asks starts it.
fn shared(engine: Engine) -> Result<&'static Server> {
    static POSTGRES: OnceLock<Result<Server, String>> = OnceLock::new();
    static MARIADB: OnceLock<Result<Server, String>> = OnceLock::new();
    static MYSQL: OnceLock<Result<Server, String>> = OnceLock::new();
    let slot = match engine {
        Engine::Sqlite => bail!("SQLite has no server"),
        Engine::Postgres => &POSTGRES,
        Engine::MariaDb => &MARIADB,
        Engine::MySql => &MYSQL,
    };
    let started = slot.get_or_init(|| Server::start_new(engine).map_err(|err| format!("{err:#}")));
    started.as_ref().map_err(|err| anyhow::anyhow!("{err}"))
}
