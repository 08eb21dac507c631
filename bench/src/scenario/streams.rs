//! Many workloads that hold their streams open.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::future::try_join_all;

use super::Run;
use crate::measure::Window;
use crate::record::Unit;
use crate::wire::workload::Held;

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let (count, updates) = (run.plan.size("streams"), run.plan.size("updates"));
    let mut place = run.subject.with_agent().await?;
    let agent = place.agent()?;
    let anchor = place.admin.mine("anchor");
    place.admin.create(vec![anchor]).await?;
    let mut held = vec![Held::patiently(&place.at.workload_socket, Duration::from_millis(100)).await?];
    for _ in 1..count {
        held.push(Held::open(&place.at.workload_socket).await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.notes.one(&format!("streams/{count}/agent-rss"), Unit::Mebibytes, agent.memory()?.rss);

    let window = Window::open(agent)?;
    let mut latencies = Vec::new();
    for n in 0..updates {
        // One more identity, then one less: an update of each stream either way.
        let (name, create) = (format!("update-{}", n / 2), n % 2 == 0);
        let entry = place.admin.mine(&name);
        let at = Instant::now();
        if create {
            place.admin.create(vec![entry]).await?;
        } else {
            place.admin.delete(vec![entry.id]).await?;
        }
        let name = name.as_str();
        let took = try_join_all(held.iter_mut().map(|stream| async move {
            stream.until_named(name, create).await?;
            anyhow::Ok(at.elapsed())
        }));
        latencies.extend(took.await?);
    }
    run.notes.cpu(&format!("streams/{count}/agent-cpu-per-update"), window.micros(updates * count)?, None);
    run.notes.latencies(&format!("streams/{count}/update-latency"), &latencies);
    tokio::time::sleep(Duration::from_secs(1)).await;
    run.notes.one(&format!("streams/{count}/agent-rss-after-updates"), Unit::Mebibytes, agent.memory()?.rss);
    run.notes.one(&format!("streams/{count}/agent-peak"), Unit::Mebibytes, agent.memory()?.peak);
    Ok(())
}
