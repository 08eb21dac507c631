//! An agent that is stopped and started again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::future::{join_all, try_join_all};

use super::Run;
use crate::measure::Process;
use crate::record::Unit;
use crate::subject::Place;
use crate::wire::workload::Held;

const AGAIN: Duration = Duration::from_millis(2);

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let many = run.plan.size("restart-entries");
    for count in [1, many] {
        let mut place = run.subject.open(steeple_e2e::DeploymentBuilder::disk_keys, true).await?;
        let mine = place.admin.mine("mine");
        place.admin.create(vec![mine]).await?;
        let others = place.admin.others("other", 0, count - 1);
        place.admin.create_many(others).await?;
        Held::patiently(&place.at.workload_socket, AGAIN).await?;
        let (mut latencies, mut cpu) = (Vec::new(), 0.0);
        for _ in 0..run.plan.size("restarts") {
            let (took, used) = first_svid(&mut place).await?;
            latencies.push(took);
            cpu += used;
        }
        let each = cpu * 1e6 / latencies.len().max(1) as f64;
        run.notes.latencies(&format!("restart/{count}/first-svid"), &latencies);
        run.notes.cpu(&format!("restart/{count}/agent-cpu-until-first-svid"), each, None);
        let memory = place.agent()?.memory()?;
        run.notes.one(&format!("restart/{count}/agent-peak"), Unit::Mebibytes, memory.peak);
    }
    with_clients(&mut run).await
}

/// From the start of the process to an SVID; and its CPU seconds until then.
async fn first_svid(place: &mut Place) -> Result<(Duration, f64)> {
    let socket = place.at.workload_socket.clone();
    let own = place.own()?;
    own.agent.take().context("no agent")?.terminate()?;
    let begin = Instant::now();
    let agent = own.spawn_agent(&[])?;
    let pid = agent.pid();
    own.agent = Some(agent);
    Held::patiently(&socket, AGAIN).await?;
    Ok((begin.elapsed(), Process { pid }.cpu()?))
}

/// Workloads that come back by themselves, as SPIFFE's client libraries do.
async fn with_clients(run: &mut Run<'_>) -> Result<()> {
    let count = run.plan.size("clients");
    let mut place = run.subject.open(steeple_e2e::DeploymentBuilder::disk_keys, true).await?;
    let mine = place.admin.mine("mine");
    place.admin.create(vec![mine]).await?;
    let socket = place.at.workload_socket.clone();
    Held::patiently(&socket, AGAIN).await?;
    let held = try_join_all((0..count).map(|_| Held::open(&socket))).await?;
    let own = place.own()?;
    own.agent.take().context("no agent")?.terminate()?;
    join_all(held.into_iter().map(Held::ended)).await;
    let begin = Instant::now();
    let agent = own.spawn_agent(&[])?;
    let process = Process { pid: agent.pid() };
    own.agent = Some(agent);
    let back = try_join_all((0..count).map(|_| async {
        let held = Held::patiently(&socket, Duration::from_millis(20)).await?;
        anyhow::Ok((begin.elapsed(), held))
    }));
    let (latencies, held): (Vec<Duration>, Vec<Held>) = back.await?.into_iter().unzip();
    run.notes.latencies(&format!("restart/{count}-clients/back"), &latencies);
    run.notes.one(&format!("restart/{count}-clients/agent-cpu"), Unit::Millis, process.cpu()? * 1e3);
    run.notes.one(&format!("restart/{count}-clients/agent-peak"), Unit::Mebibytes, process.memory()?.peak);
    drop(held);
    Ok(())
}
