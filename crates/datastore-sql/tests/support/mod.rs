//! Databases of every engine for tests.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::path::Path;

use sqlx::Connection as _;
use steeple_databases::{Database, Engine};
use steeple_datastore_sql::{DatabaseConfig, NetworkConfig, ServerKind, SqlStore, SqliteConfig};

pub fn config(database: &Database) -> DatabaseConfig {
    if database.engine() == Engine::MySql {
        // MySQL 8.0.15's TLS is too old for us, and without TLS its default plugin wants RSA encryption.
        let (user, password) = (steeple_databases::Server::USER, steeple_databases::Server::PASSWORD);
        let native = format!("'{user}'@'127.0.0.1' IDENTIFIED WITH mysql_native_password BY '{password}'");
        database.query(&format!("ALTER USER {native}")).unwrap();
    }
    let kind = match database.engine() {
        Engine::Sqlite => return sqlite(&database.sqlite_file().unwrap()),
        Engine::Postgres => ServerKind::Postgres,
        Engine::MariaDb | Engine::MySql => ServerKind::MySql,
    };
    DatabaseConfig::Network(NetworkConfig::new(kind, database.connection_string()))
}

pub fn sqlite(path: &Path) -> DatabaseConfig {
    DatabaseConfig::Sqlite(SqliteConfig::new(path.to_str().unwrap()))
}

pub async fn open(config: &DatabaseConfig) -> SqlStore {
    try_open(config).await.unwrap()
}

pub async fn try_open(config: &DatabaseConfig) -> Result<SqlStore, String> {
    let config = config.clone();
    on_blocking_thread(move || SqlStore::open(&config).map_err(|error| error.to_string())).await
}

pub async fn on_blocking_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Another session on a server's database, with transactions of its own.
pub enum Session {
    Postgres(sqlx::PgConnection),
    MySql(sqlx::MySqlConnection),
}

impl Session {
    pub async fn open(database: &Database) -> Self {
        let port = database.server().unwrap().port();
        let (user, password) = (steeple_databases::Server::USER, steeple_databases::Server::PASSWORD);
        match database.engine() {
            Engine::Sqlite => panic!("SQLite has no sessions"),
            Engine::Postgres => {
                let options = sqlx::postgres::PgConnectOptions::new_without_pgpass()
                    .host("127.0.0.1")
                    .port(port)
                    .username(user)
                    .password(password)
                    .database(database.name());
                Self::Postgres(sqlx::PgConnection::connect_with(&options).await.unwrap())
            }
            Engine::MariaDb | Engine::MySql => {
                let options = sqlx::mysql::MySqlConnectOptions::new()
                    .ssl_mode(sqlx::mysql::MySqlSslMode::Disabled)
                    .host("127.0.0.1")
                    .port(port)
                    .username(user)
                    .password(password)
                    .database(database.name());
                Self::MySql(sqlx::MySqlConnection::connect_with(&options).await.unwrap())
            }
        }
    }

    pub async fn run(&mut self, sql: &str) -> Result<(), String> {
        let sql = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Postgres(conn) => sql.execute(conn).await.map(drop),
            Self::MySql(conn) => sql.execute(conn).await.map(drop),
        }
        .map_err(|error| error.to_string())
    }
}
