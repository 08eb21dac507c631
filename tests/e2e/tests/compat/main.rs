//! What of SPIRE's is served and what is refused by name, found out on the binaries themselves: every option goes through
//! `validate`, every command and its flags through `-h`, every RPC to a running server or agent. The names stand in
//! docs/compat.list. With `STEEPLE_COMPAT_OUT` the outcome goes to that file, of which `cargo xtask compat` makes
//! docs/compat.md. On SPIRE's binaries everything must be served: that is how the list itself is tested.

mod list;
mod options;
mod rpcs;

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use list::Row;
use steeple_e2e::{Deployment, Subject};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Served,
    Refused,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Served => "served",
            Self::Refused => "refused",
        })
    }
}

#[test]
fn every_option_command_and_rpc_is_served_or_refused_by_name() -> Result<()> {
    let rows = list::read()?;
    // What a flag gives is found to be refused where the flag is.
    let flag = "experimental { feature_flags = [\"wit-svid\"] }";
    let d = Deployment::builder()
        .server_options(flag)
        .agent_options(flag)
        .start_with_agent()
        .or_else(|_| Deployment::builder().server_options(flag).start_with_agent())?;
    let files = options::Files::new()?;
    let (mut found, mut faults) = (String::new(), Vec::new());
    for row in rows.iter().filter(|row| !row.not_applicable) {
        let state = match row.kind.as_str() {
            "server-command" => command(&d, "spire-server", row),
            "agent-command" => command(&d, "spire-agent", row),
            "server-rpc" | "agent-rpc" => rpcs::state(&d, &files, row),
            _ => files.state(&d, row),
        };
        match state {
            Ok(state) => found.extend([&row.kind, "\t", &row.name, "\t", &state.to_string(), "\n"]),
            Err(why) => faults.push(format!("{} {}: {why:#}", row.kind, row.name)),
        }
    }
    assert!(faults.is_empty(), "neither served nor refused by name:\n{}", faults.join("\n"));
    if d.subject() == Subject::Spire {
        let refused: Vec<&str> = found.lines().filter(|line| !line.ends_with("served")).collect();
        println!("SPIRE does not serve:\n{}", refused.join("\n"));
        return Ok(());
    }
    if let Some(file) = std::env::var_os("STEEPLE_COMPAT_OUT") {
        std::fs::write(&file, found).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

/// A command is there if `-h` shows its usage, and served if that names every flag.
fn command(d: &Deployment, program: &str, row: &Row) -> Result<State> {
    let words = row.name.split(' ');
    let ran = Command::new(d.program(program))
        .args(words)
        .arg("-h")
        .env("SPIRE_SERVER_FFLAGS", "wit-svid")
        .output()?;
    let usage = String::from_utf8_lossy(&ran.stderr).into_owned();
    if !usage.contains("Usage of ") {
        bail!("no usage: {usage}");
    }
    let has = |flag: &str| {
        usage.lines().any(|line| line.trim_start().split(' ').next() == Some(&format!("-{flag}")))
    };
    let missing: Vec<&str> = row.how.split(' ').filter(|flag| !has(flag)).collect();
    if !missing.is_empty() {
        bail!("no flag {missing:?} in {usage}");
    }
    Ok(State::Served)
}
