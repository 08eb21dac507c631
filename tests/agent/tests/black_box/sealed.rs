//! What a restart goes on with while the server is away, and what it refuses to go on with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use steeple_e2e::{Deployment, DeploymentBuilder, Subject, Workload};
use steeple_proto::workload::{JwtsvidRequest, X509svidRequest};

/// A slow machine is slow; what it measures is printed.
const PATIENCE: Duration = Duration::from_secs(30);
const AUDIENCE: &str = "db";

/// SPIFFE ID → chain and key.
type Svids = BTreeMap<String, (Vec<u8>, Vec<u8>)>;

async fn x509(d: &Deployment) -> Result<Svids> {
    let mut workload = d.workload().await?;
    let mut stream = workload.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
    let got = stream.message().await?.context("no message")?;
    Ok(got.svids.into_iter().map(|svid| (svid.spiffe_id, (svid.x509_svid, svid.x509_svid_key))).collect())
}

async fn jwt(d: &Deployment) -> Result<BTreeMap<String, String>> {
    let request = JwtsvidRequest { audience: vec![AUDIENCE.to_owned()], spiffe_id: String::new() };
    let got = d.workload().await?.api.fetch_jwtsvid(Workload::request(request)).await?.into_inner();
    Ok(got.svids.into_iter().map(|svid| (svid.spiffe_id, svid.svid)).collect())
}

/// Asks until `wanted` SVIDs come, and says how long that took.
async fn x509_of(d: &Deployment, wanted: usize) -> Result<(Svids, Duration)> {
    let started = Instant::now();
    loop {
        match x509(d).await {
            Ok(svids) if svids.len() == wanted => return Ok((svids, started.elapsed())),
            other if started.elapsed() > PATIENCE => {
                anyhow::bail!("{wanted} SVIDs do not come: {:?}\n{}", other.map(|svids| svids.len()), log(d))
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// `None` if the programs under test are SPIRE's, which keeps nothing.
fn start(builder: DeploymentBuilder) -> Result<Option<Deployment>> {
    let d = builder.start_with_agent()?;
    Ok((d.subject_of("spire-agent") == Subject::Steeple).then_some(d))
}

/// Kills the agent; what it held is on disk by then: SVIDs of that many workloads and of the node's alias.
fn kill_agent(d: &mut Deployment, workloads: usize, jwt_svids: usize) -> Result<()> {
    let x509_svids = workloads + 1;
    let written = |d: &Deployment| {
        let log = d.agent.as_ref().map(steeple_e2e::Daemon::log).unwrap_or_default();
        let line = log.lines().rfind(|line| line.contains("Agent state written")).map(str::to_owned);
        line.is_some_and(|line| {
            line.contains(&format!("x509_svids={x509_svids}"))
                && line.contains(&format!("jwt_svids={jwt_svids}"))
        })
    };
    let end = Instant::now() + PATIENCE;
    while !written(d) {
        ensure!(Instant::now() < end, "not written:\n{}", log(d));
        std::thread::sleep(Duration::from_millis(20));
    }
    d.agent.take().context("no agent")?.kill();
    Ok(())
}

fn log(d: &Deployment) -> String {
    std::fs::read_to_string(d.path("agent.log")).unwrap_or_default()
}

fn spawn(d: &mut Deployment) -> Result<()> {
    d.agent = Some(d.spawn_agent(&[])?);
    Ok(())
}

fn state_file(d: &Deployment) -> PathBuf {
    d.path("agent/agent-state.sealed")
}

fn moved_aside(d: &Deployment) -> usize {
    let entries = std::fs::read_dir(d.path("agent")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("agent-state.sealed.bad-")).count()
}

fn option(lines: &str) -> String {
    format!("experimental {{ {lines} }}")
}

#[tokio::test]
async fn killed_while_the_server_is_away_it_serves_what_it_had() -> Result<()> {
    const WORKLOADS: usize = 20;
    let Some(mut d) = start(Deployment::builder().disk_keys())? else { return Ok(()) };
    for number in 0..WORKLOADS {
        d.entry_for_me(&format!("entry-{number:02}"), &format!("/workload/{number}"))?;
    }
    let (before, _) = x509_of(&d, WORKLOADS).await?;
    let tokens = jwt(&d).await?;
    assert_eq!(tokens.len(), WORKLOADS);
    d.server.take().context("no server")?.kill();
    kill_agent(&mut d, WORKLOADS, WORKLOADS)?;

    spawn(&mut d)?;
    let (after, took) = x509_of(&d, WORKLOADS).await?;
    println!("{WORKLOADS} X.509-SVIDs {took:?} after the start");
    assert!(after == before, "the same SVIDs and keys");
    assert!(jwt(&d).await? == tokens, "the same tokens");

    // What changed at the server meanwhile comes into force with the first word from it, and nothing is signed again.
    d.agent.take().context("no agent")?.kill();
    d.start_server()?;
    d.server_ok(&["entry", "delete", "-entryID", "entry-07"])?;
    d.entry_for_me("new", "/new")?;
    spawn(&mut d)?;
    let end = Instant::now() + PATIENCE;
    let now = loop {
        let (now, _) = x509_of(&d, WORKLOADS).await?;
        if now.contains_key("spiffe://example.org/new") {
            break now;
        }
        ensure!(Instant::now() < end, "the change does not come:\n{}", log(&d));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(!now.contains_key("spiffe://example.org/workload/7"), "withdrawn");
    let kept = now.iter().filter(|(id, svid)| before.get(*id) == Some(*svid)).count();
    assert_eq!(kept, WORKLOADS - 1);
    Ok(())
}

/// The agent's own SVID is the only thing that ended.
#[tokio::test]
async fn a_server_that_is_away_for_longer_than_the_agents_svid_lives_changes_nothing() -> Result<()> {
    let builder = Deployment::builder().disk_keys().server_options("agent_ttl = \"5s\"");
    let Some(mut d) = start(builder)? else { return Ok(()) };
    d.entry_for_me("one", "/one")?;
    let (before, _) = x509_of(&d, 1).await?;
    kill_agent(&mut d, 1, 0)?;
    d.server.take().context("no server")?.kill();
    // Longer than any agent SVID of this server.
    tokio::time::sleep(Duration::from_secs(6)).await;
    spawn(&mut d)?;
    assert!(x509_of(&d, 1).await?.0 == before);
    assert!(!log(&d).contains("crashed"), "{}", log(&d));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_used_is_moved_aside_and_reported_and_everything_is_fetched() -> Result<()> {
    let options = option("sealed_state = \"file\"");
    let Some(mut d) = start(Deployment::builder().disk_keys().agent_options(&options))? else {
        return Ok(());
    };
    d.entry_for_me("one", "/one")?;
    x509_of(&d, 1).await?;
    let file = state_file(&d);
    let key = d.path("agent/agent-state.key");
    type Damage = fn(&Path, &Path) -> Result<()>;
    let damages: [(&str, Damage); 4] = [
        ("truncated", |file, _| {
            let bytes = std::fs::read(file)?;
            // The first frame's end is missing.
            Ok(std::fs::write(file, &bytes[..200.min(bytes.len())])?)
        }),
        ("not sealed with this key, or changed since", |_, key| Ok(std::fs::write(key, [7; 32])?)),
        ("not a sealed state file", |file, _| Ok(std::fs::write(file, "{\"json\": true}")?)),
        ("it belongs to agent", |file, _| {
            let bytes = std::fs::read(file)?;
            let at = bytes.windows(10).position(|window| window == b"join_token").context("no agent id")?;
            Ok(std::fs::write(file, [&bytes[..at], b"join_tokem", &bytes[at + 10..]].concat())?)
        }),
    ];
    for (reason, damage) in damages {
        kill_agent(&mut d, 1, 0)?;
        damage(&file, &key)?;
        std::fs::write(d.path("agent.log"), "")?;
        spawn(&mut d)?;
        x509_of(&d, 1).await?;
        let log = log(&d);
        assert!(log.contains("it was moved aside") && log.contains(reason), "{reason}:\n{log}");
        assert_eq!(moved_aside(&d), 1, "{reason}");
    }
    kill_agent(&mut d, 1, 0)?;
    d.server.take().context("no server")?.kill();
    spawn(&mut d)?;
    x509_of(&d, 1).await.context("and after all that it is kept again")?;
    Ok(())
}

#[tokio::test]
async fn no_key_is_in_any_file_and_switched_off_there_is_no_file() -> Result<()> {
    let Some(mut d) = start(Deployment::builder().disk_keys())? else { return Ok(()) };
    d.entry_for_me("one", "/one")?;
    let (svids, _) = x509_of(&d, 1).await?;
    let tokens = jwt(&d).await?;
    kill_agent(&mut d, 1, 1)?;
    assert!(state_file(&d).exists());
    let mut secrets: Vec<Vec<u8>> = tokens.into_values().map(String::into_bytes).collect();
    for (_, key) in svids.into_values() {
        // The last bytes of a PKCS#8 key on a curve are the public key's; the private one's stand in its middle.
        secrets.push(key[36..68].to_vec());
        secrets.push(key);
    }
    for entry in std::fs::read_dir(d.path("agent"))? {
        let path = entry?.path();
        let bytes = std::fs::read(&path)?;
        for secret in &secrets {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{}", path.display());
        }
    }
    let config = std::fs::read_to_string(d.path("agent.conf"))?;
    let off = config.replacen("agent {", &format!("agent {{\n{}", option("sealed_state = \"off\"")), 1);
    std::fs::write(d.path("agent.conf"), off)?;
    spawn(&mut d)?;
    x509_of(&d, 1).await?;
    for entry in std::fs::read_dir(d.path("agent"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        assert!(!name.starts_with("agent-state"), "{name}");
    }
    Ok(())
}

/// An agent whose data is on a file system of 512 KiB (needs root for the mount, as CI has).
#[tokio::test]
async fn a_full_disk_is_reported_and_served_through() -> Result<()> {
    let builder = Deployment::builder().disk_keys().agent_options(&option("sealed_state = \"file\""));
    let mut d = builder.prepare()?;
    if d.subject_of("spire-agent") == Subject::Spire {
        return Ok(());
    }
    let run = |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).status();
    let mount = d.path("agent");
    let path = mount.to_string_lossy().into_owned();
    ensure!(
        run(&["mount", "-t", "tmpfs", "-o", "size=512k", "steeple-agent", &path])?.success(),
        "needs root to mount a small file system"
    );
    let result = full_disk(&mut d, &mount).await;
    drop(d.agent.take());
    run(&["umount", "-l", &path])?;
    result
}

async fn full_disk(d: &mut Deployment, mount: &Path) -> Result<()> {
    d.start_server()?;
    d.start_agent()?;
    d.entry_for_me("before", "/before")?;
    x509_of(d, 1).await?;
    let filler = mount.join("filler");
    ensure!(std::fs::write(&filler, vec![0_u8; 1 << 20]).is_err(), "512 KiB hold 1 MiB");
    let said = |d: &Deployment, text: &str| log(d).contains(text);
    let mut entries = 1;
    while !said(d, "Agent state cannot be written") {
        ensure!(entries < 100, "a full disk took {entries} entries");
        d.entry_for_me(&format!("full-{entries}"), &format!("/full/{entries}"))?;
        entries += 1;
        x509_of(d, entries).await.context("they are served")?;
        // A write comes within a second.
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    std::fs::remove_file(&filler)?;
    d.eventually("it is written again", Duration::from_mins(2), || said(d, "Agent state is written again"))?;
    kill_agent(d, entries, 0)?;
    d.server.take().context("no server")?.kill();
    spawn(d)?;
    x509_of(d, entries).await?;
    Ok(())
}

/// CPU that a process used so far, in ticks of 10 ms.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field =
        |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("/proc/PID/stat");
    Ok(field(11)? + field(12)?)
}

/// What it takes, for numbers of entries in `STEEPLE_SEALED_ENTRIES` (`1,1000,10000`).
#[tokio::test]
async fn restart_times() -> Result<()> {
    let Ok(numbers) = std::env::var("STEEPLE_SEALED_ENTRIES") else { return Ok(()) };
    for entries in numbers.split(',').map(str::parse::<usize>) {
        let entries = entries?;
        for mode in ["off", "auto"] {
            measure(entries, mode).await?;
        }
    }
    Ok(())
}

async fn measure(entries: usize, mode: &str) -> Result<()> {
    let sealing = option(&format!("sealed_state = \"{mode}\""));
    let builder = Deployment::builder().disk_keys().agent_options("x509_svid_cache_max_size = 20000");
    let Some(mut d) = start(builder.agent_options(&sealing))? else { return Ok(()) };
    d.entry_for_me("mine", "/mine")?;
    let others: Vec<_> = (1..entries)
        .map(|number| {
            serde_json::json!({
                "spiffe_id": format!("spiffe://example.org/other/{number}"),
                "parent_id": steeple_e2e::NODE,
                "selectors": [{"type": "unix", "value": format!("uid:{}", 100_000 + number)}],
            })
        })
        .collect();
    for (number, chunk) in others.chunks(500).enumerate() {
        let file = d.path(&format!("entries-{number}.json"));
        std::fs::write(&file, serde_json::json!({ "entries": chunk }).to_string())?;
        d.server_ok(&["entry", "create", "-data", &file.to_string_lossy()])?;
    }
    let (before, _) = x509_of(&d, 1).await?;
    let end = Instant::now() + Duration::from_mins(5);
    loop {
        if log(&d).matches("SVID updated").count() > entries {
            break;
        }
        ensure!(Instant::now() < end, "{entries} SVIDs do not come");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let agent = d.agent.as_ref().context("no agent")?;
    let cpu = ticks(agent.pid())? * 10;
    let size = std::fs::metadata(state_file(&d)).map_or(0, |file| file.len());
    println!(
        "{entries} entries, {mode}: {cpu} ms of CPU until all are signed and kept, {size} bytes, {} KiB",
        agent.rss_kib().unwrap_or(0)
    );
    if mode == "off" {
        return Ok(());
    }
    d.server.take().context("no server")?.kill();
    kill_agent(&mut d, entries, 0)?;
    spawn(&mut d)?;
    let (after, took) = x509_of(&d, 1).await?;
    assert!(after == before);
    let agent = d.agent.as_ref().context("no agent")?;
    println!("{entries} entries: {took:?} from exec to the SVID, {} ms of CPU", ticks(agent.pid())? * 10);
    Ok(())
}
