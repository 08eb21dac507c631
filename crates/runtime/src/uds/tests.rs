use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;

fn options() -> UdsOptions {
    UdsOptions { mode: 0o770, dir_mode: 0o750, max_per_uid: None }
}

#[tokio::test]
async fn modes_and_cleanup() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/x.sock");
    let listener = UdsListener::bind(&path, options()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&path), 0o770);
    assert_eq!(mode(path.parent().unwrap()), 0o750);
    assert_eq!(mode(&dir.path().join("a")), 0o750);
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_live_socket_is_refused_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let live = bind(&path, 0o777).unwrap();
    let err = bind(&path, 0o777).unwrap_err();
    assert!(matches!(err, UdsError::InUse { .. }));
    assert!(err.to_string().contains("in use"), "{err}");
    assert!(path.exists());
    drop(live);

    // Left behind by a program that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    bind(&path, 0o777).unwrap();

    std::fs::write(&path, "no socket").unwrap();
    assert!(matches!(bind(&path, 0o777), Err(UdsError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).unwrap(), b"no socket");
}

#[tokio::test]
async fn of_those_that_race_for_a_stale_socket_one_gets_it() {
    const STARTERS: usize = 4;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let runtime = tokio::runtime::Handle::current();
    for round in 0..300 {
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let barrier = std::sync::Barrier::new(STARTERS);
        let start = || {
            let _runtime = runtime.enter();
            barrier.wait();
            bind(&path, 0o777)
        };
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let starters: Vec<_> = (0..STARTERS).map(|_| scope.spawn(start)).collect();
            starters.into_iter().map(|starter| starter.join().unwrap()).collect()
        });
        let bound = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(bound, 1, "round {round}: {outcomes:?}");
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        for refused in outcomes.into_iter().filter_map(Result::err) {
            assert!(matches!(refused, UdsError::InUse { .. }), "round {round}: {refused}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}

#[tokio::test]
async fn another_programs_socket_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let first = bind(&path, 0o777).unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = bind(&path, 0o777).unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn callers_are_known_and_bytes_pass() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let mut listener = bind(&path, 0o777).unwrap();
    let mut client = UnixStream::connect(&path).await.unwrap();
    assert!(futures::poll!(listener.next()).is_pending(), "silent");
    assert_eq!(listener.connections(), 1);
    client.write_all(b"not http at all").await.unwrap();
    let mut server = listener.next().await.unwrap().unwrap();
    assert_eq!(server.connect_info().peer.pid, std::process::id() as i32);
    client.shutdown().await.unwrap();
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"not http at all");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    read.clear();
    client.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"answer");
}

#[tokio::test]
async fn a_process_asking_itself_is_not_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let listener = bind(&path, 0o777).unwrap().with_connection_limit(1);
    let mut listener = listener.without_limit_for(std::process::id());
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"x").await.unwrap();
        open.push((listener.next().await.unwrap().unwrap(), client));
    }
    assert_eq!(listener.connections(), 0, "nor does it take others' places");
}

#[tokio::test]
async fn one_user_cannot_have_them_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let mut listener = bind(&path, 0o777).unwrap().with_connection_limit(2);
    let mut clients = Vec::new();
    let connect = async || {
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"x").await.unwrap();
        client
    };
    for _ in 0..4 {
        clients.push(connect().await);
    }
    let first = listener.next().await.unwrap().unwrap();
    let second = listener.next().await.unwrap().unwrap();
    assert_eq!(listener.connections(), 2);
    // The third and fourth are closed as they come; a place that is free again goes to the next.
    let mut next = Box::pin(listener.next());
    assert!(futures::poll!(next.as_mut()).is_pending());
    for refused in &mut clients[2..] {
        // Closed with our byte unread: an end or a reset.
        assert!(!matches!(refused.read(&mut [0; 1]).await, Ok(1..)));
    }
    drop(first);
    clients.push(connect().await);
    let third = next.await.unwrap().unwrap();
    drop((second, third));
    assert_eq!(listener.connections(), 0);
}

#[tokio::test]
async fn connections_of_one_process_share_its_pidfd() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    let mut listener = bind(&path, 0o777).unwrap();
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut client = UnixStream::connect(&path).await.unwrap();
        client.write_all(b"x").await.unwrap();
        streams.push((listener.next().await.unwrap().unwrap(), client));
    }
    assert!(Arc::ptr_eq(streams[0].0.peer(), streams[2].0.peer()));
    let first = Arc::downgrade(streams[0].0.peer());
    streams.clear();
    assert!(first.upgrade().is_none(), "and it is closed with the last of them");
}
