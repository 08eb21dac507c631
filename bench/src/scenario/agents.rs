//! Many agents on one server.

use std::time::Duration;

use anyhow::Result;

use super::Run;
use crate::measure::Window;
use crate::record::Unit;
use crate::subject::Place;
use crate::wire::herd::{CHANGE, Herd, now};

/// One entry change that every agent must hear of.
pub async fn fan_out(mut run: Run<'_>) -> Result<()> {
    let count = run.plan.size("fan-out-agents");
    let mut place = run.subject.server().await?;
    let mut herd = Herd::start(&mut place, count, run.subject.steeple).await?;
    let (cpu, latencies) = change(&mut place, &mut herd, 3).await?;
    run.notes.cpu(&format!("fan-out/{count}/server-cpu-per-agent"), cpu, None);
    run.notes.latencies(&format!("fan-out/{count}/latency"), &latencies);
    run.notes.one("fan-out/server-peak", Unit::Mebibytes, place.server()?.memory()?.peak);
    Ok(())
}

/// `times` changes that reach all; CPU microseconds an agent and change, and when each heard of it.
pub async fn change(place: &mut Place, herd: &mut Herd, times: usize) -> Result<(f64, Vec<Duration>)> {
    let window = Window::open(place.server()?)?;
    let mut latencies = Vec::new();
    for n in 0..times {
        let mut entry = place.admin.others("fan", n, 1).remove(0);
        entry.id = format!("{CHANGE}{n}");
        let id = entry.id.clone();
        let begin = now();
        place.admin.create(vec![entry]).await?;
        latencies.extend(herd.seen(&id, begin).await?);
    }
    Ok((window.micros(times * herd.agents())?, latencies))
}

/// Agents that are connected and have nothing to ask.
pub async fn held(mut run: Run<'_>) -> Result<()> {
    let count = run.plan.size("agents");
    let mut place = run.subject.server().await?;
    let server = place.server()?;
    let before = server.memory()?.rss;
    let herd = Herd::start(&mut place, count, run.subject.steeple).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let window = Window::open(server)?;
    tokio::time::sleep(Duration::from_secs(run.plan.size("idle-seconds") as u64)).await;
    run.notes.one(&format!("agents/{count}/idle-server-cpu"), Unit::Percent, window.share()?);
    let memory = server.memory()?;
    run.notes.one(&format!("agents/{count}/server-rss"), Unit::Mebibytes, memory.rss);
    run.notes.one(&format!("agents/{count}/server-peak"), Unit::Mebibytes, memory.peak);
    run.notes.one(
        &format!("agents/{count}/server-rss-per-thousand"),
        Unit::Mebibytes,
        (memory.rss - before) * 1000.0 / herd.agents() as f64,
    );
    Ok(())
}
