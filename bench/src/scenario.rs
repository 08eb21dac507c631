//! What is measured. Each scenario runs on one subject at a time and ends what it started.

mod agents;
mod attestation;
mod cold;
mod databases;
mod entries;
mod fresh;
mod idle;
mod propagation;
mod restart;
mod scale;
mod sign;
mod storm;
mod streams;
mod sync;
mod workload;

use std::future::Future;
use std::pin::Pin;

use anyhow::Result;

use crate::plan::Plan;
use crate::record::Notes;
use crate::subject::Subject;

pub use fresh::client;

/// What a scenario is given.
#[derive(Debug)]
pub struct Run<'a> {
    pub plan: &'a Plan,
    pub subject: &'a Subject,
    pub notes: Notes<'a>,
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

/// One of [`ALL`].
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    /// Part of the short set.
    pub short: bool,
    pub run: for<'a> fn(Run<'a>) -> Running<'a>,
}

macro_rules! scenario {
    ($name:literal, $short:literal, $run:path, $what:literal) => {
        Scenario { name: $name, what: $what, short: $short, run: |run| Box::pin($run(run)) }
    };
}

pub const ALL: &[Scenario] = &[
    scenario!("idle", true, idle::run, "server and agent with nothing to do: CPU, memory"),
    scenario!(
        "entries",
        true,
        entries::run,
        "create in batches, list, filter, count, idle with them, delete"
    ),
    scenario!(
        "attestation",
        true,
        attestation::run,
        "join token and x509pop, each on a connection of its own"
    ),
    scenario!("sync", true, sync::run, "first and steady sync of an agent with many entries, by each API"),
    scenario!("sign", true, sign::run, "X.509-SVIDs in batches of 1, 50 and 500, JWT-SVIDs, mint"),
    scenario!(
        "workload",
        true,
        workload::run,
        "Workload API and SDS with 1, 10 and 100 identities, new connections and one"
    ),
    scenario!(
        "propagation",
        true,
        propagation::run,
        "entry to SVID: on an open stream, before and after the workload connects"
    ),
    scenario!("fan-out", true, agents::fan_out, "one entry change to many agents"),
    scenario!("agents", true, agents::held, "many connected agents: memory and idle CPU of the server"),
    scenario!(
        "streams",
        true,
        streams::run,
        "many open Workload API streams, idle and after updates to each"
    ),
    scenario!(
        "restart",
        true,
        restart::run,
        "agent restart: first SVID with few and many entries, and with clients that reconnect"
    ),
    scenario!("fresh", true, fresh::run, "a new client process until it has its SVID"),
    scenario!("cold-start", true, cold::run, "server start with entries and log rows"),
    scenario!("storm", true, storm::run, "all SVIDs of many agents expire together"),
    scenario!(
        "databases",
        false,
        databases::run,
        "creating, starting on, idling with many entries on each database"
    ),
    scenario!(
        "scale-entries",
        false,
        scale::entries,
        "a million entries: import, memory, start, propagation, growth"
    ),
    scenario!(
        "scale-agents",
        false,
        scale::agents,
        "ten thousand agents: memory, idle CPU, fan-out, herd after a server restart"
    ),
];

pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}
