//! A backup of any engine restores onto any other, and nothing that is not one whole backup is restored.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test: panicking is how it fails"
)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use steeple_databases::{Database, Engine};
use steeple_datastore::conformance::fixtures;
use steeple_datastore::{Datastore, EntryFilter, Revision};
use steeple_datastore_sql::{BackupError, BackupSummary, DatabaseConfig, Restored, backup, restore};
use support::{config, on_blocking_thread, open, sqlite};
use tempfile::TempDir;

/// 2026-11-23 20:00 UTC.
const NOW: i64 = 1_795_464_000;

fn take(config: &DatabaseConfig) -> (Vec<u8>, BackupSummary) {
    let mut file = Vec::new();
    let summary = backup(config, NOW, &mut file, &mut |_, _| ()).unwrap();
    (file, summary)
}

fn put(config: &DatabaseConfig, file: &[u8], force: bool) -> Result<Restored, BackupError> {
    restore(config, &mut &file[..], force, &mut |_, _| ())
}

/// Rows of each table, without the header, and without what follows the table's rows. Times to the nearest second.
fn rows(file: &[u8], whole_seconds: bool) -> BTreeMap<String, Vec<serde_json::Value>> {
    let mut tables: BTreeMap<String, Vec<serde_json::Value>> = BTreeMap::new();
    let mut table = String::new();
    for line in std::str::from_utf8(file).unwrap().lines() {
        let mut json: serde_json::Value = serde_json::from_str(line).unwrap();
        if let Some(name) = json.get("table") {
            name.as_str().unwrap().clone_into(&mut table);
            tables.entry(table.clone()).or_default();
        } else if let Some(row) = json.as_array_mut() {
            for value in row.iter_mut().filter(|_| whole_seconds) {
                if let Some(time) = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()) {
                    *value = time.round(jiff::Unit::Second).unwrap().to_string().into();
                }
            }
            tables.get_mut(&table).unwrap().push(json);
        }
    }
    tables
}

fn spire_sqlite(dir: &TempDir) -> DatabaseConfig {
    let path = dir.path().join("spire.sqlite3");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/spire-v25.sqlite3"), &path).unwrap();
    sqlite(&path)
}

/// SPIRE's database through every engine and back.
#[tokio::test]
async fn every_row_survives_the_round_trip() {
    on_blocking_thread(|| {
        let dir = TempDir::new().unwrap();
        let (first, summary) = take(&spire_sqlite(&dir));
        assert_eq!(summary.rows["registered_entries"], 303);
        assert_eq!(summary.header.schema_version, 25);
        // SPIRE keeps no revisions.
        assert_eq!((summary.header.log_id.as_str(), summary.header.revision), ("", 0));
        let mut file = first.clone();
        for engine in [Engine::Postgres, Engine::MariaDb, Engine::MySql] {
            let database = Database::new(engine).unwrap();
            let config = config(&database);
            let restored = put(&config, &file, false).unwrap();
            assert!(restored.revision > 0 && !restored.log_id.is_empty());
            assert_eq!(restored.summary.rows, summary.rows);
            let (again, of) = take(&config);
            assert_eq!(of.header.engine, engine.database_type());
            assert_eq!(of.header.log_id, restored.log_id);
            assert_eq!(rows(&again, true), rows(&first, true), "{engine}");
            file = again;
        }
        let last = sqlite(&dir.path().join("last.sqlite3"));
        put(&last, &file, false).unwrap();
        assert_eq!(rows(&take(&last).0, true), rows(&first, true));

        // SQLite loses nothing of SQLite's, PostgreSQL what is below a microsecond.
        let copy = sqlite(&dir.path().join("copy.sqlite3"));
        put(&copy, &first, false).unwrap();
        assert_eq!(rows(&take(&copy).0, false), rows(&first, false));
    })
    .await;
}

/// The ids that a table gave out are not given out again, on any engine.
#[tokio::test]
async fn a_restored_database_goes_on() {
    for engine in Engine::ALL {
        let dir = TempDir::new().unwrap();
        let database = Database::new(engine).unwrap();
        let config = config(&database);
        let file = {
            let source = sqlite(&dir.path().join("ours.sqlite3"));
            let store = open(&source).await;
            for name in ["one", "two", "three"] {
                let entry = fixtures::entry(name, &format!("/{name}"), "/node", &["unix:uid:1"]);
                assert!(store.create_entries(vec![entry], fixtures::NOW).await.unwrap()[0].is_ok());
            }
            store.delete_entry("three").await.unwrap();
            store.close().await;
            on_blocking_thread(move || take(&source).0).await
        };
        let restored = {
            let (config, file) = (config.clone(), file.clone());
            on_blocking_thread(move || put(&config, &file, false).unwrap()).await
        };
        assert_eq!(restored.summary.header.revision, 4, "{engine}");
        assert!(restored.revision > 4, "{engine}");
        let store = open(&config).await;
        let snapshot = store.snapshot().await.unwrap();
        assert_eq!(snapshot.log_id, restored.log_id, "{engine}: one more log");
        assert_eq!(snapshot.revision, Revision(restored.revision), "{engine}");
        assert_eq!(snapshot.entries.len(), 2);
        // Who followed the old log cannot go on with the new one.
        assert!(store.changes_since(Revision(4), 10).await.is_err());
        let entry = fixtures::entry("four", "/four", "/node", &["unix:uid:1"]);
        assert!(store.create_entries(vec![entry], fixtures::NOW).await.unwrap()[0].is_ok(), "{engine}");
        assert_eq!(store.count_entries(&EntryFilter::default()).await.unwrap(), 3);
        assert_eq!(store.changes_since(Revision(restored.revision), 10).await.unwrap().len(), 1);
        store.close().await;
        let again = on_blocking_thread(move || rows(&take(&config).0, false)).await;
        let newest = again["registered_entries"].last().unwrap()[0].as_i64().unwrap();
        assert!(newest >= 3, "{engine}: id {newest} of a later entry");
    }
}

#[tokio::test]
async fn what_is_there_is_only_replaced_on_demand() {
    for engine in Engine::ALL {
        let dir = TempDir::new().unwrap();
        let database = Database::new(engine).unwrap();
        let config = config(&database);
        let store = open(&config).await;
        let entry = fixtures::entry("mine", "/mine", "/node", &["unix:uid:1"]);
        assert!(store.create_entries(vec![entry], fixtures::NOW).await.unwrap()[0].is_ok());
        let before = store.snapshot().await.unwrap();
        store.close().await;
        let (one, source) = (config.clone(), spire_sqlite(&dir));
        on_blocking_thread(move || {
            let file = take(&source).0;
            let refusal = put(&one, &file, false).unwrap_err().to_string();
            assert!(
                refusal.contains("registered_entries has 1 rows") && refusal.contains("-force"),
                "{refusal}"
            );
            // A file that turns out to be bad at its very end.
            let cut = file[..file.len() - 10].to_vec();
            let refusal = put(&one, &cut, true).unwrap_err();
            assert!(matches!(refusal, BackupError::Truncated), "{refusal}");
            let mut changed = String::from_utf8(file.clone()).unwrap();
            changed = changed.replacen("unix", "unit", 1);
            let refusal = put(&one, changed.as_bytes(), true).unwrap_err().to_string();
            assert!(refusal.contains("SHA-256"), "{refusal}");
        })
        .await;
        let store = open(&config).await;
        let after = store.snapshot().await.unwrap();
        assert_eq!((after.log_id, after.revision), (before.log_id.clone(), before.revision), "{engine}");
        assert_eq!(after.entries, before.entries, "{engine}");
        store.close().await;

        let (one, source) = (config.clone(), spire_sqlite(&dir));
        on_blocking_thread(move || put(&one, &take(&source).0, true).unwrap()).await;
        let store = open(&config).await;
        let replaced = store.snapshot().await.unwrap();
        assert_eq!(replaced.entries.len(), 303, "{engine}");
        assert_ne!(replaced.log_id, before.log_id);
        store.close().await;
    }
}

/// A running server is in the way of a restore, not of a backup.
#[tokio::test]
async fn a_server_that_runs() {
    for engine in Engine::ALL {
        let database = Database::new(engine).unwrap();
        let config = config(&database);
        let store = open(&config).await;
        let entry = fixtures::entry("mine", "/mine", "/node", &["unix:uid:1"]);
        assert!(store.create_entries(vec![entry], fixtures::NOW).await.unwrap()[0].is_ok());
        let one = config.clone();
        let refusal = on_blocking_thread(move || {
            let (file, summary) = take(&one);
            assert_eq!(summary.header.revision, 1);
            put(&one, &file, true).unwrap_err().to_string()
        })
        .await;
        assert!(
            refusal.contains("is in use") && refusal.contains("stop every server"),
            "{engine}: {refusal}"
        );
        assert_eq!(store.count_entries(&EntryFilter::default()).await.unwrap(), 1);
        store.close().await;
    }
}

#[tokio::test]
async fn what_is_no_database_is_not_made_one() {
    on_blocking_thread(|| {
        let dir = TempDir::new().unwrap();
        let missing = dir.path().join("typo.sqlite3");
        let refusal = backup(&sqlite(&missing), NOW, &mut Vec::new(), &mut |_, _| ()).unwrap_err().to_string();
        assert!(refusal.contains("typo.sqlite3"), "{refusal}");
        assert!(!missing.exists());
        let target = dir.path().join("target.sqlite3");
        let refusal = put(&sqlite(&target), b"no backup\n", false).unwrap_err().to_string();
        assert!(refusal.contains("not a backup"), "{refusal}");
        assert!(!target.exists());
        let refusal = put(
            &sqlite(&target),
            b"{\"steeple_backup\":1,\"schema_version\":26,\"code_version\":\"\",\"engine\":\"\",\"log_id\":\"\",\
              \"revision\":0,\"created_at\":\"\"}\n",
            false,
        );
        assert!(refusal.unwrap_err().to_string().contains("schema version 26"));
        let empty = Database::new(Engine::Postgres).unwrap();
        let refusal = backup(&config(&empty), NOW, &mut Vec::new(), &mut |_, _| ()).unwrap_err().to_string();
        assert!(refusal.contains("no SPIRE database"), "{refusal}");
    })
    .await;
}
