//! Figures, printed: `cargo run --release -p steeple-datastore-sql --example figures`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement: panicking is how it fails"
)]
#![allow(clippy::disallowed_methods, reason = "measuring is what this is for")]

use std::time::Instant;

use steeple_datastore::conformance::fixtures::{NOW, entry};
use steeple_datastore::model::Entry;
use steeple_datastore::{Datastore, EntryFilter, PageRequest, Revision};
use steeple_datastore_sql::{SqlStore, SqliteConfig};
use tempfile::TempDir;

fn some(from: usize, count: usize) -> Vec<Entry> {
    (from..from + count)
        .map(|n| {
            let ns = format!("k8s:ns:n{}", n % 50);
            let uid = format!("unix:uid:{n}");
            let parent = format!("/node/{}", n % 100);
            entry(&format!("e{n}"), &format!("/w/{n}"), &parent, &["k8s:sa:default", &ns, &uid])
        })
        .collect()
}

/// KiB resident.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Milliseconds of processor time that this process's threads took: on a busy machine the only figure that means
/// anything.
fn cpu() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let nanos: u64 = tasks
        .map(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            stat.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        })
        .sum();
    nanos as f64 / 1e6
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let dir = TempDir::new().unwrap();
    let before = resident();
    let path = dir.path().join("datastore.sqlite3");
    let store =
        std::sync::Arc::new(SqlStore::open_sqlite(&SqliteConfig::new(path.to_str().unwrap())).unwrap());
    println!("open:                       {:>8} KiB more", resident() - before);

    let (start, busy) = (Instant::now(), cpu());
    store.create_entries(some(0, 1000), NOW).await.unwrap();
    let (took, busy) = (start.elapsed().as_secs_f64() * 1e3, cpu() - busy);
    println!("1,000 in one call:          {took:>8.1} ms, {busy:.1} ms CPU");
    println!("                            {:>8} KiB more", resident() - before);

    let mut times = Vec::new();
    for n in 0..300 {
        let start = Instant::now();
        store.create_entries(some(1000 + n, 1), NOW).await.unwrap();
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("one at a time, synced:      {:>8.2} ms median, {:.2} ms p99", times[150], times[297]);

    let start = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let store = store.clone();
        writers.spawn(async move { store.create_entries(some(2000 + n, 1), NOW).await.unwrap() });
    }
    writers.join_all().await;
    println!("1,000 callers at once:      {:>8.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let (start, busy) = (Instant::now(), cpu());
    for n in 3..100 {
        store.create_entries(some(n * 1000, 1000), NOW).await.unwrap();
    }
    let (took, busy) = (start.elapsed().as_secs_f64() * 1e3, cpu() - busy);
    println!("97,000 more, by 1,000:      {took:>8.1} ms, {busy:.1} ms CPU");

    let start = Instant::now();
    let (mut token, mut seen) = (String::new(), 0);
    loop {
        let page = PageRequest { token, size: 500 };
        let page = store.list_entries(&EntryFilter::default(), &page).await.unwrap();
        seen += page.items.len();
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    println!("{seen} listed by 500:       {:>8.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let start = Instant::now();
    let filter = EntryFilter { parent_id: Some(some(7, 1)[0].parent_id.clone()), ..Default::default() };
    let found = store.list_entries(&filter, &PageRequest::default()).await.unwrap().items.len();
    println!("{found} of one parent:          {:>8.1} ms", start.elapsed().as_secs_f64() * 1e3);

    let start = Instant::now();
    let snapshot = store.snapshot().await.unwrap();
    println!(
        "snapshot of {}:        {:>8.1} ms",
        snapshot.entries.len(),
        start.elapsed().as_secs_f64() * 1e3
    );
    drop(snapshot);

    let start = Instant::now();
    let log = store.changes_since(Revision(0), 1000).await.unwrap().len();
    println!("{log} rows of the log:        {:>8.1} ms", start.elapsed().as_secs_f64() * 1e3);
    store.trim_log(1000).await.unwrap();
}
