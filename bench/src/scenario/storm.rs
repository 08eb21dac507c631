//! All SVIDs of many agents expire at one moment.

use std::time::Instant;

use anyhow::Result;
use futures::future::try_join_all;

use super::Run;
use crate::measure::Window;
use crate::record::Unit;
use crate::wire::node::{Node, Way, tokens};

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let (agents, svids) = (run.plan.size("storm-agents"), run.plan.size("storm-svids"));
    let mut place = run.subject.server().await?;
    let entries = place.admin.others("bench", 0, svids);
    let ids: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
    place.admin.create_many(entries).await?;
    let way = Way::to(&mut place).await?;
    let mut nodes = vec![Node::seeing(&mut place, svids).await?];
    for token in tokens(&mut place.admin, agents - 1).await? {
        nodes.push(way.join(&token).await?);
    }
    // All must be known to the server, and connected, before the storm.
    for node in &nodes {
        while node.sync(true).await?.0 < svids {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }
    let server = place.server()?;
    let window = Window::open(server)?;
    let begin = Instant::now();
    let all = try_join_all(nodes.iter().map(|node| async {
        node.sign(&ids).await?;
        anyhow::Ok(begin.elapsed())
    }));
    run.notes.latencies("storm/agent-has-all", &all.await?);
    run.notes.cpu("storm/server-cpu-each", window.micros(agents * svids)?, Some("csr-verify-and-sign"));
    run.notes.one("storm/server-peak", Unit::Mebibytes, server.memory()?.peak);
    Ok(())
}
