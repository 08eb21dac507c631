//! Who may become an agent.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::time::Duration;

use anyhow::{Context, Result};
use steeple_e2e::{Deployment, Subject};

/// As SPIRE's agent; without it ours waits to be let in again. SPIRE overlooks it.
const EXITS: &str = "experimental { recover_in_process = false }";

fn must_end(d: &Deployment, flags: &[&str]) -> Result<String> {
    let mut agent = d.spawn_agent(flags)?;
    let status = agent.wait(Duration::from_secs(75))?;
    assert!(!status.success(), "{}", agent.log());
    Ok(agent.log())
}

#[test]
fn a_join_token_is_spent_once() -> Result<()> {
    let mut d = Deployment::builder().agent_options(EXITS).start()?;
    let token = d.join_token()?;
    d.start_agent_with(&["-joinToken", &token])?;
    d.agent.take().context("no agent")?.terminate()?;
    let log = must_end(&d, &["-joinToken", &token])?;
    assert!(log.contains("join token does not exist or has already been used"), "{log}");
    Ok(())
}

#[test]
fn an_unknown_token_is_refused() -> Result<()> {
    let d = Deployment::builder().start()?;
    let log = must_end(&d, &["-joinToken", "not-a-token"])?;
    assert!(log.contains("join token does not exist or has already been used"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    Ok(())
}

#[test]
fn an_expired_token_is_refused() -> Result<()> {
    let d = Deployment::builder().start()?;
    let token = d.server_ok(&["token", "generate", "-ttl", "1"])?;
    let token = token.split_whitespace().nth(1).context("no token")?.to_owned();
    std::thread::sleep(Duration::from_millis(2100)); // whole seconds
    let log = must_end(&d, &["-joinToken", &token])?;
    assert!(log.contains("join token expired"), "{log}");
    Ok(())
}

#[test]
fn an_agent_of_another_trust_domain_does_not_come_up() -> Result<()> {
    let d = Deployment::builder().start()?;
    let token = d.join_token()?;
    let log = must_end(&d, &["-joinToken", &token, "-trustDomain", "other.test"])?;
    if d.subject_of("spire-agent") == Subject::Steeple {
        assert!(log.contains("other.test") && log.contains("example.org"), "says both trust domains: {log}");
    }
    Ok(())
}

#[test]
fn a_server_of_another_trust_domain_is_not_talked_to() -> Result<()> {
    let d = Deployment::builder().start()?;
    let other = Deployment::builder().start()?; // same name, other CA
    std::fs::copy(other.path("bundle.pem"), d.path("bundle.pem"))?;
    let token = d.join_token()?;
    let mut agent = d.spawn_agent(&["-joinToken", &token])?;
    let ended = agent.wait(Duration::from_secs(5)).ok();
    assert!(ended.is_none_or(|status| !status.success()));
    assert!(d.server_ok(&["agent", "count"])?.starts_with("0 "), "attested to a stranger:\n{}", agent.log());
    let log = agent.log();
    assert!(log.to_lowercase().contains("certificate") || log.contains("authority"), "says why: {log}");
    agent.kill();
    Ok(())
}

#[test]
fn insecure_bootstrap_still_wants_the_right_server() -> Result<()> {
    let mut d = Deployment::builder().start()?;
    let config = std::fs::read_to_string(d.path("agent.conf"))?;
    let config =
        config.lines().filter(|line| !line.contains("trust_bundle_path")).collect::<Vec<_>>().join("\n");
    std::fs::write(
        d.path("agent.conf"),
        config.replace("agent {\n", "agent {\n  insecure_bootstrap = true\n"),
    )?;
    d.start_agent()?;
    assert!(d.server_ok(&["agent", "count"])?.starts_with("1 "));

    // The server of another trust domain is not the right one, whoever signed its certificate.
    d.agent = None;
    std::fs::remove_dir_all(d.path("agent"))?;
    std::fs::create_dir(d.path("agent"))?;
    let config = std::fs::read_to_string(d.path("agent.conf"))?;
    let other = config.replace("trust_domain = \"example.org\"", "trust_domain = \"other.org\"");
    assert_ne!(other, config);
    std::fs::write(d.path("agent.conf"), other)?;
    let token = d.join_token()?;
    let before = std::fs::read_to_string(d.path("agent.log"))?.len();
    let agent = d.spawn_agent(&["-joinToken", &token])?;
    d.eventually("the wrong server to be refused by name", Duration::from_mins(1), || {
        agent.log().get(before..).is_some_and(|log| log.contains("spiffe://example.org/spire/server"))
    })?;
    assert!(d.server_ok(&["agent", "count"])?.starts_with("1 "));
    Ok(())
}

#[test]
fn an_agent_comes_back_without_a_token() -> Result<()> {
    let mut d = Deployment::builder().disk_keys().start_with_agent()?;
    d.entry_for_me("e", "/me")?;
    for clean in [true, false] {
        let mut agent = d.agent.take().context("no agent")?;
        if clean {
            agent.terminate()?;
        } else {
            agent.kill();
        }
        d.start_agent_with(&[])?;
        d.eventually("identity after restart", Duration::from_secs(20), || {
            d.agent_api(&["api", "fetch"]).code == Some(0)
        })?;
    }
    assert!(d.server_ok(&["agent", "count"])?.starts_with("1 "), "attested again");
    Ok(())
}

#[test]
fn a_banned_agent_stops_and_an_evicted_one_may_not_go_on() -> Result<()> {
    for verb in ["ban", "evict"] {
        let mut d = Deployment::builder().disk_keys().agent_options(EXITS).start_with_agent()?;
        let listed = d.server_ok(&["agent", "list", "-output", "json"])?;
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let id =
            format!("spiffe://example.org{}", listed["agents"][0]["id"]["path"].as_str().context("no path")?);
        d.server_ok(&["agent", verb, "-spiffeID", &id])?;
        let agent = d.agent.as_mut().context("no agent")?;
        let status =
            agent.wait(Duration::from_secs(30)).with_context(|| format!("{verb}: the agent goes on"))?;
        assert!(!status.success(), "{verb}: join_token agents cannot attest again");
        let mut again = d.spawn_agent(&[])?;
        assert!(!again.wait(Duration::from_secs(75))?.success(), "{verb}: it came back");
    }
    Ok(())
}
