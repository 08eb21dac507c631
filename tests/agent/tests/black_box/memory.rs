//! What an agent's memory and time depend on: identities, open streams, clients that all come back at once.
//!
//! `STEEPLE_FIGURES=1` holds the released binaries to the limits and looks at the processor's time, too; otherwise only what
//! memory grows by is asserted, for a build for debugging is larger. SPIRE's binaries are measured, not judged.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use steeple_e2e::{Daemon, Deployment, NODE, Subject, connect_uds};
use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use steeple_proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, BatchUpdateEntryRequest};
use steeple_proto::spire::api::types::{Entry, EntryMask, Selector, Spiffeid};

use crate::raw::Raw;

const MIB: u64 = 1024;
const MANY: usize = 1000;
const WINDOW: u32 = 1 << 20;
const LONG: Duration = Duration::from_mins(1);

fn strict() -> bool {
    std::env::var_os("STEEPLE_FIGURES").is_some()
}

/// KiB.
fn memory(daemon: &Daemon, line: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid()))?;
    let line = status.lines().find_map(|rest| rest.strip_prefix(line)).context("no such line")?;
    Ok(line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?)
}

fn rss(d: &Deployment) -> Result<u64> {
    memory(d.agent.as_ref().context("no agent")?, "VmRSS:")
}

/// Processor time of the agent so far.
fn cpu(d: &Deployment) -> Result<Duration> {
    let pid = d.agent.as_ref().context("no agent")?.pid();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // utime and stime, in hundredths of a second.
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// `limit` counts for Steeple's released binaries, `growth` for all of ours.
fn judge(d: &Deployment, what: &str, before: u64, after: u64, limit: u64, growth: u64) -> Result<()> {
    println!("{:?}: {what}: {after} KiB (before {before}, limit {limit})", d.subject());
    if d.subject() == Subject::Steeple {
        ensure!(!strict() || after < limit, "{what}: {after} KiB, limit {limit}");
        ensure!(after < before + growth, "{what}: {before} → {after} KiB");
    }
    Ok(())
}

fn entry(id: &str, selector: &str) -> Entry {
    let (trust_domain, path) = NODE.trim_start_matches("spiffe://").split_once('/').unwrap_or_default();
    let id_of = |path: &str| Some(Spiffeid { trust_domain: trust_domain.to_owned(), path: path.to_owned() });
    Entry {
        id: id.to_owned(),
        spiffe_id: id_of(&format!("/{id}")),
        parent_id: id_of(&format!("/{path}")),
        selectors: vec![Selector { r#type: "unix".into(), value: selector.to_owned() }],
        ..Entry::default()
    }
}

async fn entries(d: &Deployment) -> Result<EntryClient<tonic::transport::Channel>> {
    Ok(EntryClient::new(connect_uds(&d.server_socket()).await?))
}

/// The agent's own process may open as many files as we do.
fn raise_open_files() {
    Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), "--nofile=20000:20000"])
        .status()
        .ok();
}

/// So many clients, each with a connection of its own and a stream that has had its first message.
fn clients(d: &Deployment, count: usize) -> Result<Vec<Raw>> {
    let open = |count: usize| -> Result<Vec<Raw>> {
        let mut clients = Vec::with_capacity(count);
        let end = Instant::now() + LONG;
        while clients.len() < count {
            match Raw::connect(&d.workload_socket(), WINDOW) {
                Ok(mut raw) => {
                    raw.fetch_x509_svid()?;
                    clients.push(raw);
                }
                // Its backlog is full, or it is not there yet.
                Err(error) if Instant::now() > end => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
        clients.into_iter().map(|mut raw| raw.message().map(|_| raw)).collect()
    };
    thread::scope(|scope| {
        let parts: Vec<_> = (0..8).map(|_| scope.spawn(|| open(count / 8))).collect();
        let mut all = Vec::with_capacity(count);
        for part in parts {
            all.extend(part.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(all)
    })
}

#[tokio::test]
async fn a_thousand_identities_are_held_in_little_memory() -> Result<()> {
    let d = Deployment::builder().quiet().start_with_agent()?;
    thread::sleep(Duration::from_secs(if strict() { 5 } else { 0 }));
    let idle = rss(&d)?;
    judge(&d, "idle", idle, idle, 12 * MIB, u64::MAX / 2)?;
    let mut server = entries(&d).await?;
    for chunk in (0..MANY).collect::<Vec<_>>().chunks(200) {
        let entries = chunk.iter().map(|n| entry(&format!("w{n}"), &format!("uid:{}", 1_000_000 + n)));
        let request = BatchCreateEntryRequest { entries: entries.collect(), output_mask: None };
        server.batch_create_entry(request).await?;
    }
    let mut admin = steeple_proto::spire::agent::debug::v1::debug_client::DebugClient::new(
        connect_uds(&d.admin_socket()).await?,
    );
    let end = Instant::now() + 2 * LONG;
    loop {
        let info =
            admin.get_info(steeple_proto::spire::agent::debug::v1::GetInfoRequest {}).await?.into_inner();
        if usize::try_from(info.svids_count)? >= MANY {
            break;
        }
        ensure!(Instant::now() < end, "{} SVIDs", info.svids_count);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    thread::sleep(Duration::from_secs(if strict() { 5 } else { 0 }));
    judge(&d, "1,000 identities", idle, rss(&d)?, 40 * MIB, 36 * MIB)
}

#[tokio::test]
async fn a_thousand_open_streams_are_quiet_and_small() -> Result<()> {
    raise_open_files();
    let mut d = Deployment::builder().quiet().disk_keys().start_with_agent()?;
    let idle = rss(&d)?;
    d.entry_for_me("me", "/me")?;
    d.eventually("an identity", LONG, || d.agent_api(&["api", "fetch"]).code == Some(0))?;
    let mut open = clients(&d, MANY)?;
    judge(&d, "1,000 open streams", idle, rss(&d)?, 40 * MIB, 36 * MIB)?;
    if strict() {
        let (before, started) = (cpu(&d)?, Instant::now());
        thread::sleep(Duration::from_secs(30));
        let share = cpu(&d)?.saturating_sub(before).as_secs_f64() / started.elapsed().as_secs_f64();
        println!("{:?}: quiet with 1,000 open streams: {:.2} % of a core", d.subject(), share * 100.0);
        ensure!(d.subject() == Subject::Spire || share < 0.01, "{share}");
    }
    let mut server = entries(&d).await?;
    let before = cpu(&d)?;
    for n in 0..5 {
        let changed = Entry { dns_names: vec![format!("n{n}.example")], ..entry("me", "") };
        let input_mask = Some(EntryMask { dns_names: true, ..EntryMask::default() });
        let request = BatchUpdateEntryRequest { entries: vec![changed], input_mask, output_mask: None };
        server.batch_update_entry(request).await?;
        for raw in &mut open {
            raw.message()?;
        }
    }
    println!(
        "{:?}: an update of 1,000 streams: {:?} of processor time",
        d.subject(),
        cpu(&d)?.saturating_sub(before) / 5
    );
    let before = rss(&d)?;
    judge(&d, "1,000 open streams after 5 updates", idle, before, 40 * MIB, 36 * MIB)?;

    // All of them come back to the agent that comes next, at once.
    d.agent.as_mut().context("no agent")?.kill();
    drop(open);
    let (daemon, open) = thread::scope(|scope| {
        let herd = scope.spawn(|| clients(&d, MANY));
        let daemon = d.spawn_agent(&[]);
        Ok::<_, anyhow::Error>((daemon?, herd.join().map_err(|_| anyhow::anyhow!("a client panicked"))??))
    })?;
    let (peak, steady) = (memory(&daemon, "VmHWM:")?, memory(&daemon, "VmRSS:")?);
    println!("{:?}: restart with 1,000 clients: peak {peak} KiB, then {steady} KiB", d.subject());
    if d.subject() == Subject::Steeple {
        ensure!(
            peak < 2 * steady.min(before),
            "{peak} KiB at the peak, {before} KiB before, {steady} KiB then"
        );
    }
    drop(open);
    d.agent = Some(daemon);
    Ok(())
}
