//! The view on the real store: how long an entry takes from its commit to an agent's subscription, and that
//! nothing is lost while several write.
#![cfg(test)]

use std::sync::Arc;
use std::time::Duration;

use steeple_datastore::model::{Entry, Selector};
use steeple_datastore::{Created, Datastore};
use steeple_datastore_sql::{SqlStore, SqliteConfig};
use steeple_server_core::view::View;
use steeple_spiffe::{SpiffeId, TrustDomain};
use tokio::time::{Instant, timeout};

const NOW: i64 = 1_800_000_000;
const AGENT: &str = "/spire/agent/join_token/one";

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

fn entry(name: &str, parent: &str) -> Entry {
    Entry {
        id: name.to_owned(),
        spiffe_id: id(&format!("/w/{name}")),
        parent_id: id(parent),
        selectors: vec![Selector::new("unix", "uid:1000")],
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: 0,
        dns_names: Vec::new(),
        revision_number: 0,
        store_svid: false,
        hint: String::new(),
        created_at: 0,
        additional: None,
    }
}

async fn create(store: &dyn Datastore, entries: Vec<Entry>) {
    for created in store.create_entries(entries, NOW).await.unwrap() {
        assert!(matches!(created.unwrap(), Created::New(_)));
    }
}

fn open(directory: &tempfile::TempDir) -> Arc<dyn Datastore> {
    let path = directory.path().join("datastore.sqlite3");
    Arc::new(SqlStore::open_sqlite(&SqliteConfig::new(path.to_str().unwrap())).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_reaches_its_agent_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    create(
        &*store,
        (0..1000).map(|n| entry(&format!("old-{n}"), &format!("/spire/agent/{}", n % 10))).collect(),
    )
    .await;
    let (view, follower) =
        View::open(Arc::clone(&store), TrustDomain::new("example.org").unwrap()).await.unwrap();
    let mut following = tokio::task::JoinSet::new();
    following.spawn(follower.run());
    let mut subscription = view.subscribe(&id(AGENT));
    assert!(subscription.next().await.snapshot);

    let (mut after_commit, mut whole) = (Vec::new(), Vec::new());
    for trial in 0..100 {
        let started = Instant::now();
        create(&*store, vec![entry(&format!("new-{trial}"), AGENT)]).await;
        let committed = Instant::now();
        let delta = timeout(Duration::from_secs(30), subscription.next()).await.unwrap();
        assert_eq!(delta.entries.len(), 1);
        after_commit.push(committed.elapsed());
        whole.push(started.elapsed());
    }
    after_commit.sort();
    whole.sort();
    println!("commit to delta: median {:?} p99 {:?}", after_commit[50], after_commit[98]);
    println!("call to delta:   median {:?} p99 {:?}", whole[50], whole[98]);
    // The issue allows 50 ms at the median from the API to the workload; here is no API and no workload.
    assert!(after_commit[50] < Duration::from_millis(20), "{:?}", after_commit[50]);
    assert_eq!(view.authorized_entries(&id(AGENT)).len(), 100);
}

/// A second server on the same file: its view follows the first one's writes and the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_database_see_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut following = tokio::task::JoinSet::new();
    let mut servers = Vec::new();
    for _ in 0..2 {
        let store = open(&directory);
        let (view, follower) =
            View::open(Arc::clone(&store), TrustDomain::new("example.org").unwrap()).await.unwrap();
        following.spawn(follower.run());
        servers.push((store, view));
    }
    for round in 0..5 {
        for (writer, reader) in [(0, 1), (1, 0)] {
            let name = format!("e-{round}-{writer}");
            // What the round before wrote is no news.
            let head = servers[reader].0.head().await.unwrap();
            servers[reader].1.wait_for(head).await;
            let mut subscription = servers[reader].1.subscribe(&id(AGENT));
            subscription.next().await;
            create(&*servers[writer].0, vec![entry(&name, AGENT)]).await;
            let delta = timeout(Duration::from_secs(30), subscription.next()).await.unwrap();
            assert_eq!(delta.entries[0].id, name);
            assert_eq!(delta.log_id, *servers[writer].1.log_id());
        }
    }
}
