//! An agent learns its entries: all of them, then that nothing changed.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::Run;
use crate::measure::Window;
use crate::record::Unit;
use crate::wire::node::Node;

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let mut place = run.subject.server().await?;
    let (count, syncs) = (run.plan.size("sync-entries"), run.plan.size("syncs"));
    let entries = place.admin.others("bench", 0, count);
    place.admin.create_many(entries).await?;
    let node = Node::seeing(&mut place, count).await?;
    let server = place.server()?;
    let operations = syncs * count;

    let window = Window::open(server)?;
    for _ in 0..syncs {
        let (known, read) = node.sync(true).await?;
        ensure!(known >= count && read.len() >= count, "{} of {known} entries were read", read.len());
    }
    let by_poll = window.micros(operations)?;
    run.notes.cpu("sync/first-by-poll/server-cpu-each", by_poll, None);

    let window = Window::open(server)?;
    for _ in 0..syncs {
        ensure!(node.authorized().await? >= count, "GetAuthorizedEntries does not give all");
    }
    run.notes.cpu("sync/get-authorized/server-cpu-each", window.micros(operations)?, None);

    let window = Window::open(server)?;
    for _ in 0..syncs {
        ensure!(node.sync(false).await?.0 >= count, "SyncAuthorizedEntries does not name all");
    }
    run.notes.cpu("sync/steady-by-poll/server-cpu-each", window.micros(operations)?, None);

    // How its own agent does it: by the push stream if there is one.
    if !run.subject.steeple {
        run.notes.cpu("sync/first/server-cpu-each", by_poll, None);
        return Ok(());
    }
    let window = Window::open(server)?;
    let mut latencies = Vec::new();
    for _ in 0..syncs {
        let at = Instant::now();
        let mut stream = node.watch(0, String::new()).await?;
        let mut read = 0;
        loop {
            let message = stream.message().await?.context("the push stream ended")?;
            read += message.entries.len();
            if !message.more {
                break;
            }
        }
        ensure!(read >= count, "{read} entries were pushed");
        latencies.push(at.elapsed());
    }
    run.notes.cpu("sync/first/server-cpu-each", window.micros(operations)?, None);
    run.notes.latencies("sync/first-by-push/latency", &latencies);
    run.notes.one("sync/server-peak", Unit::Mebibytes, server.memory()?.peak);
    Ok(())
}
