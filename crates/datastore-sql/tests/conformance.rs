//! The suite of the port, on a SQLite file and in memory.

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
