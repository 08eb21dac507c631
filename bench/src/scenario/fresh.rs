//! A client process that starts, fetches its SVID and ends: this very program, as `steeple-bench client`.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::process::Command;

use super::Run;
use crate::measure::Window;
use crate::wire::workload::Held;

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let mut place = run.subject.with_agent().await?;
    let mine = place.admin.mine("mine");
    place.admin.create(vec![mine]).await?;
    let socket = place.at.workload_socket.clone();
    Held::patiently(&socket, Duration::from_millis(100)).await?;
    let count = run.plan.size("fresh");
    let program = std::env::current_exe()?;
    let window = Window::open(place.agent()?)?;
    let mut latencies = Vec::new();
    for _ in 0..count {
        let at = Instant::now();
        let ended = Command::new(&program).arg("client").arg(&socket).stdin(Stdio::null()).status().await?;
        latencies.push(at.elapsed());
        ensure!(ended.success(), "the client failed: {ended}");
    }
    run.notes.latencies("fresh/process-to-svid", &latencies);
    run.notes.cpu("fresh/agent-cpu", window.micros(count)?, Some("echo-new-connection"));
    Ok(())
}

/// The program `steeple-bench client SOCKET`.
pub async fn client(socket: &Path) -> Result<()> {
    Held::open(socket).await.map(drop)
}
