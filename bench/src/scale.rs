//! Many entries: what each costs to create, how long a server takes to start on them, and what it asks of an idle database.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use steeple_e2e::{Database, Deployment, Engine, NODE};

use crate::Plan;

/// All of them, as files for `entry create -data`.
const FILES: usize = 10;
/// 100,000 entries.
const CREATE_LIMIT: Duration = Duration::from_secs(20);
/// What the short form may take: starting ten commands counts more there.
const CREATE_SLACK: Duration = Duration::from_secs(2);
/// The last tenth against the first.
const GROWTH_LIMIT: f64 = 1.5;
const START_LIMIT: Duration = Duration::from_secs(5);
/// Statements a second.
const IDLE_LIMIT: f64 = 1.0;
const IDLE_WINDOW: Duration = Duration::from_secs(20);

pub async fn measure(plan: &Plan, bin_dir: &str, engine: Engine) -> Result<Vec<String>> {
    let database = Arc::new(Database::alone(engine)?);
    let mut deployment =
        Deployment::builder().bin_dir(bin_dir).quiet().disk_keys().database(&database).start()?;
    println!("{engine}, {} entries", plan.scale);
    let mut late = create(&deployment, plan)?;
    late.extend(cold_start(&mut deployment, &database, plan)?);
    late.extend(idle(&deployment, &database)?);
    Ok(late.into_iter().map(|text| format!("{engine}: {text}")).collect())
}

fn create(deployment: &Deployment, plan: &Plan) -> Result<Vec<String>> {
    let each = plan.scale / FILES;
    let mut times = Vec::new();
    for file in 0..FILES {
        let path = deployment.path("entries.json");
        std::fs::write(&path, entries(file * each, each))?;
        let begin = Instant::now();
        let ran = deployment.server(&["entry", "create", "-data", &path.to_string_lossy()]);
        times.push(begin.elapsed());
        anyhow::ensure!(ran.code == Some(0), "entry create: {}{}", ran.stdout, ran.stderr);
    }
    let (first, last, all) = (times[0], times[FILES - 1], times.iter().sum::<Duration>());
    let growth = last.as_secs_f64() / first.as_secs_f64();
    let limit = CREATE_LIMIT.mul_f64(plan.scale as f64 / 100_000.0) + CREATE_SLACK;
    let limit = limit.min(CREATE_LIMIT);
    println!(
        "  entry create -data: {all:?} (limit {limit:?}); first tenth {first:?}, last {last:?}: {growth:.2} times"
    );
    let mut late = Vec::new();
    if all > limit {
        late.push(format!("creating {} entries took {all:?}", plan.scale));
    }
    if growth > GROWTH_LIMIT {
        late.push(format!("the last tenth cost {growth:.2} times the first"));
    }
    Ok(late)
}

/// A server that finds five times as many rows in the log as there are entries.
fn cold_start(deployment: &mut Deployment, database: &Database, plan: &Plan) -> Result<Vec<String>> {
    drop(deployment.server.take());
    // What the log would hold had every entry been updated four times.
    database.query(
        "insert into steeple_changes (revision, kind, name, data) \
         select m.head + row_number() over (order by g.n, c.revision), c.kind, c.name, c.data \
         from steeple_changes c, steeple_meta m, (select 1 as n union all select 2 union all select 3 union all select 4) g",
    )?;
    database.query("update steeple_meta set head = (select max(revision) from steeple_changes)")?;
    let rows = database.query("select count(*) from steeple_changes")?;
    let begin = Instant::now();
    deployment.start_server()?;
    let id = format!("scale-{}", plan.scale - 1);
    let shown = deployment.server_ok(&["entry", "show", "-entryID", &id])?;
    let counted = deployment.server_ok(&["entry", "count"])?;
    let took = begin.elapsed();
    anyhow::ensure!(shown.contains(&format!("/{id}")), "{shown}");
    anyhow::ensure!(counted.starts_with(&plan.scale.to_string()), "{counted}");
    println!(
        "  start with {} log rows: first correct answer in {took:?} (limit {START_LIMIT:?})",
        rows.trim()
    );
    let rss =
        deployment.server.as_ref().and_then(steeple_e2e::Daemon::rss_kib).context("the server has gone")?;
    println!("  memory: {rss} KiB");
    Ok((took > START_LIMIT).then(|| format!("start took {took:?}")).into_iter().collect())
}

fn idle(deployment: &Deployment, database: &Database) -> Result<Vec<String>> {
    let Some(server) = database.server() else { return Ok(Vec::new()) };
    std::thread::sleep(Duration::from_secs(5));
    let before = server.statements()?;
    // The question itself.
    let own = server.statements()? - before;
    let before = server.statements()?;
    std::thread::sleep(IDLE_WINDOW);
    let asked = server.statements()?.saturating_sub(before + own);
    let rate = asked as f64 / IDLE_WINDOW.as_secs_f64();
    anyhow::ensure!(deployment.server.is_some(), "the server has gone");
    println!("  idle: {rate:.2} statements a second (limit {IDLE_LIMIT})");
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
