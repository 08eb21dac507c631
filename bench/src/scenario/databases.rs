//! Many entries: what each costs to create, how long a server takes to start on them, and what it asks of an idle database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use steeple_e2e::{Database, Deployment, Engine, NODE, Subject};

mod statements;

use super::Run;
use crate::measure::Process;

/// All of them, as files for `entry create -data`.
const FILES: usize = 10;
/// CPU seconds of the server for 100,000 entries. The time is printed, not judged: others share the machine.
const CREATE_LIMIT: f64 = 20.0;
/// What it does besides.
const CREATE_SLACK: f64 = 2.0;
/// The last tenth against the first.
const GROWTH_LIMIT: f64 = 2.0;
/// The same where the work is another program's and only its time is known: others share the machine.
const GROWTH_LIMIT_OF_TIME: f64 = 4.0;
const START_LIMIT: Duration = Duration::from_secs(20);
/// Statements a second.
const IDLE_LIMIT: f64 = 1.0;
const IDLE_WINDOW: Duration = Duration::from_secs(20);

/// SQLite and PostgreSQL, or those that were asked for. Past a limit it is an error.
pub async fn run(run: Run<'_>) -> Result<()> {
    let chosen = &run.plan.databases;
    let engines = if chosen.is_empty() { vec![Engine::Sqlite, Engine::Postgres] } else { chosen.clone() };
    let mut late = Vec::new();
    for engine in engines {
        late.extend(measure(&run, engine)?);
    }
    anyhow::ensure!(late.is_empty(), "past a limit: {}", late.join("; "));
    Ok(())
}

fn measure(run: &Run<'_>, engine: Engine) -> Result<Vec<String>> {
    let plan = Sizes { scale: run.plan.size("database-entries"), statements: run.plan.statements };
    let database = Arc::new(Database::alone(engine)?);
    let mut deployment = Deployment::builder()
        .bin_dir(run.subject.bin_dir()?)
        .quiet()
        .disk_keys()
        .database(&database)
        .start()?;
    println!("{engine}, {} entries", plan.scale);
    let mut late = create(&deployment, &database, &plan)?;
    late.extend(cold_start(&mut deployment, &database, &plan)?);
    late.extend(idle(&deployment, &database, &plan)?);
    Ok(late.into_iter().map(|text| format!("{engine}: {text}")).collect())
}

struct Sizes {
    scale: usize,
    statements: bool,
}

fn create(deployment: &Deployment, database: &Database, plan: &Sizes) -> Result<Vec<String>> {
    let each = plan.scale / FILES;
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    let cpu = cpu_seconds(deployment)?;
    if plan.statements {
        statements::forget(database)?;
    }
    for file in 0..FILES {
        let path = deployment.path("entries.json");
        std::fs::write(&path, entries(file * each, each))?;
        let (begin, before) = (Instant::now(), cpu_seconds(deployment)?);
        let ran = deployment.server(&["entry", "create", "-data", &path.to_string_lossy()]);
        times.push(begin.elapsed().as_secs_f64());
        costs.push(cpu_seconds(deployment)? - before);
        anyhow::ensure!(ran.code == Some(0), "entry create: {}{}", ran.stdout, ran.stderr);
        if plan.statements {
            statements::tell(database, &format!("file {file}"))?;
        }
    }
    let all = times.iter().sum::<f64>();
    // Of three each: other work on the machine must not count.
    let best = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    // SQLite works in the server's own process: there its CPU tells, whatever else the machine does.
    let (told, growth_limit) = match database.engine() {
        Engine::Sqlite => (&costs, GROWTH_LIMIT),
        _ => (&times, GROWTH_LIMIT_OF_TIME),
    };
    let growth = best(&told[FILES - 3..]) / best(&told[..3]);
    let limit = (CREATE_LIMIT * plan.scale as f64 / 100_000.0 + CREATE_SLACK).min(CREATE_LIMIT);
    let cpu = cpu_seconds(deployment)? - cpu;
    let tenths: Vec<String> = told.iter().map(|time| format!("{time:.2}")).collect();
    println!("  entry create -data: {all:.2} s, the server's CPU {cpu:.2} s (limit {limit} s)");
    println!("  tenths: {}; growth {growth:.2} (limit {growth_limit})", tenths.join(" "));
    let mut late = Vec::new();
    if cpu > limit {
        late.push(format!("creating {} entries took {cpu:.2} s of CPU", plan.scale));
    }
    if growth > growth_limit {
        late.push(format!("the last entries cost {growth:.2} times the first"));
    }
    if plan.statements
        && let Some(rows) = statements::rows_read_in_full(database)?
    {
        println!("  rows read by whole-table scans: {rows}");
    }
    Ok(late)
}

fn cpu_seconds(deployment: &Deployment) -> Result<f64> {
    Process { pid: deployment.server.as_ref().context("the server has gone")?.pid() }.cpu()
}

/// A server that finds five times as many rows in the log as there are entries.
fn cold_start(deployment: &mut Deployment, database: &Database, plan: &Sizes) -> Result<Vec<String>> {
    drop(deployment.server.take());
    let rows = if deployment.subject() == Subject::Steeple {
        // What the log would hold had every entry been updated four times.
        database.query(
            "insert into steeple_changes (revision, kind, name, data) \
             select m.head + row_number() over (order by g.n, c.revision), c.kind, c.name, c.data \
             from steeple_changes c, steeple_meta m, (select 1 as n union all select 2 union all select 3 union all select 4) g",
        )?;
        database.query("update steeple_meta set head = (select max(revision) from steeple_changes)")?;
        database.query("select count(*) from steeple_changes")?.trim().to_owned()
    } else {
        "no".to_owned()
    };
    let begin = Instant::now();
    deployment.start_server()?;
    let id = format!("scale-{}", plan.scale - 1);
    let shown = deployment.server_ok(&["entry", "show", "-entryID", &id])?;
    let counted = deployment.server_ok(&["entry", "count"])?;
    let took = begin.elapsed();
    anyhow::ensure!(shown.contains(&format!("/{id}")), "{shown}");
    anyhow::ensure!(counted.starts_with(&plan.scale.to_string()), "{counted}");
    println!("  start with {rows} log rows: first correct answer in {took:?} (limit {START_LIMIT:?})");
    let rss =
        deployment.server.as_ref().and_then(steeple_e2e::Daemon::rss_kib).context("the server has gone")?;
    println!("  memory: {rss} KiB");
    Ok((took > START_LIMIT).then(|| format!("start took {took:?}")).into_iter().collect())
}

fn idle(deployment: &Deployment, database: &Database, plan: &Sizes) -> Result<Vec<String>> {
    let Some(server) = database.server() else { return Ok(Vec::new()) };
    std::thread::sleep(Duration::from_secs(5));
    let before = server.statements()?;
    // The question itself.
    let own = server.statements()? - before;
    if plan.statements {
        statements::forget(database)?;
    }
    let before = server.statements()?;
    std::thread::sleep(IDLE_WINDOW);
    let asked = server.statements()?.saturating_sub(before + own);
    let rate = asked as f64 / IDLE_WINDOW.as_secs_f64();
    anyhow::ensure!(deployment.server.is_some(), "the server has gone");
    println!("  idle: {rate:.2} statements a second (limit {IDLE_LIMIT})");
    if plan.statements {
        statements::tell(database, "idle")?;
    }
    Ok((rate > IDLE_LIMIT).then(|| format!("idle: {rate:.2} statements a second")).into_iter().collect())
}

fn entries(from: usize, count: usize) -> String {
    let one = |n: usize| {
        format!(
            r#"{{"entry_id":"scale-{n}","spiffe_id":"spiffe://example.org/scale-{n}","parent_id":"{NODE}","selectors":[{{"type":"unix","value":"uid:{}"}},{{"type":"unix","value":"gid:{}"}}]}}"#,
            2_000_000 + n,
            n % 1000
        )
    };
    let all: Vec<String> = (from..from + count).map(one).collect();
    format!(r#"{{"entries":[{}]}}"#, all.join(","))
}
