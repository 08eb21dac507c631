use std::{
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Command, Stdio},
};

use super::*;

#[test]
fn start_time_survives_odd_names() {
    let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 2";
    assert_eq!(parse_start_time(stat), Some(4242));
    assert_eq!(parse_start_time("7 (x"), None);
}

#[test]
fn effective_ids_are_the_second_column() {
    let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
    assert_eq!((effective_id(status, "Uid:"), effective_id(status, "Gid:")), (2, 6));
    assert_eq!(effective_id("", "Uid:"), u32::MAX);
}

#[test]
fn a_peer_is_who_connected() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let peer = Peer::of_socket(ours.as_fd()).unwrap();
    assert_eq!(peer.pid, std::process::id() as i32);
    assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
    peer.still_here().unwrap();
    assert_eq!(peer.exe().unwrap(), std::env::current_exe().unwrap());
    assert!(peer.status().unwrap().contains("Pid:"));
    assert!(!format!("{peer:?}").is_empty());
}

#[test]
fn a_kernel_without_peer_pidfds_will_do() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let credentials = sys::peer_credentials(ours.as_fd()).unwrap();
    let peer = Peer::by_number(credentials).unwrap();
    assert_eq!(peer.pid, std::process::id() as i32);
    peer.still_here().unwrap();
}

const CONNECT_TO: &str = "STEEPLE_TEST_CONNECT_TO";

/// What [`connecting_program`] runs: connects, keeps the connection open, and waits for the end of its standard input.
#[test]
#[ignore = "a program for another test"]
fn connects_where_it_is_told() {
    let Some(path) = std::env::var_os(CONNECT_TO) else { return };
    let _connection = UnixStream::connect(path).unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Another process that is connected: this test program, told to run only the above.
fn connecting_program(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "peer::tests::connects_where_it_is_told", "--ignored", "--nocapture"])
        .env(CONNECT_TO, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_caller_that_dies_is_gone_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = connecting_program(&path);
    let (socket, _) = listener.accept().unwrap();
    let peer = Peer::of_socket(socket.as_fd()).unwrap();
    assert_eq!(peer.pid, child.id() as i32);
    peer.still_here().unwrap();

    child.kill().unwrap();
    // Not reaped yet: its number and /proc directory are still there, and yet it is gone.
    while !peer.has_exited().unwrap() {
        std::thread::yield_now();
    }
    assert!(peer.proc_dir().exists());
    assert!(matches!(peer.still_here(), Err(PeerError::Gone { .. })));
    assert!(matches!(peer.exe(), Err(PeerError::Gone { .. } | PeerError::Proc { .. })));

    child.wait().unwrap();
    assert!(matches!(peer.still_here(), Err(PeerError::Gone { .. })));
    // Dead between connect and accept: never identified as anyone.
    assert!(Peer::of_socket(socket.as_fd()).is_err());
}

#[test]
fn a_replaced_caller_is_noticed() {
    let mut peer = Peer::of_process(std::process::id() as i32).unwrap();
    peer.started = peer.started.map(|started| started + 1);
    assert!(matches!(peer.still_here(), Err(PeerError::Replaced { .. })));
    peer.started = peer.started.map(|started| started - 1);
    peer.gid += 1;
    assert!(matches!(peer.still_here(), Err(PeerError::OwnerChanged { .. })));
}
