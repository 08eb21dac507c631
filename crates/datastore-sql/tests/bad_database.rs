//! A database that is down, lost, slow, read-only or in a deadlock costs calls, not the server, and nothing that was
//! acknowledged.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test: panicking is how it fails, and it waits for real servers"
)]

mod support;

use std::time::{Duration, Instant};

use steeple_databases::{Database, Engine};
use steeple_datastore::conformance::fixtures;
use steeple_datastore::{Datastore, EntryFilter, Error, Result};
use steeple_datastore_sql::{DatabaseConfig, SqlStore, SqliteConfig};
use steeple_spiffe::bundle::Bundle;
use support::{Session, config, open, try_open};

async fn write(store: &SqlStore, name: &str) -> Result<()> {
    let entry = fixtures::entry(name, &format!("/{name}"), "/node", &["unix:uid:1"]);
    store.create_entries(vec![entry], fixtures::NOW).await?.remove(0).map(drop)
}

async fn is_there(store: &SqlStore, name: &str) -> bool {
    store.fetch_entry(name).await.unwrap().is_some()
}

/// Tries until it is done; how often it was refused, each time as something that may be tried again.
async fn write_patiently(store: &SqlStore, name: &str) -> u32 {
    let end = Instant::now() + Duration::from_secs(30);
    let mut refused = 0;
    loop {
        match write(store, name).await {
            // An attempt whose answer was lost may have been done.
            Ok(()) | Err(Error::AlreadyExists(_)) => return refused,
            Err(Error::Unavailable(reason)) => {
                assert!(Instant::now() < end, "{reason}");
                refused += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
}

/// As SPIRE: the reason, at once. Whoever supervises starts it again.
#[tokio::test]
async fn down_at_start() {
    for engine in Engine::SERVERS {
        let database = Database::alone(engine).unwrap();
        let config = config(&database);
        database.server().unwrap().stop().unwrap();
        let start = Instant::now();
        let refusal = try_open(&config).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(15), "{engine}");
        let port = database.server().unwrap().port().to_string();
        assert!(refusal.contains(&port) && refusal.to_lowercase().contains("refused"), "{refusal}");
        assert!(!refusal.contains(steeple_databases::Server::PASSWORD), "{refusal}");
        database.server().unwrap().start().unwrap();
        open(&config).await.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_back() {
    for engine in Engine::SERVERS {
        let database = Database::alone(engine).unwrap();
        let store = open(&config(&database)).await;
        let server = database.server().unwrap();
        for round in ["killed", "stopped"] {
            write(&store, &format!("before-{round}")).await.unwrap();
            let head = *store.watch_head().borrow();
            match round {
                "killed" => server.kill().unwrap(),
                _ => server.stop().unwrap(),
            }
            for _ in 0..2 {
                let refusal = write(&store, &format!("lost-{round}")).await.unwrap_err();
                assert!(matches!(refusal, Error::Unavailable(_)), "{engine}: {refusal:?}");
                let refusal = store.fetch_entry("x").await.unwrap_err();
                assert!(matches!(refusal, Error::Unavailable(_)), "{engine}: {refusal:?}");
            }
            server.start().unwrap();
            write_patiently(&store, &format!("after-{round}")).await;
            // Reading connections recover, too.
            let end = Instant::now() + Duration::from_secs(10);
            while store.count_entries(&EntryFilter::default()).await.is_err() {
                assert!(Instant::now() < end, "{engine}: reads do not come back");
            }
            assert!(
                is_there(&store, &format!("before-{round}")).await,
                "{engine}: an acknowledged write is lost"
            );
            assert!(is_there(&store, &format!("after-{round}")).await);
            assert!(*store.watch_head().borrow() > head);
        }
        store.close().await;
    }
}

/// A server whose machine freezes, and goes on.
#[tokio::test(flavor = "multi_thread")]
async fn frozen() {
    for engine in Engine::SERVERS {
        let database = Database::alone(engine).unwrap();
        let store = open(&config(&database)).await;
        write(&store, "before").await.unwrap();
        let server = database.server().unwrap();
        server.pause();
        let late = tokio::time::timeout(Duration::from_secs(1), write(&store, "meanwhile")).await;
        assert!(late.is_err(), "{engine}: {late:?}");
        server.resume();
        write_patiently(&store, "after").await;
        assert!(is_there(&store, "before").await && is_there(&store, "after").await);
        store.close().await;
    }
}

/// Another holds the lock that every write needs: writes wait, reads do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_held() {
    for engine in Engine::SERVERS {
        let database = Database::new(engine).unwrap();
        let store = open(&config(&database)).await;
        write(&store, "before").await.unwrap();
        let mut other = Session::open(&database).await;
        other.run("BEGIN").await.unwrap();
        other.run("UPDATE steeple_meta SET trimmed = trimmed").await.unwrap();
        other.run("SELECT * FROM steeple_meta FOR UPDATE").await.unwrap();
        let waiting = tokio::time::timeout(Duration::from_secs(1), write(&store, "waits")).await;
        assert!(waiting.is_err(), "{engine}: {waiting:?}");
        let read = tokio::time::timeout(Duration::from_secs(5), store.fetch_entry("before")).await;
        assert!(read.unwrap().unwrap().is_some(), "{engine}");
        other.run("ROLLBACK").await.unwrap();
        write(&store, "after").await.unwrap();
        assert!(is_there(&store, "after").await);
        store.close().await;
    }
}

/// The engine gives our transaction up for another's: it is run again, and nobody hears of it. Which of the two an engine gives up is its
/// own affair (PostgreSQL: whoever looks first, a second after it began to wait): the deadlock is made until it was ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_is_tried_again() {
    for engine in Engine::SERVERS {
        let database = Database::new(engine).unwrap();
        let store = std::sync::Arc::new(open(&config(&database)).await);
        let bundle = fixtures::bundle("other.org");
        store.set_bundle(bundle.clone(), fixtures::NOW).await.unwrap();
        let mut ours = false;
        for round in 1..=10 {
            let mut bundle = bundle.clone();
            bundle.sequence_number += round;
            ours = deadlock(&database, &store, bundle).await;
            if ours {
                break;
            }
        }
        assert!(ours, "{engine}: the other session was given up ten times, so this showed nothing");
        store.close().await;
    }
}

/// Stores the bundle in a deadlock with another session; whether it was the store's transaction that the engine gave up.
async fn deadlock(database: &Database, store: &std::sync::Arc<SqlStore>, bundle: Bundle) -> bool {
    let mut other = Session::open(database).await;
    other.run("BEGIN").await.unwrap();
    // MySQL gives up whoever has changed less.
    let many = vec!["('x')"; 500].join(",");
    other.run(&format!("INSERT INTO registered_entries_events (entry_id) VALUES {many}")).await.unwrap();
    other.run("UPDATE bundles SET trust_domain = trust_domain").await.unwrap();
    other.run("SELECT * FROM bundles FOR UPDATE").await.unwrap();
    let writer = {
        let (store, bundle) = (store.clone(), bundle.clone());
        tokio::spawn(async move { store.set_bundle(bundle, fixtures::NOW).await })
    };
    // It holds the log's row and waits for the bundle's; now the other way round.
    let mut looking = Session::open(database).await;
    let end = Instant::now() + Duration::from_secs(10);
    while looking.run("SELECT * FROM steeple_meta FOR UPDATE NOWAIT").await.is_ok() {
        assert!(Instant::now() < end, "the store does not hold the log's row");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut won = other.run("UPDATE steeple_meta SET trimmed = trimmed").await;
    if won.is_ok() {
        won = other.run("SELECT * FROM steeple_meta FOR UPDATE").await;
    }
    other.run(if won.is_ok() { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
    let written = tokio::time::timeout(Duration::from_secs(20), writer).await.unwrap().unwrap();
    assert_eq!(written.unwrap().sequence_number, bundle.sequence_number);
    won.is_ok()
}

/// Writes are refused with the reason, reads go on, and all is well when the database is.
#[tokio::test(flavor = "multi_thread")]
async fn read_only() {
    // MariaDB's `read_only` does not bind the tests' user, who may do all.
    for engine in [Engine::MySql] {
        let database = Database::alone(engine).unwrap();
        let store = open(&config(&database)).await;
        write(&store, "before").await.unwrap();
        database.query("SET GLOBAL super_read_only = 1").unwrap();
        let refusal = write(&store, "refused").await.unwrap_err();
        assert!(
            matches!(&refusal, Error::Unavailable(reason) if reason.contains("read")),
            "{engine}: {refusal:?}"
        );
        assert!(is_there(&store, "before").await);
        database.query("SET GLOBAL super_read_only = 0; SET GLOBAL read_only = 0").unwrap();
        write_patiently(&store, "after").await;
        assert!(is_there(&store, "after").await && !is_there(&store, "refused").await);
        store.close().await;
    }
}

/// A PostgreSQL standby, and a user who may only read.
#[tokio::test(flavor = "multi_thread")]
async fn read_only_postgres() {
    let database = Database::alone(Engine::Postgres).unwrap();
    let store = open(&config(&database)).await;
    write(&store, "before").await.unwrap();
    let revoke = "REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM steeple";
    database.query(revoke).unwrap();
    let refusal = write(&store, "refused").await.unwrap_err().to_string();
    assert!(refusal.contains("permission denied"), "{refusal}");
    assert!(is_there(&store, "before").await);
    database.query(&revoke.replace("REVOKE", "GRANT").replace("FROM", "TO")).unwrap();
    write_patiently(&store, "after").await;

    let standby = database.server().unwrap().standby().unwrap();
    let there = match config(&database) {
        DatabaseConfig::Network(mut network) => {
            network.connection_string = database.connection_string_at(standby.port());
            DatabaseConfig::Network(network)
        }
        DatabaseConfig::Sqlite(_) => panic!("no server"),
    };
    let refusal = try_open(&there).await.unwrap_err();
    assert!(refusal.contains("recovery") || refusal.contains("read-only"), "{refusal}");
    store.close().await;
}

#[tokio::test]
async fn read_only_file() {
    let database = Database::new(Engine::Sqlite).unwrap();
    let path = database.sqlite_file().unwrap();
    let store = open(&config(&database)).await;
    write(&store, "before").await.unwrap();
    store.close().await;
    let read_only = SqliteConfig::new(format!("file:{}?mode=ro", path.display()));
    let store = open(&DatabaseConfig::Sqlite(read_only)).await;
    assert!(is_there(&store, "before").await);
    let refusal = write(&store, "refused").await.unwrap_err();
    assert!(matches!(&refusal, Error::Unavailable(reason) if reason.contains("readonly")), "{refusal:?}");
    assert!(is_there(&store, "before").await && !is_there(&store, "refused").await);
}

/// SPIRE needs the right, too; the refusal says what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_right_to_make_tables() {
    let database = Database::alone(Engine::Postgres).unwrap();
    database
        .query("REVOKE CREATE ON SCHEMA public FROM PUBLIC; ALTER SCHEMA public OWNER TO CURRENT_USER")
        .unwrap();
    database.query("ALTER DATABASE t1 OWNER TO CURRENT_USER").ok();
    let refusal = try_open(&config(&database)).await.unwrap_err();
    assert!(refusal.contains("permission denied"), "{refusal}");
}
