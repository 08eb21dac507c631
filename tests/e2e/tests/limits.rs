//! Values at and past each limit, and many callers.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use steeple_e2e::{Deployment, Engine, NODE, Subject};

#[test]
fn spiffe_ids_and_selectors_at_and_past_their_limits() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    let steeple = d.subject_of("spire-server") == Subject::Steeple;
    // SPIFFE-ID §2.3: 2048 bytes work end to end. MySQL's columns, which are SPIRE's, hold 255.
    let prefix = "spiffe://example.org/";
    let mysql = matches!(d.engine(), Engine::MariaDb | Engine::MySql);
    let (most, most_of_hint) = if mysql { (255, 255) } else { (2048, 1024) };
    let longest = format!("{prefix}{}", "a".repeat(most - prefix.len()));
    let me = format!("unix:uid:{}", steeple_e2e::uid());
    d.server_ok(&[
        "entry",
        "create",
        "-entryID",
        "long",
        "-spiffeID",
        &longest,
        "-parentID",
        NODE,
        "-selector",
        &me,
    ])?;
    d.eventually("a long SPIFFE ID end to end", Duration::from_secs(20), || {
        d.agent_api(&["api", "fetch"]).stdout.contains(&longest)
    })?;
    if steeple {
        let past = d.server(&[
            "entry",
            "create",
            "-spiffeID",
            &format!("{longest}a"),
            "-parentID",
            NODE,
            "-selector",
            &me,
        ]);
        assert_eq!(past.code, Some(1), "ID-17: never more than 2048: {past:?}");
    }
    let ok_id = "i".repeat(255);
    d.entry(&ok_id, "/x1", "unix:uid:7", &[])?;
    assert!(d.entry(&"i".repeat(256), "/x2", "unix:uid:7", &[]).is_err(), "entry ids end at 255");
    assert!(d.entry("bad id", "/x2", "unix:uid:7", &[]).is_err());
    d.entry("hint", "/x3", "unix:uid:7", &["-hint", &"h".repeat(most_of_hint)])?;
    assert!(
        d.entry("hint2", "/x4", "unix:uid:7", &["-hint", &"h".repeat(1025)]).is_err(),
        "hints end at 1024"
    );
    assert!(d.entry("sel", "/x5", ":value", &[]).is_err(), "a selector has a type");
    assert!(d.entry("sel", "/x5", "unix:", &[]).is_err(), "and a value");
    d.entry("sel", "/x5", "unix:path:/a:b:c", &[])?;
    Ok(())
}

#[test]
fn ten_thousand_idle_connections_of_one_user_do_not_stop_the_others() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    if d.subject_of("spire-agent") == Subject::Spire {
        return Ok(()); // docs/differences.md: two files for each connection, no limit per user
    }
    let other = 65534_u32;
    d.entry("other", "/other", &format!("unix:uid:{other}"), &[])?;
    // That user may not be able to look into the folder of the binaries under test.
    let program = d.path("fetch");
    std::fs::copy(d.program("spire-agent"), &program)?;
    let fetch_as_other = || {
        let mut command = Command::new(&program);
        command
            .args(["api", "fetch", "-socketPath"])
            .arg(d.workload_socket())
            .uid(other)
            .gid(other)
            .current_dir("/");
        command.output().is_ok_and(|output| output.status.success())
    };
    d.eventually("identity", Duration::from_secs(20), fetch_as_other)?;
    raise_open_files();
    let before = d.agent.as_ref().and_then(steeple_e2e::Daemon::rss_kib).unwrap_or(0);
    let mut idle = Vec::with_capacity(10_000);
    for _ in 0..10_000 {
        match UnixStream::connect(d.workload_socket()) {
            Ok(stream) => idle.push(stream),
            Err(_) => std::thread::sleep(Duration::from_millis(1)), // backlog full: the agent is accepting
        }
    }
    assert!(idle.len() > 9_000, "only {} connected", idle.len());
    d.eventually("the agent still serves another user", Duration::from_secs(10), fetch_as_other)?;
    let after = d.agent.as_ref().and_then(steeple_e2e::Daemon::rss_kib).unwrap_or(0);
    println!("agent RSS: {before} KiB before, {after} KiB with {} idle connections", idle.len());
    assert!(after < before + 200 * 1024, "{before} → {after} KiB");
    drop(idle);
    d.eventually("and after they left", Duration::from_secs(10), fetch_as_other)
}

/// The soft limit is 1,024 in most shells.
fn raise_open_files() {
    Command::new("prlimit")
        .args(["--pid", &std::process::id().to_string(), "--nofile=20000:20000"])
        .status()
        .ok();
}
