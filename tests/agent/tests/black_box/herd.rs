//! Many processes that ask at the same moment, while the server is down.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use steeple_e2e::{Daemon, Deployment, Subject, Workload};
use steeple_proto::workload::JwtsvidRequest;

use crate::raw::Raw;

/// Where a process of the herd asks, and for what.
const SOCKET: &str = "STEEPLE_HERD_SOCKET";
const AUDIENCE: &str = "STEEPLE_HERD_AUDIENCE";
const LONG: Duration = Duration::from_mins(1);

/// This test is one process of the herd, if it is told where to ask.
#[test]
fn one_of_the_herd() -> Result<()> {
    let Some(socket) = std::env::var_os(SOCKET) else { return Ok(()) };
    let mut raw = Raw::connect(Path::new(&socket), 1 << 20)?;
    // Until all are there.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    if let Ok(audience) = std::env::var(AUDIENCE) {
        let request = JwtsvidRequest { audience: vec![audience], ..JwtsvidRequest::default() };
        raw.call("/SpiffeWorkloadAPI/FetchJWTSVID", &request.encode_to_vec(), true)?;
    } else {
        raw.fetch_x509_svid()?;
    }
    ensure!(raw.message()?.len() > 100);
    Ok(())
}

fn herd(d: &Deployment, size: usize, audience: Option<&str>) -> Result<usize> {
    let start = || -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "herd::one_of_the_herd", "--test-threads=1"]);
        // A thousand backtraces would need all of the memory.
        command.env(SOCKET, d.workload_socket()).env("RUST_BACKTRACE", "0");
        audience.map(|audience| command.env(AUDIENCE, audience));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().context("one of the herd does not start")
    };
    let mut all: Vec<Child> = (0..size).map(|_| start()).collect::<Result<_>>()?;
    for child in &mut all {
        drop(child.stdin.take());
    }
    let mut served = 0;
    for child in &mut all {
        served += usize::from(child.wait()?.success());
    }
    Ok(served)
}

#[tokio::test]
async fn a_thousand_processes_that_ask_at_once_are_served_while_the_server_is_down() -> Result<()> {
    let size = if std::env::var_os("STEEPLE_FIGURES").is_some() { 1000 } else { 200 };
    let mut d = Deployment::builder().quiet().start_with_agent()?;
    let steeple = d.subject() == Subject::Steeple;
    d.entry_for_me("me", "/me")?;
    d.eventually("an identity", LONG, || d.agent_api(&["api", "fetch"]).code == Some(0))?;
    let fetch =
        |audience: &str| JwtsvidRequest { audience: vec![audience.into()], ..JwtsvidRequest::default() };
    d.workload().await?.api.fetch_jwtsvid(Workload::request(fetch("known"))).await?;
    d.server.as_mut().context("no server")?.kill();
    let before = d.agent.as_ref().and_then(Daemon::rss_kib).context("no agent")?;
    let x509 = herd(&d, size, None)?;
    let jwt = herd(&d, size, Some("known"))?;
    let after = d.agent.as_ref().and_then(Daemon::rss_kib).context("no agent")?;
    println!("{:?}: {x509} and {jwt} of {size} processes served, {before} → {after} KiB", d.subject());
    ensure!(x509 == size && jwt == size, "{x509} and {jwt} of {size}");
    ensure!(!steeple || after < before + 64 * 1024, "{before} → {after} KiB");
    // What is not there is refused, not waited for without end; the next one is served.
    if size == 1000 {
        ensure!(herd(&d, size, Some("unknown"))? == 0, "nobody can sign it");
        d.workload().await?.api.fetch_jwtsvid(Workload::request(fetch("known"))).await?;
    }
    Ok(())
}
