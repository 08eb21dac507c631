//! Signals to the real program, while it starts and while it drains.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;

/// Well below what a drain may take.
const SOON: Duration = Duration::from_secs(6);

struct Server {
    child: Child,
    log: mpsc::Receiver<String>,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let config = format!(
            r#"
            server {{ trust_domain = "example.org" data_dir = "{d}" bind_address = "127.0.0.1" bind_port = {port} socket_path = "{d}/api.sock" log_level = "DEBUG" }}
            plugins {{
              DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{d}/db.sqlite3" }} }}
              KeyManager "disk" {{ plugin_data {{ keys_path = "{d}/keys.json" }} }}
              NodeAttestor "join_token" {{}}
            }}
            "#,
            d = dir.display(),
            port = free_port(),
        );
        let file = dir.join("server.conf");
        std::fs::write(&file, config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_spire-server"))
            .args(["run", "-config"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, log) = mpsc::channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, log }
    }

    /// Reads the log up to a line with `text`.
    fn logged(&self, text: &str) {
        self.logs(text, Duration::from_secs(30));
    }

    fn logs(&self, text: &str, patience: Duration) {
        self.line(text, patience);
    }

    /// No line may take longer than `patience`.
    fn line(&self, text: &str, patience: Duration) -> String {
        let mut seen = String::new();
        loop {
            let line = self.log.recv_timeout(patience);
            assert!(line.is_ok(), "{text}: {line:?} after\n{seen}");
            let line = line.unwrap();
            if line.contains(text) {
                return line;
            }
            seen = seen + &line + "\n";
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Its log ends with it.
    fn ended(&mut self) -> ExitStatus {
        while self.log.recv_timeout(SOON) != Err(mpsc::RecvTimeoutError::Disconnected) {
            assert!(self.child.try_wait().is_ok());
        }
        self.child.wait().unwrap()
    }
}

/// Below those that the kernel gives to connections: nobody gets it by chance before the server binds it.
fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    loop {
        let turn = std::process::id().wrapping_mul(131) + ASKED.fetch_add(1, Ordering::Relaxed);
        let port = 12_000 + (turn % 20_000) as u16;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_start_that_hangs_ends_with_the_first() {
    let dir = tempfile::tempdir().unwrap();
    // Nobody ever writes into it: reading the keys takes forever.
    assert!(Command::new("mkfifo").arg(dir.path().join("keys.json")).status().unwrap().success());
    let mut server = Server::start(dir.path());
    server.logged("Configured DataStore");
    server.signal("USR2");
    server.logged("nothing to reopen");
    server.signal("USR1");
    server.logged("nothing to reload");
    server.signal("TERM");
    server.logged("Server stopped gracefully");
    assert!(server.ended().success());
}

#[tokio::test]
async fn the_second_cuts_a_drain_short() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    server.logged("Server is up");
    let socket = dir.path().join("api.sock").display().to_string();
    let channel = steeple_cli::connect::connect_unix(&socket, &socket).unwrap();
    // A call that does not end.
    let call = AgentClient::new(channel).attest_agent(tokio_stream::pending()).await;
    server.signal("TERM");
    server.logged("Stopping Server APIs");
    server.signal("INT");
    server.logs("Graceful stop unsuccessful", SOON);
    server.logs("Server APIs have stopped", SOON);
    assert!(server.ended().success());
    drop(call);
}

/// SPIRE's lines: operators' alerts look for them.
#[test]
fn start_and_stop_are_told_for_each_listener() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    for (message, last) in [
        ("X509 CA prepared", " upstream_authority_id="),
        ("X509 CA activated", " upstream_authority_id="),
        ("JWT key prepared", " subsystem_name=ca_manager"),
        ("JWT key activated", " subsystem_name=ca_manager"),
    ] {
        let line = server.line(&format!("msg=\"{message}\""), SOON);
        assert!(line.contains(" +0000 UTC\" issued_at=\"") && line.ends_with(last), "{line}");
        assert_eq!(line.contains(" self_signed=true "), message == "X509 CA prepared", "{line}");
    }
    server.logged("Server is up");
    server.signal("TERM");
    let mut stopped: Vec<String> =
        (0..2).map(|_| server.line("msg=\"Server APIs have stopped\"", SOON)).collect();
    stopped.sort_by_key(|line| line.contains("network=unix"));
    assert!(stopped[0].ends_with("network=tcp subsystem_name=endpoints"), "{stopped:?}");
    assert!(stopped[1].ends_with("api.sock network=unix subsystem_name=endpoints"), "{stopped:?}");
    assert!(server.ended().success());
}
