//! What a workload's call costs the agent.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use steeple_e2e::Workload;

use super::Run;
use crate::measure::{Process, Window};
use crate::record::Unit;
use crate::wire::workload::{Held, fetch_jwt, fetch_secrets, fetch_x509, validate_jwt};

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let mut place = run.subject.with_agent().await?;
    let calls = run.plan.size("calls");
    let caller = Caller { agent: place.agent()?, socket: place.at.workload_socket.clone(), calls };
    let mut made = 0;
    for count in [1, 10, 100] {
        for n in made..count {
            let entry = place.admin.mine(&format!("mine-{n}"));
            place.admin.create(vec![entry]).await?;
        }
        made = count;
        Held::patiently(&caller.socket, Duration::from_millis(100)).await?.until_count(count).await?;
        x509(&mut run, &caller, count).await?;
        jwt(&mut run, &caller, count).await?;
        if count == 1 {
            validate(&mut run, &caller).await?;
            sds(&mut run, &caller).await?;
        }
    }
    run.notes.one("workload/agent-rss", Unit::Mebibytes, caller.agent.memory()?.rss);
    run.notes.one("workload/agent-peak", Unit::Mebibytes, caller.agent.memory()?.peak);
    Ok(())
}

struct Caller {
    agent: Process,
    socket: PathBuf,
    calls: usize,
}

impl Caller {
    /// Calls one after the other; CPU microseconds of the agent for each, and how long each took.
    async fn call<F: Future<Output = Result<()>>>(
        &self,
        mut once: impl FnMut() -> F,
    ) -> Result<(f64, Vec<Duration>)> {
        once().await?;
        let window = Window::open(self.agent)?;
        let mut latencies = Vec::with_capacity(self.calls);
        for _ in 0..self.calls {
            let at = Instant::now();
            once().await?;
            latencies.push(at.elapsed());
        }
        Ok((window.micros(self.calls)?, latencies))
    }

    async fn connect(&self) -> Result<Workload> {
        Workload::connect(&self.socket).await
    }
}

async fn x509(run: &mut Run<'_>, caller: &Caller, count: usize) -> Result<()> {
    let (cpu, latencies) =
        caller.call(async || fetch_x509(&mut caller.connect().await?, count).await).await?;
    run.notes.cpu(
        &format!("workload/x509-{count}/new-connection/agent-cpu"),
        cpu,
        Some("echo-new-connection"),
    );
    run.notes.latencies(&format!("workload/x509-{count}/new-connection/latency"), &latencies);
    let one = caller.connect().await?;
    let (cpu, latencies) = caller.call(async || fetch_x509(&mut one.clone(), count).await).await?;
    run.notes.cpu(
        &format!("workload/x509-{count}/one-connection/agent-cpu"),
        cpu,
        Some("echo-one-connection"),
    );
    run.notes.latencies(&format!("workload/x509-{count}/one-connection/latency"), &latencies);
    if count > 1 {
        run.notes.cpu(&format!("workload/x509-{count}/agent-cpu-per-svid"), cpu / count as f64, None);
    }
    Ok(())
}

async fn jwt(run: &mut Run<'_>, caller: &Caller, count: usize) -> Result<()> {
    let (cpu, _) =
        caller.call(async || fetch_jwt(&mut caller.connect().await?, count).await.map(drop)).await?;
    run.notes.cpu(
        &format!("workload/jwt-{count}/new-connection/agent-cpu"),
        cpu,
        Some("echo-new-connection"),
    );
    let one = caller.connect().await?;
    let (cpu, latencies) = caller.call(async || fetch_jwt(&mut one.clone(), count).await.map(drop)).await?;
    run.notes.cpu(
        &format!("workload/jwt-{count}/one-connection/agent-cpu"),
        cpu,
        Some("echo-one-connection"),
    );
    run.notes.latencies(&format!("workload/jwt-{count}/one-connection/latency"), &latencies);
    Ok(())
}

async fn validate(run: &mut Run<'_>, caller: &Caller) -> Result<()> {
    let mut one = caller.connect().await?;
    let token = fetch_jwt(&mut one, 1).await?;
    let (cpu, _) = caller.call(async || validate_jwt(&mut one.clone(), &token).await).await?;
    run.notes.cpu("workload/validate-jwt/agent-cpu", cpu, Some("jwt-verify"));
    Ok(())
}

async fn sds(run: &mut Run<'_>, caller: &Caller) -> Result<()> {
    let (cpu, _) =
        caller.call(async || fetch_secrets(steeple_e2e::connect_uds(&caller.socket).await?).await).await?;
    run.notes.cpu("sds/new-connection/agent-cpu", cpu, Some("echo-new-connection"));
    let one = steeple_e2e::connect_uds(&caller.socket).await?;
    let (cpu, latencies) = caller.call(async || fetch_secrets(one.clone()).await).await?;
    run.notes.cpu("sds/one-connection/agent-cpu", cpu, Some("echo-one-connection"));
    run.notes.latencies("sds/one-connection/latency", &latencies);
    Ok(())
}
