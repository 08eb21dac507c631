//! A server and an agent with nothing to do.

use std::time::Duration;

use anyhow::Result;

use super::Run;
use crate::measure::Window;
use crate::record::Unit;

/// What start-up still does is not idling.
const SETTLE: Duration = Duration::from_secs(3);

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let place = run.subject.with_agent().await?;
    let (server, agent) = (place.server()?, place.agent()?);
    tokio::time::sleep(SETTLE).await;
    let windows = (Window::open(server)?, Window::open(agent)?);
    tokio::time::sleep(Duration::from_secs(run.plan.size("idle-seconds") as u64)).await;
    let notes = &mut run.notes;
    notes.one("idle/server-cpu", Unit::Percent, windows.0.share()?);
    notes.one("idle/agent-cpu", Unit::Percent, windows.1.share()?);
    notes.one("idle/server-rss", Unit::Mebibytes, server.memory()?.rss);
    notes.one("idle/server-peak", Unit::Mebibytes, server.memory()?.peak);
    notes.one("idle/agent-rss", Unit::Mebibytes, agent.memory()?.rss);
    notes.one("idle/agent-peak", Unit::Mebibytes, agent.memory()?.peak);
    Ok(())
}
