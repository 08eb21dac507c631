//! A guide of SPIRE's that a newcomer would follow, verbatim.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use steeple_e2e::{Deployment, NODE, Subject, uid};

#[test]
fn register_fetch_and_look_at_the_svid() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    let steeple = d.subject_of("spire-server") == Subject::Steeple;
    let selector = format!("unix:uid:{}", uid());
    let ttl = if steeple { "-ttl" } else { "-x509SVIDTTL" }; // older SPIRE's flag is in many guides
    let created = d.server(&[
        "entry",
        "create",
        "-spiffeID",
        "spiffe://example.org/web",
        "-parentID",
        NODE,
        "-selector",
        &selector,
        ttl,
        "3600",
    ]);
    assert_eq!(created.code, Some(0), "{created:?}");
    if steeple {
        assert!(created.stderr.contains("-x509SVIDTTL"), "warns: {created:?}");
    }
    assert!(created.stdout.contains("X509-SVID TTL           : 3600"), "{created:?}");

    let shown = d.server_ok(&["entry", "show"])?;
    assert!(shown.starts_with("Found 2 entries\n"), "{shown}");
    assert!(shown.contains(&format!("Selector                : {selector}")), "{shown}");

    let listed: serde_json::Value =
        serde_json::from_str(&d.server_ok(&["agent", "list", "-output", "json"])?)?;
    assert_eq!(listed["agents"][0]["attestation_type"], "join_token");

    let out = d.path("out");
    std::fs::create_dir(&out)?;
    let out_arg = out.to_string_lossy().into_owned();
    d.eventually("svid written", Duration::from_secs(20), || {
        d.agent_api(&["api", "fetch", "x509", "-write", &out_arg]).code == Some(0)
    })?;
    let text = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-in"])
        .arg(out.join("svid.0.pem"))
        .output()?;
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("URI:spiffe://example.org/web"), "{text}");
    assert!(text.contains("TLS Web Server Authentication, TLS Web Client Authentication"), "{text}");
    let seconds = |which: &str| -> Result<i64> {
        let printed = Command::new("openssl")
            .args(["x509", "-noout", which, "-in"])
            .arg(out.join("svid.0.pem"))
            .output()?;
        let printed = String::from_utf8_lossy(&printed.stdout).into_owned();
        let date = printed.trim().split('=').nth(1).unwrap_or_default().to_owned();
        let unix = Command::new("date").args(["-u", "+%s", "-d", &date]).output()?;
        Ok(String::from_utf8_lossy(&unix.stdout).trim().parse()?)
    };
    assert_eq!(
        seconds("-enddate")? - seconds("-startdate")?,
        3610,
        "one hour, and ten seconds of backdating as in SPIRE"
    );
    let verified = Command::new("openssl")
        .args(["verify", "-partial_chain", "-CAfile"])
        .arg(out.join("bundle.0.pem"))
        .arg(out.join("svid.0.pem"))
        .output()?;
    assert!(verified.status.success(), "{verified:?}");
    Ok(())
}
