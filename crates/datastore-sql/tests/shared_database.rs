//! Several servers on one database: ours, and a SPIRE server, whose writes are played here row by row.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test: panicking is how it fails"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, params};
use steeple_datastore::conformance::Replica;
use steeple_datastore::conformance::fixtures::{NOW, agent, authority, bundle, entry, id, trust_domain};
use steeple_datastore::model::Entry;
use steeple_datastore::{Change, Datastore, EntryFilter, EntryMask, Error, PageRequest, Revision};
use steeple_datastore_sql::{SqlStore, SqliteConfig};
use tempfile::TempDir;

/// Longest wait for what another server wrote; the promise is 1 s for ours and 5 s for SPIRE's.
const SOON: Duration = Duration::from_secs(5);

fn open(path: &Path) -> SqlStore {
    let mut config = SqliteConfig::new(path.to_str().unwrap());
    config.poll = Duration::from_millis(5);
    SqlStore::open_sqlite(&config).unwrap()
}

fn scratch() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("datastore.sqlite3");
    (dir, path)
}

/// The log after `after`, once its head has risen past it.
async fn tail(store: &SqlStore, after: Revision) -> Vec<Change> {
    let mut watch = store.watch_head();
    tokio::time::timeout(SOON, watch.wait_for(|head| *head > after))
        .await
        .expect("not noticed in time")
        .unwrap();
    store.changes_since(after, 1000).await.unwrap().into_iter().map(|logged| logged.change).collect()
}

fn one(name: &str) -> Entry {
    entry(name, &format!("/{name}"), "/node", &["unix:uid:1", "k8s:ns:x"])
}

#[tokio::test]
async fn each_server_sees_the_others_writes() {
    let (_dir, path) = scratch();
    let (a, b) = (open(&path), open(&path));
    assert_eq!(a.snapshot().await.unwrap().log_id, b.snapshot().await.unwrap().log_id);
    a.create_entries(vec![one("from-a")], NOW).await.unwrap();
    assert_eq!(tail(&b, Revision(0)).await, [Change::EntrySet(Box::new(one("from-a")))]);
    b.create_entries(vec![one("from-b")], NOW).await.unwrap();
    assert_eq!(tail(&a, Revision(1)).await, [Change::EntrySet(Box::new(one("from-b")))]);
    b.set_bundle(bundle("other.org"), NOW).await.unwrap();
    assert_eq!(tail(&a, Revision(2)).await, [Change::bundle_set(&bundle("other.org"))]);
    assert!(a.delete_entry("from-b").await.unwrap());
    assert_eq!(tail(&b, Revision(3)).await, [Change::EntryGone { id: "from-b".into() }]);
    // Nobody logs anything twice.
    assert_eq!(a.head().await.unwrap(), Revision(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_write_at_once() {
    let (_dir, path) = scratch();
    let stores = [std::sync::Arc::new(open(&path)), std::sync::Arc::new(open(&path))];
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = stores[writer % 2].clone();
        writers.spawn(async move {
            for n in 0..20 {
                let results = store.create_entries(vec![one(&format!("w{writer}-{n}"))], NOW).await.unwrap();
                assert!(results[0].is_ok());
            }
        });
    }
    writers.join_all().await;
    for store in &stores {
        let mut replica = Replica::of(steeple_datastore::Snapshot::default());
        for logged in store.changes_since(Revision(0), 1000).await.unwrap() {
            replica.apply(logged);
        }
        assert_eq!(replica.revision, Revision(160));
        assert_eq!(replica, Replica::of(store.snapshot().await.unwrap()));
    }
}

/// One join token, two servers: one winner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_taken_once_across_servers() {
    let (_dir, path) = scratch();
    let stores = [std::sync::Arc::new(open(&path)), std::sync::Arc::new(open(&path))];
    let token = steeple_datastore::model::JoinToken { token: "t".into(), expires_at: NOW };
    stores[0].create_join_token(token, NOW).await.unwrap();
    let mut takers = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = stores[n % 2].clone();
        takers.spawn(async move { store.take_join_token("t").await.unwrap().is_some() });
    }
    assert_eq!(takers.join_all().await.into_iter().filter(|won| *won).count(), 1);
}

/// What a SPIRE server does to its tables.
struct Spire(Connection);

impl Spire {
    const NOW: &str = "2027-01-15 08:00:00.123456789+00:00";

    fn on(path: &Path) -> Self {
        let db = Connection::open(path).unwrap();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        Self(db)
    }

    fn event(&self, entry_id: &str) {
        let sql =
            "INSERT INTO registered_entries_events (created_at, updated_at, entry_id) VALUES (?1, ?1, ?2)";
        self.0.execute(sql, params![Self::NOW, entry_id]).unwrap();
    }

    fn create_entry(&self, name: &str) {
        self.0.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.0
            .execute(
                "INSERT INTO registered_entries (created_at, updated_at, entry_id, spiffe_id, parent_id, ttl, admin, \
                 downstream, expiry, revision_number, store_svid, hint, jwt_svid_ttl, additional_attributes) \
                 VALUES (?1, ?1, ?2, ?3, ?4, 0, 0, 0, 0, 0, 0, '', 0, NULL)",
                params![Self::NOW, name, id(&format!("/{name}")).as_str(), id("/node").as_str()],
            )
            .unwrap();
        let row = self.0.last_insert_rowid();
        for (kind, value) in [("unix", "uid:1"), ("k8s", "ns:x")] {
            let sql = "INSERT INTO selectors (created_at, updated_at, registered_entry_id, type, value) \
                       VALUES (?1, ?1, ?2, ?3, ?4)";
            self.0.execute(sql, params![Self::NOW, row, kind, value]).unwrap();
        }
        self.event(name);
        self.0.execute_batch("COMMIT").unwrap();
    }

    fn delete_entry(&self, name: &str) {
        self.0.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.0.execute("DELETE FROM registered_entries WHERE entry_id = ?", [name]).unwrap();
        self.event(name);
        self.0.execute_batch("COMMIT").unwrap();
    }

    fn ban(&self, agent: &str) {
        self.0.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.0
            .execute("UPDATE attested_node_entries SET serial_number = '' WHERE spiffe_id = ?", [agent])
            .unwrap();
        let sql = "INSERT INTO attested_node_entries_events (created_at, updated_at, spiffe_id) VALUES (?1, ?1, ?2)";
        self.0.execute(sql, params![Self::NOW, agent]).unwrap();
        self.0.execute_batch("COMMIT").unwrap();
    }
}

/// `created_at` of [`Spire::NOW`].
const SPIRE_CREATED: i64 = 1_800_000_000;

#[tokio::test]
async fn a_spire_servers_writes_are_followed() {
    let (_dir, path) = scratch();
    let store = open(&path);
    let spire = Spire::on(&path);
    spire.create_entry("s1");
    let expected = Entry { created_at: SPIRE_CREATED, ..one("s1") };
    assert_eq!(tail(&store, Revision(0)).await, [Change::EntrySet(Box::new(expected.clone()))]);
    assert_eq!(store.snapshot().await.unwrap().entries, [expected]);
    spire.delete_entry("s1");
    assert_eq!(tail(&store, Revision(1)).await, [Change::EntryGone { id: "s1".into() }]);

    store.put_agent(agent("/spire/agent/x", "join_token"), NOW).await.unwrap();
    let head = store.head().await.unwrap();
    spire.ban(id("/spire/agent/x").as_str());
    match &tail(&store, head).await[..] {
        [Change::AgentSet(agent)] => assert!(agent.is_banned()),
        other => panic!("{other:?}"),
    }

    // A bundle has no events: its row is compared.
    let mut changed = bundle("example.org");
    store.set_bundle(changed.clone(), NOW).await.unwrap();
    let head = store.head().await.unwrap();
    changed.x509_authorities.push(authority(1, NOW + 86_400));
    changed.sequence_number = 2;
    let blob = {
        // The blob as a store writes it.
        let (_dir, elsewhere) = scratch();
        let other = open(&elsewhere);
        other.set_bundle(changed.clone(), NOW).await.unwrap();
        let db = Connection::open(&elsewhere).unwrap();
        db.query_row("SELECT data FROM bundles", [], |row| row.get::<_, Vec<u8>>(0)).unwrap()
    };
    spire.0.execute("UPDATE bundles SET data = ?, updated_at = ?", params![blob, Spire::NOW]).unwrap();
    assert_eq!(tail(&store, head).await, [Change::bundle_set(&changed)]);
    assert_eq!(store.fetch_bundle(&trust_domain("example.org")).await.unwrap(), Some(changed));
}

/// Ours and SPIRE's writes in turn: the log has the order of the commits.
#[tokio::test]
async fn foreign_writes_come_before_our_next() {
    let (_dir, path) = scratch();
    let mut config = SqliteConfig::new(path.to_str().unwrap());
    // Never on its own: the look before each write must do.
    config.poll = Duration::from_hours(1);
    let store = SqlStore::open_sqlite(&config).unwrap();
    let spire = Spire::on(&path);
    spire.create_entry("s1");
    store.create_entries(vec![one("ours")], NOW).await.unwrap();
    spire.delete_entry("s1");
    spire.create_entry("s2");
    store.update_entry(one("ours"), EntryMask::ALL, NOW).await.unwrap().unwrap();
    let names: Vec<String> = tail(&store, Revision(0))
        .await
        .into_iter()
        .map(|change| match change {
            Change::EntrySet(entry) => format!("+{}", entry.id),
            Change::EntryGone { id } => format!("-{id}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["+s1", "+ours", "-s1", "+s2", "+ours"]);
    assert_eq!(*store.watch_head().borrow(), Revision(5));
    // A failed write of ours does not lose them either.
    spire.create_entry("s3");
    let taken = Entry { id: "ours".into(), ..one("taken") };
    assert!(store.create_entries(vec![taken], NOW).await.unwrap()[0].is_err());
    assert_eq!(store.head().await.unwrap(), Revision(6));
}

/// Ids are listed only while the log tells all that they stand for.
#[tokio::test]
async fn ids_are_not_listed_past_what_the_log_tells() {
    let (_dir, path) = scratch();
    let mut config = SqliteConfig::new(path.to_str().unwrap());
    config.poll = Duration::from_hours(1);
    let store = SqlStore::open_sqlite(&config).unwrap();
    let ids = async || {
        let listed = store.list_entry_ids(&EntryFilter::default(), &PageRequest::default()).await.unwrap();
        listed.map(|listed| (listed.page.items, listed.revision))
    };
    store.create_entries(vec![one("ours")], NOW).await.unwrap();
    assert_eq!(ids().await, Some((vec!["ours".to_owned()], Revision(1))));
    let spire = Spire::on(&path);
    spire.create_entry("s1");
    assert_eq!(ids().await, None);
    // Our next write tells the log of it.
    store.create_entries(vec![one("ours-too")], NOW).await.unwrap();
    assert_eq!(ids().await, Some((["ours", "s1", "ours-too"].map(str::to_owned).to_vec(), Revision(3))));
}

/// What SPIRE wrote while we were down is told at the next start.
#[tokio::test]
async fn writes_while_down_are_caught_up() {
    let (_dir, path) = scratch();
    let store = open(&path);
    store.create_entries(vec![one("ours")], NOW).await.unwrap();
    store.close().await;
    assert!(matches!(store.head().await, Err(Error::Unavailable(_))));
    let spire = Spire::on(&path);
    spire.create_entry("s1");
    spire.delete_entry("ours");
    let store = open(&path);
    let log = store.changes_since(Revision(1), 10).await.unwrap();
    assert_eq!(log.len(), 2);
    assert_eq!(log[1].change, Change::EntryGone { id: "ours".into() });
    assert_eq!(store.snapshot().await.unwrap().entries.len(), 1);
}

/// Where events do not tell all, followers must take a snapshot.
#[tokio::test]
async fn what_cannot_be_followed_restarts_the_log() {
    let (_dir, path) = scratch();
    let store = open(&path);
    store.create_bundle(bundle("other.org"), NOW).await.unwrap();
    let federated = Entry { federates_with: vec![trust_domain("other.org")], ..one("federated") };
    store.create_entries(vec![federated, one("ours")], NOW).await.unwrap();
    let spire = Spire::on(&path);
    // SPIRE deletes the entries of a bundle without events.
    spire
        .0
        .execute_batch(
            "BEGIN IMMEDIATE; DELETE FROM registered_entries WHERE entry_id = 'federated'; \
             DELETE FROM bundles; COMMIT",
        )
        .unwrap();
    let mut watch = store.watch_head();
    tokio::time::timeout(SOON, watch.wait_for(|head| *head > Revision(3))).await.unwrap().unwrap();
    assert!(matches!(store.changes_since(Revision(3), 10).await, Err(Error::LogTruncated(4))));
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!((snapshot.revision, snapshot.entries.len(), snapshot.bundles.len()), (Revision(4), 1, 0));
    assert!(store.changes_since(snapshot.revision, 10).await.unwrap().is_empty());

    // Events that were pruned before we saw them.
    store.close().await;
    spire.create_entry("s1");
    spire.create_entry("s2");
    spire.0.execute("DELETE FROM registered_entries_events WHERE entry_id = 's1'", []).unwrap();
    let store = open(&path);
    assert!(matches!(store.changes_since(Revision(4), 10).await, Err(Error::LogTruncated(_))));
    assert_eq!(store.snapshot().await.unwrap().entries.len(), 3);
}

/// SPIRE's events-based cache sees our writes, and is not made to keep them for ever.
#[tokio::test]
async fn our_writes_leave_events() {
    let (_dir, path) = scratch();
    let store = open(&path);
    store.create_entries(vec![one("a"), one("b")], NOW).await.unwrap();
    store.update_entry(one("a"), EntryMask::ALL, NOW).await.unwrap().unwrap();
    assert!(store.delete_entry("b").await.unwrap());
    store.put_agent(agent("/x", "join_token"), NOW).await.unwrap();
    store.delete_agent(&id("/x")).await.unwrap().unwrap();
    let spire = Spire::on(&path);
    let events = |sql: &str| -> Vec<String> {
        let mut statement = spire.0.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let entries = "SELECT entry_id FROM registered_entries_events ORDER BY id";
    let agents = "SELECT spiffe_id FROM attested_node_entries_events ORDER BY id";
    assert_eq!(events(entries), ["a", "b", "a", "b"]);
    assert_eq!(events(agents), [id("/x").as_str(), id("/x").as_str()]);
    spire
        .0
        .execute(
            "UPDATE registered_entries_events SET created_at = datetime(created_at, '-13 hours') || '+00:00' \
             WHERE id < 3",
            [],
        )
        .unwrap();
    store.trim_log(1000).await.unwrap();
    assert_eq!(events(entries), ["a", "b"]);
    // The first event after that is still noticed, one by one.
    let head = store.head().await.unwrap();
    spire.create_entry("s1");
    assert_eq!(tail(&store, head).await.len(), 1);
}

/// A row that is no entry does not hide the others, nor stop the server.
#[tokio::test]
async fn bad_rows_are_left_out() {
    let (_dir, path) = scratch();
    let store = open(&path);
    store.create_entries(vec![one("good")], NOW).await.unwrap();
    let spire = Spire::on(&path);
    spire.create_entry("bad");
    spire.0.execute("UPDATE registered_entries SET spiffe_id = 'no id' WHERE entry_id = 'bad'", []).unwrap();
    spire.event("bad");
    let mut watch = store.watch_head();
    tokio::time::timeout(SOON, watch.wait_for(|head| *head > Revision(1))).await.unwrap().unwrap();
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.entries.len(), 1);
    assert!(matches!(store.fetch_entry("bad").await, Err(Error::Internal(_))));
}
