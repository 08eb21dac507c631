//! A writer that is killed, or runs out of disk: every acknowledged entry is there afterwards. The writer is this test
//! binary, run again as a child that writes to the database its environment names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test: panicking is how it fails"
)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rusqlite::Connection;
use steeple_datastore::conformance::Replica;
use steeple_datastore::conformance::fixtures::{NOW, agent, entry};
use steeple_datastore::model::Entry;
use steeple_datastore::{Datastore, Error, Revision, Snapshot};
use steeple_datastore_sql::{SqlStore, SqliteConfig};
use tempfile::TempDir;

const DATABASE: &str = "STEEPLE_TEST_DATABASE";
const PREFIX: &str = "STEEPLE_TEST_PREFIX";

fn open(path: &Path) -> SqlStore {
    SqlStore::open_sqlite(&SqliteConfig::new(path.to_str().unwrap())).unwrap()
}

fn one(name: &str) -> Entry {
    let mut one = entry(name, &format!("/{name}"), "/node", &["unix:uid:1", "k8s:ns:x", "k8s:sa:y"]);
    one.dns_names = vec!["a.example.org".into()];
    one
}

/// Not a test of its own: writes until it is killed and says what was acknowledged. Four writers, so that requests
/// are committed together; some entries are updated, some deleted, some agents put.
#[test]
fn child_writes() {
    let (Ok(path), Ok(prefix)) = (std::env::var(DATABASE), std::env::var(PREFIX)) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let store = std::sync::Arc::new(open(Path::new(&path)));
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..4 {
            let (store, prefix) = (store.clone(), prefix.clone());
            writers.spawn(async move {
                for n in 0..100_000 {
                    let name = format!("{prefix}-{writer}-{n}");
                    assert!(store.create_entries(vec![one(&name)], NOW).await.unwrap()[0].is_ok());
                    say(&format!("+{name}"));
                    if n % 4 == 3 {
                        say(&format!("?{name}"));
                        assert!(store.delete_entry(&name).await.unwrap());
                        say(&format!("-{name}"));
                    }
                    if n % 5 == 4 {
                        store.put_agent(agent(&format!("/agent/{name}"), "join_token"), NOW).await.unwrap();
                    }
                }
            });
        }
        writers.join_all().await;
    });
}

/// A line on stdout past the test harness's capture.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn spawn_child(test: &str, path: &Path, prefix: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(DATABASE, path)
        .env(PREFIX, prefix)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What must be there, what must not, and what may be.
#[derive(Default)]
struct Acknowledged {
    there: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl Acknowledged {
    /// Says whether it was a line of the child's.
    fn take(&mut self, line: &str) -> bool {
        // The harness's own words may stand before ours on the first line.
        let Some(at) = line.find(['+', '-', '?']) else { return false };
        let name = line[at + 1..].to_owned();
        match line.as_bytes()[at] {
            b'+' if name.starts_with('r') => drop(self.there.insert(name)),
            b'?' => drop(self.there.remove(&name)),
            b'-' => drop(self.gone.insert(name)),
            _ => return false,
        }
        true
    }

    async fn check(&self, path: &Path) -> SqlStore {
        let db = Connection::open(path).unwrap();
        let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
        drop(db);
        let store = open(path);
        let snapshot = store.snapshot().await.unwrap();
        let stored: BTreeSet<&str> = snapshot.entries.iter().map(|entry| entry.id.as_str()).collect();
        for name in &self.there {
            assert!(stored.contains(name.as_str()), "acknowledged entry {name} is lost");
        }
        for name in &self.gone {
            assert!(!stored.contains(name.as_str()), "deleted entry {name} is back");
        }
        for entry in &snapshot.entries {
            assert_eq!(*entry, one(&entry.id), "half an entry");
        }
        // The log has no gaps and leads to what is stored.
        let mut replica = Replica::of(Snapshot::default());
        for logged in store.changes_since(Revision(0), usize::MAX).await.unwrap() {
            replica.apply(logged);
        }
        assert_eq!(replica, Replica::of(snapshot));
        store
    }
}

const KILLS: usize = 24;

#[tokio::test]
async fn killed_at_random_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("datastore.sqlite3");
    let mut acknowledged = Acknowledged::default();
    let mut last = Revision(0);
    for round in 0..KILLS {
        let mut child = spawn_child("child_writes", &path, &format!("r{round}"));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The number of lines before the kill makes the moment random; what is still in the pipe counts too.
        let limit = 1 + (round * 7919) % 61;
        let mut seen = 0;
        for line in lines {
            seen += usize::from(acknowledged.take(&line.unwrap()));
            if seen == limit {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        let store = acknowledged.check(&path).await;
        let head = store.head().await.unwrap();
        assert!(head > last, "round {round} wrote nothing");
        last = head;
        store.close().await;
    }
    assert!(acknowledged.there.len() > KILLS && !acknowledged.gone.is_empty());
}

/// A file system of its own size; needs root.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let done = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        matches!(done, Ok(status) if status.success()).then(|| Self(dir))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Writes until the disk is full; the names that were acknowledged.
async fn fill(store: &SqlStore) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    for n in 0..100_000 {
        let name = format!("r{n}");
        match store.create_entries(vec![one(&name)], NOW).await {
            Ok(results) => {
                assert!(results[0].is_ok(), "{results:?}");
                acknowledged.insert(name);
            }
            Err(error) => {
                assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
                assert!(error.to_string().starts_with("datastore-sql: "), "{error}");
                return acknowledged;
            }
        }
    }
    panic!("the disk is never full");
}

/// After the disk has room again: nothing acknowledged is lost and writes work.
async fn goes_on(store: &SqlStore, path: &Path, there: BTreeSet<String>) {
    let mut acknowledged = Acknowledged { there, ..Default::default() };
    let last = "r-after".to_owned();
    let results = store.create_entries(vec![one(&last)], NOW).await.unwrap();
    assert!(results[0].is_ok());
    acknowledged.there.insert(last);
    store.close().await;
    acknowledged.check(path).await.close().await;
}

#[tokio::test]
async fn full_disk() {
    let Some(disk) = SmallDisk::mount() else {
        println!("not allowed to mount: the limit on file sizes stands in for the full disk");
        return;
    };
    std::fs::write(disk.file("filler"), vec![0; 1 << 20]).unwrap();
    let path = disk.file("datastore.sqlite3");
    let store = open(&path);
    let acknowledged = fill(&store).await;
    assert!(!acknowledged.is_empty());
    // Reads go on.
    assert_eq!(store.snapshot().await.unwrap().entries.len(), acknowledged.len());
    assert!(store.create_entries(vec![one("r-no")], NOW).await.is_err());
    std::fs::remove_file(disk.file("filler")).unwrap();
    goes_on(&store, &path, acknowledged).await;
}

/// Not a test of its own: runs under a limit on file sizes, which it lifts.
#[test]
fn child_hits_a_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Ok(path) = std::env::var(DATABASE) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let path = Path::new(&path);
        let hard = getrlimit(Resource::Fsize).maximum;
        setrlimit(Resource::Fsize, Rlimit { current: Some(400_000), maximum: hard }).unwrap();
        let store = open(path);
        let acknowledged = fill(&store).await;
        assert!(!acknowledged.is_empty());
        setrlimit(Resource::Fsize, Rlimit { current: hard, maximum: hard }).unwrap();
        goes_on(&store, path, acknowledged).await;
        say("survived");
    });
}

#[test]
fn file_size_limit() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("datastore.sqlite3");
    // An ignored signal stays ignored across exec: the limit then shows as a failed write.
    let out = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact child_hits_a_limit --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(DATABASE, &path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(
        out.status.success() && text.contains("survived"),
        "{text}{}",
        String::from_utf8_lossy(&out.stderr)
    );
}
