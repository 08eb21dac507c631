//! As large as one machine simulates.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use steeple_e2e::{Database, Engine};

use super::{Run, agents, cold, propagation};
use crate::measure::Window;
use crate::record::Unit;
use crate::wire::herd::{Herd, now};

/// Entries: each step of the way to the full size tells whether the next one costs more.
pub async fn entries(mut run: Run<'_>) -> Result<()> {
    let full = run.plan.size("scale-entries");
    let database = Arc::new(Database::alone(Engine::Sqlite)?);
    let options = |builder: steeple_e2e::DeploymentBuilder| builder.disk_keys().database(&database);
    let mut place = run.subject.open(options, true).await?;
    let mut made = 0;
    for size in [full / 10, full / 2, full] {
        let server = place.server()?;
        let (window, begin, added) = (Window::open(server)?, Instant::now(), size - made);
        while made < size {
            let some = (size - made).min(500);
            let entries = place.admin.strangers("bench", made, some);
            place.admin.create(entries).await?;
            made += some;
        }
        let key = format!("scale-entries/{size}");
        run.notes.cpu(&format!("{key}/create/server-cpu-each"), window.micros(added)?, None);
        let rate = begin.elapsed().as_secs_f64() * 1e6 / added as f64;
        run.notes.one(&format!("{key}/create/time-each"), Unit::Micros, rate);
        run.notes.one(&format!("{key}/server-rss"), Unit::Mebibytes, server.memory()?.rss);
        run.notes.one(&format!("{key}/server-peak"), Unit::Mebibytes, server.memory()?.peak);
        let window = Window::open(server)?;
        tokio::time::sleep(Duration::from_secs(run.plan.size("idle-seconds") as u64)).await;
        run.notes.one(&format!("{key}/idle-server-cpu"), Unit::Percent, window.share()?);
        let window = Window::open(server)?;
        let trials = run.plan.size("trials");
        let (created, _) = propagation::open_stream(&mut place, trials).await?;
        run.notes.latencies(&format!("{key}/propagation"), &created);
        run.notes.cpu(&format!("{key}/server-cpu-per-change"), window.micros(2 * trials + 2)?, None);
    }
    // Its tokens and the agent's alias are gone with nothing; the alias of the join token is an entry, too.
    let count = place.admin.count().await?;
    let own = place.own()?;
    own.agent.take();
    own.server.take();
    let (took, process) = cold::start(&mut place, count).await?;
    let key = format!("scale-entries/{full}");
    run.notes.latencies(&format!("{key}/cold-start"), &[took]);
    run.notes.one(&format!("{key}/cold-start-cpu"), Unit::Seconds, process.cpu()?);
    run.notes.one(&format!("{key}/cold-start-rss"), Unit::Mebibytes, process.memory()?.rss);
    run.notes.one(&format!("{key}/cold-start-peak"), Unit::Mebibytes, process.memory()?.peak);
    Ok(())
}

/// Agents: connected, idle, told of a change, and all at once after a restart of the server.
pub async fn agents(mut run: Run<'_>) -> Result<()> {
    let count = run.plan.size("scale-agents");
    let mut place = run.subject.open(steeple_e2e::DeploymentBuilder::disk_keys, false).await?;
    let server = place.server()?;
    let empty = server.memory()?.rss;
    let (window, begin) = (Window::open(server)?, Instant::now());
    let mut herd = Herd::start(&mut place, count, run.subject.steeple).await?;
    let key = format!("scale-agents/{count}");
    run.notes.cpu(
        &format!("{key}/join/server-cpu-per-agent"),
        window.micros(count)?,
        Some("tls-handshake-mutual"),
    );
    run.notes.one(&format!("{key}/join/time"), Unit::Seconds, begin.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let steady = server.memory()?;
    run.notes.one(&format!("{key}/server-rss"), Unit::Mebibytes, steady.rss);
    run.notes.one(&format!("{key}/server-peak"), Unit::Mebibytes, steady.peak);
    run.notes.one(
        &format!("{key}/server-rss-per-thousand"),
        Unit::Mebibytes,
        (steady.rss - empty) * 1000.0 / count as f64,
    );
    let window = Window::open(server)?;
    tokio::time::sleep(Duration::from_secs(run.plan.size("idle-seconds") as u64)).await;
    run.notes.one(&format!("{key}/idle-server-cpu"), Unit::Percent, window.share()?);

    let (cpu, latencies) = agents::change(&mut place, &mut herd, 3).await?;
    run.notes.cpu(&format!("{key}/fan-out/server-cpu-per-agent"), cpu, None);
    run.notes.latencies(&format!("{key}/fan-out/latency"), &latencies);
    run.notes.one(&format!("{key}/fan-out/server-peak"), Unit::Mebibytes, server.memory()?.peak);

    let own = place.own()?;
    own.server.take();
    let begin = now();
    let daemon = own.spawn_server()?;
    let process = crate::measure::Process { pid: daemon.pid() };
    own.server = Some(daemon);
    let latencies = herd.back(begin).await?;
    run.notes.latencies(&format!("{key}/herd-after-restart/latency"), &latencies);
    run.notes.one(&format!("{key}/herd-after-restart/server-cpu"), Unit::Seconds, process.cpu()?);
    run.notes.one(&format!("{key}/herd-after-restart/server-peak"), Unit::Mebibytes, process.memory()?.peak);
    Ok(())
}
