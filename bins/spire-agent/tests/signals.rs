//! Signals to the real program while it starts.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_start_without_a_server_survives_user_signals_and_ends_with_the_first_term() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    // Bound and never accepted from: attestation hangs.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        r#"
        agent {{ trust_domain = "example.org" data_dir = "{d}" server_address = "127.0.0.1" server_port = {port} socket_path = "{d}/agent.sock" insecure_bootstrap = true join_token = "t" log_level = "DEBUG" }}
        plugins {{
          KeyManager "memory" {{}}
          NodeAttestor "join_token" {{}}
          WorkloadAttestor "unix" {{}}
        }}
        "#,
        d = dir.display(),
        port = silent.local_addr().unwrap().port(),
    );
    let file = dir.join("agent.conf");
    std::fs::write(&file, config).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_spire-agent"))
        .args(["run", "-config"])
        .arg(&file)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = agent.id().to_string();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines().map_while(Result::ok);
    let steps = [("Starting agent", "USR2"), ("nothing to reopen", "USR1"), ("nothing to reload", "TERM")];
    for (line, signal) in steps {
        assert!(lines.any(|logged| logged.contains(line)), "{line}");
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }
    assert!(lines.any(|line| line.contains("Agent stopped gracefully")));
    assert!(agent.wait().unwrap().success());
}
