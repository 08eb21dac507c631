//! Measures what the issue promises, on the binaries in `--bin-dir` (ours or SPIRE's): the time from an API call to the change on an
//! open Workload API stream, what idle processes hold, and what many entries cost on each database.
//!
//! `steeple-bench --bin-dir DIR [--assert] [--trials N] [--entries N] [--scale N] [--database ENGINE]… [--statements]`; `--assert` fails past the
//! limits. `--scale 100000 --trials 0` is the long form of the last.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark reads the clock and prints")]

mod idle;
mod propagation;
mod scale;
mod statements;
mod stats;

use anyhow::{Context, Result, bail};
use steeple_e2e::Engine;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub assert: bool,
    pub trials: usize,
    pub entries: usize,
    /// Entries of the measurement that each database gets.
    pub scale: usize,
    pub databases: Vec<Engine>,
    /// Whether to print what PostgreSQL spent its time on.
    pub statements: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<()> {
    let mut plan = Plan {
        assert: false,
        trials: 200,
        entries: 1000,
        scale: 10_000,
        databases: Vec::new(),
        statements: false,
    };
    let mut args = std::env::args().skip(1);
    let mut bin_dir = std::env::var("STEEPLE_BIN_DIR").ok();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--assert" => plan.assert = true,
            "--statements" => plan.statements = true,
            "--bin-dir" => bin_dir = args.next(),
            "--trials" => plan.trials = args.next().context("--trials N")?.parse()?,
            "--entries" => plan.entries = args.next().context("--entries N")?.parse()?,
            "--scale" => plan.scale = args.next().context("--scale N")?.parse()?,
            "--database" => plan.databases.push(args.next().context("--database ENGINE")?.parse()?),
            other => bail!("no option {other}"),
        }
    }
    let bin_dir = bin_dir.context("--bin-dir names the folder with spire-server and spire-agent")?;
    let mut late = Vec::new();
    if plan.trials > 0 {
        let deployment = steeple_e2e::Deployment::builder().bin_dir(&bin_dir).quiet().start_with_agent()?;
        println!(
            "subject: {:?}, {} entries, {} trials, one machine, {}",
            deployment.subject(),
            plan.entries,
            plan.trials,
            deployment.engine()
        );
        late.extend(idle::measure(&deployment, &plan).await?);
        late.extend(propagation::measure(&deployment, &plan).await?);
    }
    if plan.databases.is_empty() {
        plan.databases = vec![Engine::Sqlite, Engine::Postgres];
    }
    for engine in &plan.databases {
        late.extend(scale::measure(&plan, &bin_dir, *engine).await?);
    }
    if late.is_empty() {
        println!("1 passed, 0 failed");
        return Ok(());
    }
    println!("past a limit: {}", late.join("; "));
    println!("0 passed, 1 failed");
    if plan.assert {
        bail!("past a limit");
    }
    Ok(())
}
