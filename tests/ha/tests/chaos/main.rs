//! `cargo test -p steeple-ha --test chaos -- [--minutes N] [--servers N] [--agents N] [--database ENGINE] [--seed N]`
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a black box looks at the real clock and prints"
)]

mod calls;
mod check;
mod cluster;
mod failover;
mod latency;
mod observers;
mod proxy;
mod writers;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use steeple_databases::Engine;
use steeple_ha::Ledger;

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub length: Duration,
    pub servers: usize,
    pub agents: usize,
    pub engine: Engine,
    pub seed: u64,
}

/// Shared by writers, observers and the one who kills.
#[derive(Debug, Default)]
pub struct Run {
    pub ledger: Mutex<Ledger>,
    pub stop: AtomicBool,
}

impl Run {
    pub fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

fn main() -> Result<()> {
    let plan = plan()?;
    println!("{plan:?}");
    fastrand::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let handle = runtime.handle().clone();
    let _context = runtime.enter();
    let mut cluster = cluster::Cluster::start(&plan, &handle)?;
    let mut failures = Vec::new();

    println!("== visibility of a write on the other servers");
    failures.extend(handle.block_on(latency::measure(&cluster))?);

    println!("== writers, and servers and the database killed at random");
    let run = Arc::new(Run::default());
    let observers = observers::start(&cluster, &handle);
    let writers = writers::start(&cluster, &run, &handle);
    let kills = cluster.harm_for(plan.length)?;
    println!("{kills}");
    failures.extend(settle(&mut cluster, &run, writers, &observers, &handle)?);

    if plan.engine == Engine::Postgres {
        println!("== the primary dies and a standby takes over");
        let run = Arc::new(Run::default());
        check::forget(&cluster)?;
        observers.forget();
        let writers = writers::start(&cluster, &run, &handle);
        failures.extend(failover::run(&mut cluster, &run)?);
        failures.extend(settle(&mut cluster, &run, writers, &observers, &handle)?);
    }
    drop(observers);
    drop(cluster);
    if failures.is_empty() {
        println!("1 passed, 0 failed");
        return Ok(());
    }
    for failure in &failures {
        println!("DIFFERENCE {failure}");
    }
    bail!("{} differences", failures.len())
}

/// Stops the writers, lets the news arrive, and compares everything with the database.
fn settle(
    cluster: &mut cluster::Cluster,
    run: &Arc<Run>,
    writers: writers::Writers,
    observers: &observers::Observers,
    handle: &tokio::runtime::Handle,
) -> Result<Vec<String>> {
    run.stop.store(true, Ordering::Release);
    handle.block_on(writers.join());
    let (acknowledged, unanswered) = run.ledger().counts();
    println!("{acknowledged} writes acknowledged, {unanswered} without an answer");
    if acknowledged == 0 {
        bail!("no write was acknowledged");
    }
    let mut failures = handle.block_on(check::answers(cluster))?;
    failures.extend(check::writes(cluster, run)?);
    failures.extend(check::identities(cluster, run, observers)?);
    println!("{} differences", failures.len());
    Ok(failures)
}

fn plan() -> Result<Plan> {
    let mut plan = Plan {
        length: Duration::from_mins(1),
        servers: 3,
        agents: 3,
        engine: Engine::Postgres,
        seed: u64::from(std::process::id()),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--minutes" => plan.length = Duration::from_secs_f64(value()?.parse::<f64>()? * 60.0),
            "--servers" => plan.servers = value()?.parse()?,
            "--agents" => plan.agents = value()?.parse()?,
            "--database" => plan.engine = value()?.parse()?,
            "--seed" => plan.seed = value()?.parse()?,
            other => bail!("no option {other}"),
        }
    }
    Ok(plan)
}
