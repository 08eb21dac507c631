use std::time::Duration;

use rustix::process::{Signal as Number, getpid, kill_process};

use super::*;
use crate::{
    logs::{self, LogConfig},
    tasks::{Drained, OnEnd, TaskGroup},
};

fn send(signal: Number) {
    kill_process(getpid(), signal).unwrap();
}

/// Signals are the process's: one test for all of them.
#[tokio::test]
async fn the_first_drains_the_second_aborts_and_the_rest_do_not_kill() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("log");
    let logs = logs::for_tests(&LogConfig { file: Some(file.clone()), ..LogConfig::default() }).unwrap();
    let signals = Signals::install().unwrap();
    // Nobody polls yet, as while the program starts.
    std::fs::remove_file(&file).unwrap();
    send(Number::USR1);
    send(Number::USR2);
    send(Number::TERM);

    let tasks = TaskGroup::new(Shutdown::new());
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("stubborn", OnEnd::Log, std::future::pending::<()>());
    tasks.spawn_through_drain("signals", OnEnd::Log, signals.run(shutdown.clone(), logs));
    shutdown.requested().await;
    assert_eq!(shutdown.reason().as_deref(), Some("received signal terminated"));

    let drain = tasks.drain(Duration::from_mins(1));
    tokio::pin!(drain);
    assert!(futures::poll!(drain.as_mut()).is_pending());
    // USR1 and USR2 came with the first TERM and may be answered after it, not after the second.
    while !file.exists() {
        tokio::task::yield_now().await;
    }
    send(Number::INT);
    assert_eq!(drain.await, Drained::Aborted(vec!["stubborn".to_owned()]));
}
