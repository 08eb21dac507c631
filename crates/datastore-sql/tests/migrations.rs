//! Schema versions 23 and 24 become 25 as a SPIRE server would make them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: panicking is how it fails")]

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use steeple_datastore::{AgentFilter, AgentUpdate, Datastore, EntryFilter, PageRequest};
use steeple_datastore_sql::{SqlStore, SqliteConfig};
use tempfile::TempDir;

/// SPIRE's database of version 25, made what it was in an older version.
fn older(dir: &TempDir, version: i64, code_version: &str) -> PathBuf {
    let path = dir.path().join(format!("v{version}.sqlite3"));
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/spire-v25.sqlite3"), &path).unwrap();
    let db = Connection::open(&path).unwrap();
    if version < 25 {
        db.execute_batch("ALTER TABLE registered_entries DROP COLUMN additional_attributes").unwrap();
    }
    if version < 24 {
        db.execute_batch("ALTER TABLE attested_node_entries DROP COLUMN agent_version").unwrap();
    }
    db.execute("UPDATE migrations SET version = ?, code_version = ?", (version, code_version)).unwrap();
    path
}

fn config(path: &Path) -> SqliteConfig {
    SqliteConfig::new(path.to_str().unwrap())
}

fn columns(path: &Path, table: &str) -> Vec<(String, String)> {
    let db = Connection::open(path).unwrap();
    let mut rows = db.prepare("SELECT name, type FROM pragma_table_info(?)").unwrap();
    rows.query_map([table], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
}

fn version(path: &Path) -> (i64, String) {
    let db = Connection::open(path).unwrap();
    db.query_row("SELECT version, code_version FROM migrations", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
}

#[tokio::test]
async fn older_schemas_are_migrated() {
    for from in [23, 24] {
        let dir = TempDir::new().unwrap();
        let path = older(&dir, from, "1.15.3");
        let reference = older(&dir, 25, "1.16.0");
        let store = SqlStore::open_sqlite(&config(&path)).unwrap();
        let all = PageRequest::default();
        assert_eq!(store.list_entries(&EntryFilter::default(), &all).await.unwrap().items.len(), 303);
        let agents = store.list_agents(&AgentFilter::default(), &all).await.unwrap().items;
        assert_eq!(agents[0].agent_version, if from == 23 { "" } else { "1.16.0-dev-unk" });
        // The new columns take values.
        let update = AgentUpdate { agent_version: Some("9.9.9".into()), ..Default::default() };
        let updated = store.update_agent(&agents[0].id, update, 1_795_444_240).await.unwrap().unwrap();
        assert_eq!(updated.agent_version, "9.9.9");
        store.close().await;
        for table in ["registered_entries", "attested_node_entries"] {
            assert_eq!(columns(&path, table), columns(&reference, table));
        }
        let (version, code_version) = version(&path);
        assert_eq!(version, 25);
        assert!(code_version.starts_with("1.16.0+steeple."), "{code_version}");
    }
}

/// The engine's DDL may outlive a crash that the version row does not.
#[tokio::test]
async fn a_migration_that_was_cut_short_is_finished() {
    let dir = TempDir::new().unwrap();
    let path = older(&dir, 24, "1.15.3");
    let db = Connection::open(&path).unwrap();
    db.execute_batch("UPDATE migrations SET version = 23").unwrap();
    drop(db);
    SqlStore::open_sqlite(&config(&path)).unwrap().close().await;
    assert_eq!(version(&path).0, 25);
}

#[tokio::test]
async fn disable_migration_leaves_the_tables_alone() {
    let dir = TempDir::new().unwrap();
    let path = older(&dir, 23, "1.15.3");
    let before = columns(&path, "registered_entries");
    let disabled = SqliteConfig { disable_migration: true, ..config(&path) };
    let refusal = SqlStore::open_sqlite(&disabled).unwrap_err().to_string();
    assert!(refusal.contains("start one server without disable_migration"), "{refusal}");
    assert_eq!(columns(&path, "registered_entries"), before);
    assert_eq!(version(&path), (23, "1.15.3".to_owned()));

    let path = older(&dir, 25, "1.15.3");
    let disabled = SqliteConfig { disable_migration: true, ..config(&path) };
    SqlStore::open_sqlite(&disabled).unwrap().close().await;
    assert!(version(&path).1.starts_with("1.16.0+steeple."));
}

/// As in the middle of an upgrade of several servers.
#[tokio::test]
async fn a_schema_of_the_next_release_is_served() {
    let dir = TempDir::new().unwrap();
    let path = older(&dir, 25, "1.17.0");
    Connection::open(&path).unwrap().execute_batch("UPDATE migrations SET version = 26").unwrap();
    let store = SqlStore::open_sqlite(&config(&path)).unwrap();
    assert_eq!(store.count_entries(&EntryFilter::default()).await.unwrap(), 303);
    store.close().await;
    assert_eq!(version(&path), (26, "1.17.0".to_owned()));
}
