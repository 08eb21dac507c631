//! A server that starts on many entries and a long change log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use steeple_e2e::{Database, Engine};

use super::Run;
use crate::measure::Process;
use crate::record::Unit;
use crate::subject::Place;
use crate::wire::Admin;

pub async fn run(mut run: Run<'_>) -> Result<()> {
    let (count, rows) = (run.plan.size("cold-entries"), run.plan.size("log-rows"));
    let database = Arc::new(Database::alone(Engine::Sqlite)?);
    let mut place = run.subject.open(|builder| builder.disk_keys().database(&database), false).await?;
    let entries = place.admin.strangers("bench", 0, count);
    place.admin.create_many(entries).await?;
    place.own()?.server.take();
    if run.subject.steeple {
        lengthen_log(&database, rows)?;
    }
    let mut latencies = Vec::new();
    let mut cpu = Vec::new();
    for _ in 0..run.plan.size("restarts") {
        let (took, process) = start(&mut place, count).await?;
        latencies.push(took);
        cpu.push(process.cpu()?);
        run.notes.one(&format!("cold-start/{count}/server-peak"), Unit::Mebibytes, process.memory()?.peak);
        place.own()?.server.take();
    }
    run.notes.latencies(&format!("cold-start/{count}/first-answer"), &latencies);
    for cpu in cpu {
        run.notes.one(&format!("cold-start/{count}/server-cpu"), Unit::Millis, cpu * 1e3);
    }
    Ok(())
}

/// What the log would hold had entries been updated again and again.
pub fn lengthen_log(database: &Database, rows: usize) -> Result<()> {
    let there: usize = database.query("select count(*) from steeple_changes")?.trim().parse()?;
    for _ in 0..rows.saturating_sub(there).div_ceil(there.max(1)) {
        database.query(&format!(
            "insert into steeple_changes (revision, kind, name, data) \
             select m.head + row_number() over (order by c.revision), c.kind, c.name, c.data \
             from (select * from steeple_changes order by revision limit {there}) c, steeple_meta m",
        ))?;
        database.query("update steeple_meta set head = (select max(revision) from steeple_changes)")?;
    }
    Ok(())
}

/// Until it has counted its entries.
pub async fn start(place: &mut Place, count: usize) -> Result<(Duration, Process)> {
    let socket = place.at.server_socket.clone();
    let parent = place.at.parent.clone();
    let begin = Instant::now();
    let own = place.own()?;
    let daemon = own.spawn_server()?;
    let process = Process { pid: daemon.pid() };
    own.server = Some(daemon);
    loop {
        if let Ok(mut admin) = Admin::connect(&socket, &parent).await
            && let Ok(counted) = admin.count().await
        {
            ensure!(counted == count, "{counted} entries instead of {count}");
            place.admin = admin;
            return Ok((begin.elapsed(), process));
        }
        ensure!(begin.elapsed() < Duration::from_mins(10), "the server does not start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
