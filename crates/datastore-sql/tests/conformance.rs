//! The suite of the port, on a SQLite file and in memory, and on real database servers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test: panicking is how it fails"
)]

mod file {
    use steeple_datastore::conformance::Fresh;
    use steeple_datastore_sql::{SqlStore, SqliteConfig};

    fn fresh() -> Fresh {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("datastore.sqlite3");
        // What is tested is the same without the syncs, and they would take most of the time.
        let config = SqliteConfig::new(format!("{}?_synchronous=NORMAL", path.to_str().unwrap()));
        Fresh::new(SqlStore::open_sqlite(&config).unwrap(), dir)
    }

    steeple_datastore::conformance!(crate::file::fresh);
}

mod memory {
    use steeple_datastore::conformance::Fresh;
    use steeple_datastore_sql::{SqlStore, SqliteConfig};

    fn fresh() -> Fresh {
        Fresh::new(SqlStore::open_sqlite(&SqliteConfig::new(":memory:")).unwrap(), ())
    }

    steeple_datastore::conformance!(crate::memory::fresh);
}

mod server {
    use steeple_databases::{Database, Engine, Server};
    use steeple_datastore::conformance::Fresh;
    use steeple_datastore_sql::{NetworkConfig, ServerKind, SqlStore};

    pub fn fresh(engine: Engine, kind: ServerKind) -> Fresh {
        let database = Database::new(engine).unwrap();
        if engine == Engine::MySql {
            // MySQL 8.0.15 has no TLS that we speak, and its newer passwords want that; later ones have it.
            for host in ["127.0.0.1", "localhost"] {
                let (user, password) = (Server::USER, Server::PASSWORD);
                let sql = format!(
                    "alter user '{user}'@'{host}' identified with mysql_native_password by '{password}'"
                );
                database.query(&sql).unwrap();
            }
        }
        let config = NetworkConfig::new(kind, database.connection_string());
        // Opening blocks, and tests run on a runtime.
        let store = std::thread::spawn(move || SqlStore::open_network(&config)).join().unwrap().unwrap();
        Fresh::new(store, database)
    }
}

mod postgres {
    fn fresh() -> steeple_datastore::conformance::Fresh {
        crate::server::fresh(steeple_databases::Engine::Postgres, steeple_datastore_sql::ServerKind::Postgres)
    }

    steeple_datastore::conformance!(crate::postgres::fresh);
}

mod mariadb {
    fn fresh() -> steeple_datastore::conformance::Fresh {
        crate::server::fresh(steeple_databases::Engine::MariaDb, steeple_datastore_sql::ServerKind::MySql)
    }

    steeple_datastore::conformance!(crate::mariadb::fresh);
}

mod mysql {
    fn fresh() -> steeple_datastore::conformance::Fresh {
        crate::server::fresh(steeple_databases::Engine::MySql, steeple_datastore_sql::ServerKind::MySql)
    }

    steeple_datastore::conformance!(crate::mysql::fresh);
}
