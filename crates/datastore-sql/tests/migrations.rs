//! Schema versions 23 and 24 become 25 as a SPIRE server would make them, on each engine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test: panicking is how it fails")]

mod support;

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use steeple_databases::{Database, Engine};
use steeple_datastore::conformance::fixtures::{self, NOW};
use steeple_datastore::model::AdditionalAttributes;
use steeple_datastore::{AgentFilter, AgentUpdate, Datastore, EntryFilter, EntryMask, PageRequest};
use steeple_datastore_sql::{DatabaseConfig, NetworkConfig, SqlStore, SqliteConfig};
use support::{open, try_open};
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

/// A database on a server with an entry and an agent, made what it was in an older version, before any server of ours saw it.
async fn older_on_server(engine: Engine, version: i64) -> Database {
    let database = Database::new(engine).unwrap();
    let store = open(&support::config(&database)).await;
    let entry = fixtures::entry("kept", "/kept", "/node", &["unix:uid:1"]);
    store.create_entries(vec![entry], NOW).await.unwrap().remove(0).unwrap();
    store.put_agent(fixtures::agent("/node", "join_token"), NOW).await.unwrap();
    store.close().await;
    let ours = match engine {
        Engine::Postgres => "SELECT tablename FROM pg_tables WHERE tablename LIKE 'steeple%'",
        _ => {
            "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'steeple%'"
        }
    };
    for table in database.query(ours).unwrap().lines() {
        database.query(&format!("DROP TABLE {table}")).unwrap();
    }
    let drop = match engine {
        Engine::Postgres => "DROP INDEX steeple_registered_entries_identity",
        _ => "DROP INDEX steeple_registered_entries_identity ON registered_entries",
    };
    database.query(drop).unwrap();
    if version < 25 {
        database.query("ALTER TABLE registered_entries DROP COLUMN additional_attributes").unwrap();
    }
    if version < 24 {
        database.query("ALTER TABLE attested_node_entries DROP COLUMN agent_version").unwrap();
    }
    set_version(&database, version);
    database
}

fn set_version(database: &Database, version: i64) {
    database.query(&format!("UPDATE migrations SET version = {version}, code_version = '1.15.3'")).unwrap();
}

fn version_on_server(database: &Database) -> String {
    database.query("SELECT version, code_version FROM migrations").unwrap().replace('\t', "|")
}

fn columns_on_server(database: &Database) -> String {
    let schema = if database.engine() == Engine::Postgres { "current_schema()" } else { "DATABASE()" };
    let sql = format!(
        "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default \
         FROM information_schema.columns WHERE table_schema = {schema} \
         AND table_name IN ('registered_entries', 'attested_node_entries') ORDER BY 1, 2"
    );
    database.query(&sql).unwrap()
}

/// Whether everything is there, and the new columns take values.
async fn check_migrated(database: &Database, store: &SqlStore, agent_version: &str) {
    let engine = database.engine();
    let mut entry = store.fetch_entry("kept").await.unwrap().unwrap();
    assert_eq!(entry.additional, None, "{engine}");
    let attributes = AdditionalAttributes { jwt_svid_include_jti: true, ..Default::default() };
    entry.additional = Some(attributes);
    let updated = store.update_entry(entry, EntryMask::ALL, NOW).await.unwrap().unwrap();
    assert_eq!(updated.additional, Some(attributes), "{engine}");
    let agents = store.list_agents(&AgentFilter::default(), &PageRequest::default()).await.unwrap().items;
    assert_eq!(agents[0].agent_version, agent_version, "{engine}");
    let update = AgentUpdate { agent_version: Some("9.9.9".into()), ..Default::default() };
    let updated = store.update_agent(&agents[0].id, update, NOW).await.unwrap().unwrap();
    assert_eq!(updated.agent_version, "9.9.9", "{engine}");
    assert!(version_on_server(database).starts_with("25|1.16.0+steeple."), "{engine}");
}

#[tokio::test]
async fn older_schemas_are_migrated_on_servers() {
    for engine in Engine::SERVERS {
        let reference = columns_on_server(&older_on_server(engine, 25).await);
        for from in [23, 24] {
            let database = older_on_server(engine, from).await;
            assert_ne!(columns_on_server(&database), reference, "{engine}");
            let store = open(&support::config(&database)).await;
            check_migrated(&database, &store, if from == 23 { "" } else { "1.0.0" }).await;
            store.close().await;
            assert_eq!(columns_on_server(&database), reference, "{engine}");
        }
    }
}

/// MySQL's DDL is done whatever happens to the version row.
#[tokio::test]
async fn migrations_on_servers_are_finished_refused_and_done_once() {
    for engine in Engine::SERVERS {
        let database = older_on_server(engine, 24).await;
        set_version(&database, 23);
        let config = support::config(&database);
        let disabled = match config.clone() {
            DatabaseConfig::Network(config) => {
                DatabaseConfig::Network(NetworkConfig { disable_migration: true, ..config })
            }
            other @ DatabaseConfig::Sqlite(_) => other,
        };
        let before = columns_on_server(&database);
        let refusal = try_open(&disabled).await.unwrap_err();
        assert!(refusal.contains("start one server without disable_migration"), "{engine}: {refusal}");
        assert_eq!(
            (columns_on_server(&database), version_on_server(&database).trim()),
            (before, "23|1.15.3")
        );

        // Servers that are started together: each finds it done, or does it.
        let (a, b, c) = tokio::join!(open(&config), open(&config), open(&config));
        check_migrated(&database, &b, "1.0.0").await;
        for store in [a, b, c] {
            store.close().await;
        }
        open(&disabled).await.close().await;
    }
}
