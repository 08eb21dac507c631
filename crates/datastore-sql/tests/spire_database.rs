//! A database that SPIRE made opens as it is, and one of ours is what SPIRE would have made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test: panicking is how it fails"
)]

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use steeple_datastore::conformance::fixtures;
use steeple_datastore::{Datastore, EntryFilter, Error, PageRequest, Revision};
use steeple_datastore_sql::{SqlStore, SqliteConfig};
use steeple_spiffe::{SpiffeId, TrustDomain};
use tempfile::TempDir;

/// Made by SPIRE 1.16.0-dev: 303 entries, one agent, two bundles, a CA journal, an unused join token.
fn spire_database(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("datastore.sqlite3");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/spire-v25.sqlite3");
    std::fs::copy(source, &path).unwrap();
    path
}

fn open(path: &Path) -> SqlStore {
    SqlStore::open_sqlite(&SqliteConfig::new(path.to_str().unwrap())).unwrap()
}

#[tokio::test]
async fn opens_and_serves() {
    let dir = TempDir::new().unwrap();
    let path = spire_database(&dir);
    let store = open(&path);
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!((snapshot.entries.len(), snapshot.agents.len(), snapshot.bundles.len()), (303, 1, 2));
    // What was there before the log is not in the log.
    assert_eq!(snapshot.revision, Revision(1));
    assert!(store.changes_since(Revision(0), 10).await.is_err());

    let entry = store.fetch_entry("w-000").await.unwrap().unwrap();
    assert_eq!(entry.spiffe_id.as_str(), "spiffe://example.org/ns/n0/sa/s0");
    assert_eq!(entry.dns_names, ["s0.example.org", "t0.example.org"]);
    assert_eq!(
        entry.selectors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["unix:uid:6000", "k8s:ns:n0"]
    );
    assert_eq!(entry.federates_with, [TrustDomain::new("other.org").unwrap()]);
    assert_eq!((entry.x509_svid_ttl, entry.jwt_svid_ttl), (1800, 120));
    // SPIRE's own command printed this for 14:30:48.638.
    assert_eq!(entry.created_at, 1_795_444_249);

    let agent = &snapshot.agents[0];
    assert_eq!(agent.attestation_type, "join_token");
    assert_eq!(agent.serial_number, "95269939334644827536182231351284049533");
    assert_eq!(agent.agent_version, "1.16.0-dev-unk");
    assert_eq!(agent.expires_at, 1_953_124_244);

    let own = store.fetch_bundle(&TrustDomain::new("example.org").unwrap()).await.unwrap().unwrap();
    assert_eq!(own.x509_authorities.len(), 1);
    assert!(!own.jwt_authorities.is_empty());
    assert_eq!(store.list_ca_journals().await.unwrap().len(), 1);
    let token = store.take_join_token("320c16ed-656b-4f1c-9ac1-c032b76f7b41").await.unwrap().unwrap();
    assert_eq!(token.expires_at, 2_110_804_249);
}

/// Every entry that SPIRE's command printed is served with the same values.
#[tokio::test]
async fn serves_what_spire_served() {
    let dir = TempDir::new().unwrap();
    let store = open(&spire_database(&dir));
    let printed: serde_json::Value =
        serde_json::from_str(include_str!("../testdata/spire-v25-entries.json")).unwrap();
    let printed = printed["entries"].as_array().unwrap();
    let id = |value: &serde_json::Value| {
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        SpiffeId::parse(&format!("spiffe://{}{}", text("trust_domain"), text("path"))).unwrap()
    };
    for expected in printed {
        let entry = store.fetch_entry(expected["id"].as_str().unwrap()).await.unwrap().unwrap();
        assert_eq!(entry.spiffe_id, id(&expected["spiffe_id"]));
        assert_eq!(entry.parent_id, id(&expected["parent_id"]));
        assert_eq!(entry.admin, expected["admin"].as_bool().unwrap());
        assert_eq!(entry.hint, expected["hint"].as_str().unwrap());
        assert_eq!(entry.created_at.to_string(), expected["created_at"].as_str().unwrap());
        assert_eq!(entry.x509_svid_ttl, expected["x509_svid_ttl"].as_i64().unwrap() as i32);
        assert_eq!(
            entry.dns_names,
            serde_json::from_value::<Vec<String>>(expected["dns_names"].clone()).unwrap()
        );
        let names: Vec<&str> = entry.federates_with.iter().map(TrustDomain::name).collect();
        assert_eq!(names, serde_json::from_value::<Vec<String>>(expected["federates_with"].clone()).unwrap());
        assert_eq!(entry.selectors.len(), expected["selectors"].as_array().unwrap().len());
    }
    for (downstream, count) in [(None, 303), (Some(false), 303), (Some(true), 1)] {
        let filter = EntryFilter { downstream, ..Default::default() };
        let listed = store.list_entries(&filter, &PageRequest::default()).await.unwrap();
        assert_eq!((listed.items.len(), store.count_entries(&filter).await.unwrap()), (count, count as u64));
    }
    assert_eq!(printed.len(), 303);
}

/// Table for table and index for index, to the letter.
#[tokio::test]
async fn ours_is_what_spire_makes() {
    let dir = TempDir::new().unwrap();
    let ours = dir.path().join("ours.sqlite3");
    drop(open(&ours));
    let theirs = spire_database(&dir);
    let schema = |path: &Path| -> Vec<(String, String)> {
        let db = Connection::open(path).unwrap();
        let mut rows = db
            .prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'steeple_%' ORDER BY name")
            .unwrap();
        rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(schema(&ours), schema(&theirs));
    let db = Connection::open(&ours).unwrap();
    let version: (i64, String) = db
        .query_row("SELECT version, code_version FROM migrations", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!(version.0, 25);
    assert!(version.1.starts_with("1.16.0+steeple."));
}

#[tokio::test]
async fn other_versions_are_refused() {
    let dir = TempDir::new().unwrap();
    let path = spire_database(&dir);
    for (version, advice) in [(22, "release by release"), (26, "newer release of this server")] {
        let db = Connection::open(&path).unwrap();
        db.execute("UPDATE migrations SET version = ?, code_version = '1.18.0'", [version]).unwrap();
        let error =
            SqlStore::open_sqlite(&SqliteConfig::new(path.to_str().unwrap())).unwrap_err().to_string();
        assert!(
            error.contains(&format!("schema version {version} (written by release 1.18.0), expected 25")),
            "{error}"
        );
        assert!(error.contains(advice), "{error}");
    }
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let dir = TempDir::new().unwrap();
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "this is no database, and it is long enough to be one").unwrap();
    let open = |path: &Path| {
        SqlStore::open_sqlite(&SqliteConfig::new(path.to_str().unwrap())).unwrap_err().to_string()
    };
    assert!(open(&text).contains("notes.txt\": file is not a database"), "{}", open(&text));
    let missing = dir.path().join("no/such/folder.db");
    assert!(open(&missing).contains("unable to open database file"), "{}", open(&missing));
    let alien = dir.path().join("alien.db");
    Connection::open(&alien).unwrap().execute_batch("CREATE TABLE bundles (x)").unwrap();
    assert!(open(&alien).contains("not a SPIRE database: it has table \"bundles\""), "{}", open(&alien));
}

/// A copy that is put back has another log: what agents saw after it was made is not what comes now.
#[tokio::test]
async fn a_restored_database_starts_a_new_log() {
    let dir = TempDir::new().unwrap();
    let (path, copy) = (dir.path().join("ours.sqlite3"), dir.path().join("copy.sqlite3"));
    let write = async |store: &SqlStore, name: &str| {
        let one = fixtures::entry(name, &format!("/{name}"), "/node", &["unix:uid:1"]);
        assert!(store.create_entries(vec![one], fixtures::NOW).await.unwrap()[0].is_ok());
    };
    let store = open(&path);
    write(&store, "kept").await;
    let log_id = store.snapshot().await.unwrap().log_id;
    store.close().await;
    std::fs::copy(&path, &copy).unwrap();

    // The same database again is the same log.
    let store = open(&path);
    assert_eq!(store.snapshot().await.unwrap().log_id, log_id);
    write(&store, "lost").await;
    write(&store, "lost-too").await;
    store.close().await;

    std::fs::copy(&copy, &path).unwrap();
    let store = open(&path);
    let restored = store.snapshot().await.unwrap();
    assert_eq!(restored.entries.len(), 1);
    assert_ne!(restored.log_id, log_id);
    assert_eq!(restored.revision, Revision(4));
    assert!(matches!(store.changes_since(Revision(3), 10).await, Err(Error::LogTruncated(4))));
    write(&store, "new").await;
    assert_eq!(store.changes_since(Revision(4), 10).await.unwrap().len(), 1);
    store.close().await;

    // On another machine, without the note.
    let elsewhere = open(&copy);
    assert_ne!(elsewhere.snapshot().await.unwrap().log_id, log_id);
}
