//! A state that SPIRE made is taken over as it is: the same CA and keys go on, the agent that was attested reconnects,
//! and every command prints what SPIRE's printed. The same of states that Steeple made, and SPIRE can be put to this test, too.

#![allow(clippy::expect_used, clippy::panic, reason = "a test: panicking is how it fails")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use steeple_databases::{Database, Engine, Server};
use steeple_e2e::{Deployment, Subject};

#[test]
fn sqlite() -> Result<()> {
    takeover(Engine::Sqlite, "spire-sqlite")
}

#[test]
fn postgres() -> Result<()> {
    takeover(Engine::Postgres, "spire-postgres")
}

#[test]
fn mariadb() -> Result<()> {
    takeover(Engine::MariaDb, "spire-mysql")
}

/// The dump is MariaDB's; MySQL reads it, too.
#[test]
fn mysql() -> Result<()> {
    takeover(Engine::MySql, "spire-mysql")
}

#[test]
fn our_own_sqlite() -> Result<()> {
    takeover(Engine::Sqlite, "steeple-sqlite")
}

#[test]
fn our_own_postgres() -> Result<()> {
    takeover(Engine::Postgres, "steeple-postgres")
}

#[test]
fn our_own_mariadb() -> Result<()> {
    takeover(Engine::MariaDb, "steeple-mysql")
}

/// A recorded file and the command that prints it.
const PRINTED: &[(&str, &[&str])] = &[
    ("entries.json", &["entry", "show", "-output", "json"]),
    ("entries-downstream.json", &["entry", "show", "-downstream", "-output", "json"]),
    ("agents.json", &["agent", "list", "-output", "json"]),
    ("bundle.json", &["bundle", "show", "-format", "spiffe"]),
    ("federation.json", &["federation", "list", "-output", "json"]),
    ("x509-authorities.json", &["localauthority", "x509", "show", "-output", "json"]),
    ("jwt-authorities.json", &["localauthority", "jwt", "show", "-output", "json"]),
];

fn takeover(engine: Engine, state: &str) -> Result<()> {
    let state = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(state);
    let database = Arc::new(Database::new(engine)?);
    load(&database, &state)?;
    let mut d = Deployment::builder().disk_keys().database(&database).prepare()?;
    for (from, to) in [
        ("server-keys.json", "server/keys.json"),
        ("agent-keys.json", "agent/keys.json"),
        ("agent-data.json", "agent/agent-data.json"),
    ] {
        std::fs::copy(state.join(from), d.path(to)).context(from)?;
    }
    d.start_server()?;
    check_printed(&d, &state)?;

    // No token: what it has is enough.
    d.start_agent_with(&[])?;
    let log = std::fs::read_to_string(d.path("agent.log"))?;
    assert!(!log.contains("Node attestation was successful"), "{log}");
    let agents: Value = serde_json::from_str(&std::fs::read_to_string(state.join("agents.json"))?)?;
    let agent =
        format!("spiffe://example.org{}", agents["agents"][0]["id"]["path"].as_str().unwrap_or_default());
    let selector = format!("unix:uid:{}", steeple_e2e::uid());
    d.server_ok(&[
        "entry",
        "create",
        "-parentID",
        &agent,
        "-spiffeID",
        "spiffe://example.org/taken-over",
        "-selector",
        &selector,
    ])?;
    let svid = d.path("svid");
    std::fs::create_dir(&svid)?;
    d.eventually("the agent issues", Duration::from_secs(20), || {
        d.agent_api(&["api", "fetch", "x509", "-write", &svid.to_string_lossy()]).code == Some(0)
    })?;
    // One line of base64 in the one, many in the other.
    let pem = std::fs::read_to_string(svid.join("bundle.0.pem"))?;
    let root: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(state.join("bundle.json"))?)?;
    assert_eq!(root, recorded["keys"][0]["x5c"][0].as_str().unwrap_or_default());

    // And again: nothing that the first start wrote changes what the second finds.
    if let Some(server) = &mut d.server {
        server.kill();
    }
    d.start_server()?;
    for name in ["x509-authorities.json", "jwt-authorities.json", "bundle.json"] {
        check_one(&d, &state, name)?;
    }
    Ok(())
}

fn check_printed(d: &Deployment, state: &Path) -> Result<()> {
    PRINTED.iter().try_for_each(|(name, _)| check_one(d, state, name))
}

/// To the letter, but for what we add.
fn check_one(d: &Deployment, state: &Path, name: &str) -> Result<()> {
    let (_, command) = PRINTED.iter().find(|(file, _)| *file == name).context("no such file")?;
    let expected = std::fs::read_to_string(state.join(name))?;
    let mut printed = d.server_ok(command)?;
    if name == "federation.json" && d.subject_of("spire-server") == Subject::Steeple {
        // docs/differences.md: the state of each relationship.
        let mut json: Value = serde_json::from_str(&printed)?;
        let ours = json.as_object_mut().and_then(|object| object.remove("steeple_states"));
        assert!(ours.is_some(), "{printed}");
        printed = json.to_string();
    }
    if printed.trim_end() != expected.trim_end() {
        let start = printed.bytes().zip(expected.bytes()).take_while(|(a, b)| a == b).count();
        let part = |text: &str| text.chars().skip(start.saturating_sub(200)).take(500).collect::<String>();
        bail!("{name} differs at byte {start}:\n{}\nSPIRE's:\n{}", part(&printed), part(&expected));
    }
    Ok(())
}

/// Puts the state's database into an empty one.
fn load(database: &Database, state: &Path) -> Result<()> {
    let dump = state.join("datastore.sql");
    let port = database.server().map_or(0, Server::port).to_string();
    let mut client = match database.engine() {
        Engine::Sqlite => {
            let file = database.sqlite_file().context("no file")?;
            let own = state.join("datastore.sqlite3");
            let spires = repository().join("crates/datastore-sql/testdata/spire-v25.sqlite3");
            std::fs::copy(if own.exists() { own } else { spires }, file)?;
            return Ok(());
        }
        Engine::Postgres => {
            let mut psql = Command::new("psql");
            psql.args(["-q", "-X", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port])
                .args(["-U", Server::USER, "-d", database.name()])
                .env("PGPASSWORD", Server::PASSWORD);
            psql
        }
        Engine::MariaDb | Engine::MySql => {
            let mut mariadb = Command::new("mariadb");
            mariadb
                .args(["--no-defaults", "-h", "127.0.0.1", "-P", &port, "-u", Server::USER])
                .arg(format!("-p{}", Server::PASSWORD))
                .arg(database.name());
            mariadb
        }
    };
    let done = client.stdin(std::fs::File::open(dump)?).stdout(Stdio::null()).output()?;
    if !done.status.success() {
        bail!("{}: the dump is refused: {}", database.engine(), String::from_utf8_lossy(&done.stderr));
    }
    Ok(())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
