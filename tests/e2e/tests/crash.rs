//! Processes that die at the worst moment, and a disk that is full.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use steeple_e2e::{Deployment, Engine, Subject, Workload};
use steeple_proto::workload::X509svidRequest;
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::x509::Certificate;

/// How often the processes are killed.
const KILLS: usize = 100;

/// The X.509-SVID that this process gets now.
fn leaf(d: &Deployment) -> Result<Certificate> {
    let dir = d.path("leaf");
    std::fs::create_dir_all(&dir)?;
    let arg = dir.to_string_lossy().into_owned();
    d.eventually("an identity", Duration::from_secs(20), || {
        d.agent_api(&["api", "fetch", "x509", "-write", &arg]).code == Some(0)
    })?;
    Ok(Certificate::from_pem(&std::fs::read_to_string(dir.join("svid.0.pem"))?)?.remove(0))
}

fn entry_ids(d: &Deployment) -> Result<BTreeSet<String>> {
    let shown: serde_json::Value =
        serde_json::from_str(&d.server_ok(&["entry", "show", "-output", "json"])?)?;
    let entries = shown["entries"].as_array().context("no entries")?;
    Ok(entries.iter().filter_map(|entry| entry["id"].as_str().map(str::to_owned)).collect())
}

#[test]
fn nothing_acknowledged_is_lost_when_either_process_is_killed() -> Result<()> {
    // What the agent keeps over its death it would not ask for again, and each SVID here is to be a new one.
    let builder = Deployment::builder().agent_options("experimental { sealed_state = \"off\" }");
    let mut d = builder.disk_keys().start_with_agent()?;
    d.entry_for_me("me", "/me")?;
    d.eventually("identity", Duration::from_secs(20), || d.agent_api(&["api", "fetch"]).code == Some(0))?;
    let acknowledged = Mutex::new(BTreeSet::from(["me".to_owned()]));
    let next = AtomicUsize::new(0);
    let mut issued = vec![leaf(&d)?];
    for round in 0..KILLS {
        let stop = AtomicBool::new(false);
        let (mut server, mut agent) =
            (d.server.take().context("no server")?, d.agent.take().context("no agent")?);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let id = format!("k-{}", next.fetch_add(1, Ordering::Relaxed));
                        if d.entry(&id, &format!("/{id}"), "unix:uid:4294967", &[]).is_ok() {
                            acknowledged.lock().expect("lock").insert(id);
                        }
                    }
                });
            }
            // A moment that differs from round to round, from the middle of a start to the middle of writes.
            std::thread::sleep(Duration::from_millis(7 * (round as u64 * 13 % 29)));
            if round % 2 == 0 {
                server.kill();
            } else {
                agent.kill();
            }
            stop.store(true, Ordering::Relaxed);
        });
        if round % 2 == 0 {
            d.start_server()?;
            d.agent = Some(agent);
        } else {
            d.server = Some(server);
            d.start_agent_with(&[])?;
        }
        issued.push(leaf(&d)?);
        let stored = entry_ids(&d)?;
        let lost: Vec<_> = acknowledged.lock().expect("lock").difference(&stored).cloned().collect();
        assert!(lost.is_empty(), "round {round}: {lost:?}");
    }
    // Every SVID of any round still verifies with the bundle of now.
    issued.push(leaf(&d)?);
    let bundle = Bundle::from_spiffe_json(
        "example.org".parse()?,
        &d.server_ok(&["bundle", "show", "-format", "spiffe"])?,
    )?;
    assert_eq!(bundle.x509_authorities.len(), 1, "a restart makes no new root");
    let root = bundle.x509_authorities[0].certificate.public_key();
    let serials: BTreeSet<_> = issued.iter().map(Certificate::serial_decimal).collect();
    assert!(serials.len() > KILLS / 4, "{} different SVIDs in {KILLS} rounds", serials.len());
    for svid in issued {
        svid.verify_signature_by(&root)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_root_goes_on_signing_after_a_kill() -> Result<()> {
    let mut d = Deployment::builder().disk_keys().start_with_agent()?;
    let before = d.server_ok(&["bundle", "show"])?;
    d.server.take().context("no server")?.kill();
    d.start_server()?;
    assert_eq!(d.server_ok(&["bundle", "show"])?, before);
    d.entry_for_me("me", "/me")?;
    d.eventually("identity", Duration::from_secs(30), || d.agent_api(&["api", "fetch"]).code == Some(0))?;
    let mut w = d.workload().await?;
    let mut stream = w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
    let got = stream.message().await?.context("no message")?;
    let leaf = Certificate::many_from_der(&got.svids[0].x509_svid)?.remove(0);
    let root = Certificate::from_pem(&before)?.remove(0);
    leaf.verify_signature_by(&root.public_key())?;
    Ok(())
}

/// A server on a file system of 8 MiB (needs root for the mount, as CI has).
#[test]
fn a_full_disk_is_reported_and_survived() -> Result<()> {
    // Other engines keep their files elsewhere.
    let mut d = Deployment::builder().engine(Engine::Sqlite).disk_keys().prepare()?;
    if d.subject_of("spire-server") == Subject::Spire {
        return Ok(());
    }
    let mount = d.path("server");
    let run = |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).status();
    let path = mount.to_string_lossy().into_owned();
    anyhow::ensure!(
        run(&["mount", "-t", "tmpfs", "-o", "size=8m", "steeple-e2e", &path])?.success(),
        "needs root to mount a small file system"
    );
    let result = (|| -> Result<()> {
        d.start_server()?;
        d.entry("before", "/before", "unix:uid:1", &[])?;
        let filler = mount.join("filler");
        // Fills the disk; the error is the point.
        std::fs::write(&filler, vec![0_u8; 16 << 20]).expect_err("8 MiB hold 16");
        let mut refused = None;
        for n in 0..200 {
            let ran = d.server(&[
                "entry",
                "create",
                "-entryID",
                &format!("full-{n}"),
                "-spiffeID",
                &format!("spiffe://example.org/full/{n}"),
                "-parentID",
                steeple_e2e::NODE,
                "-selector",
                "unix:uid:1",
            ]);
            if ran.code != Some(0) {
                refused = Some((n, ran));
                break;
            }
        }
        let (n, ran) = refused.context("a full disk took 200 entries")?;
        assert!(ran.stderr.contains("full") || ran.stderr.contains("disk"), "says why: {ran:?}");
        std::fs::remove_file(&filler)?;
        d.eventually("writes go on", Duration::from_secs(10), || {
            d.entry("after", "/after", "unix:uid:1", &[]).is_ok()
        })?;
        d.server.take().context("no server")?.kill();
        d.start_server()?;
        let stored = entry_ids(&d)?;
        for id in
            ["before".to_owned(), "after".to_owned()].into_iter().chain((0..n).map(|n| format!("full-{n}")))
        {
            assert!(stored.contains(&id), "{id} was acknowledged");
        }
        Ok(())
    })();
    drop(d.server.take());
    run(&["umount", "-l", &path])?;
    result
}
