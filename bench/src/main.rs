//! Measures what the issue promises, on the binaries in `--bin-dir` (ours or SPIRE's): the time from an API call to the change on an
//! open Workload API stream, and what idle processes hold.
//!
//! `steeple-bench --bin-dir DIR [--assert] [--trials N] [--entries N]`; `--assert` fails past the limits.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a benchmark reads the clock and prints")]

mod idle;
mod propagation;
mod stats;

use anyhow::{Context, Result, bail};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    pub assert: bool,
    pub trials: usize,
    pub entries: usize,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<()> {
    let mut plan = Plan { assert: false, trials: 200, entries: 1000 };
    let mut args = std::env::args().skip(1);
    let mut bin_dir = std::env::var("STEEPLE_BIN_DIR").ok();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--assert" => plan.assert = true,
            "--bin-dir" => bin_dir = args.next(),
            "--trials" => plan.trials = args.next().context("--trials N")?.parse()?,
            "--entries" => plan.entries = args.next().context("--entries N")?.parse()?,
            other => bail!("no option {other}"),
        }
    }
    let bin_dir = bin_dir.context("--bin-dir names the folder with spire-server and spire-agent")?;
    let mut late = Vec::new();
    let deployment = steeple_e2e::Deployment::builder().bin_dir(&bin_dir).quiet().start_with_agent()?;
    println!(
        "subject: {:?}, {} entries, {} trials, one machine, SQLite",
        deployment.subject(),
        plan.entries,
        plan.trials
    );
    late.extend(idle::measure(&deployment, &plan).await?);
    late.extend(propagation::measure(&deployment, &plan).await?);
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
