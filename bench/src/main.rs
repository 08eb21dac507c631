//! The same work on Steeple, on a real SPIRE or on both by turns, over their public APIs: CPU, memory and time of each, their ratio,
//! and what of the promises is kept. `--help` lists scenarios and sizes; docs/benchmarks.md has the results.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark reads the clock and prints"
)]

mod limits;
mod measure;
mod plan;
mod record;
mod report;
mod scenario;
mod subject;
mod targets;
mod wire;

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use plan::Plan;
use record::{Notes, Record};
use report::{Machine, Report};
use scenario::{Run, Scenario};
use subject::Subject;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let first = args.next();
    match first.as_deref() {
        // What it starts of itself: few threads, quick to start.
        Some("client") => {
            let socket = args.next().unwrap_or_default();
            alone()?.block_on(scenario::client(Path::new(&socket)))
        }
        Some("herd") => alone()?.block_on(wire::herd::run()),
        _ => {
            let Some(plan) = Plan::parse(first.into_iter().chain(args))? else { return Ok(()) };
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?
                .block_on(run(plan))
        }
    }
}

fn alone() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn run(mut plan: Plan) -> Result<()> {
    measure::raise_file_limit();
    if plan.assert {
        plan.shorten(targets::ASSERT_SIZES);
        if plan.only.is_empty() {
            plan.only = targets::ASSERT_SCENARIOS.iter().map(|name| (*name).to_owned()).collect();
        }
    }
    let subjects = subjects(&plan)?;
    let names: Vec<String> = subjects.iter().map(|subject| subject.name.clone()).collect();
    let mut machine = Machine::here();
    println!("{}: {}", names.join(" and "), machine.text());
    let mut record = Record::default();
    for file in &plan.with {
        let json = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        machine.earlier.push(record.take_over(&json).with_context(|| file.display().to_string())?);
    }
    if !plan.assert && record.limits.is_empty() {
        record.limits = limits::measure().await?;
    }
    for scenario in scenario::ALL.iter().filter(|scenario| chosen(&plan, scenario)) {
        for round in 0..plan.rounds.max(1) {
            let mut order: Vec<&Subject> = subjects.iter().collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for subject in order {
                one(&plan, scenario, subject, &mut record).await;
            }
        }
        // A long run that is stopped has told what it had.
        write(&plan, &Report::new(&machine, &names, &record))?;
    }
    let report = Report::new(&machine, &names, &record);
    write(&plan, &report)?;
    println!("{}", report::text(&report));
    let mut wrong = record.errors.clone();
    if plan.assert {
        wrong.extend(targets::past_limits(&record, &names[0]));
    }
    if wrong.is_empty() {
        println!("1 passed, 0 failed");
        return Ok(());
    }
    println!("0 passed, 1 failed");
    bail!("{}", wrong.join("\n"))
}

fn write(plan: &Plan, report: &Report<'_>) -> Result<()> {
    let texts = [
        (&plan.json, report.json()?),
        (&plan.html, report::html(report)),
        (&plan.markdown, report::markdown(report)),
        (&plan.sizing, report::sizing(report)),
    ];
    for (path, text) in texts {
        if let Some(path) = path {
            std::fs::write(path, text)?;
        }
    }
    Ok(())
}

async fn one(plan: &Plan, scenario: &Scenario, subject: &Subject, record: &mut Record) {
    let begin = Instant::now();
    let notes = Notes { record, subject: &subject.name };
    let done = (scenario.run)(Run { plan, subject, notes }).await;
    let took = begin.elapsed().as_secs_f64();
    match done {
        Ok(()) => eprintln!("{} on {}: {took:.1} s", scenario.name, subject.name),
        Err(error) => {
            let text = format!("{} on {}: {error:#}", scenario.name, subject.name);
            eprintln!("{text} (after {took:.1} s)");
            record.errors.push(text);
        }
    }
}

fn chosen(plan: &Plan, scenario: &Scenario) -> bool {
    if plan.only.is_empty() {
        return scenario.short || plan.full;
    }
    plan.only.iter().any(|name| name == scenario.name)
}

fn subjects(plan: &Plan) -> Result<Vec<Subject>> {
    if let Some(running) = &plan.running {
        return Ok(vec![Subject::running(running.clone())]);
    }
    let mut subjects: Vec<Subject> = Vec::new();
    for dir in &plan.bin_dirs {
        let mut subject = Subject::binaries(dir)?;
        let alike = subjects.iter().filter(|there| there.name.starts_with(&subject.name)).count();
        if alike > 0 {
            subject.name = format!("{}-{}", subject.name, alike + 1);
        }
        subjects.push(subject);
    }
    Ok(subjects)
}
