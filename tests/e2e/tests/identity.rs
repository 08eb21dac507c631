//! The main job: a process gets its identity, sees it change, and loses it.
#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use steeple_e2e::{Deployment, Subject, Workload};
use steeple_proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svidRequest,
    X509svidResponse,
};
use steeple_spiffe::x509::Certificate;
use tokio::time::timeout;
use tonic::{Code, Streaming};

async fn next(stream: &mut Streaming<X509svidResponse>) -> Result<X509svidResponse> {
    timeout(Duration::from_secs(15), stream.message()).await.context("no message")??.context("stream ended")
}

/// Reads until the stream shows exactly these identities (SPIRE may show a change in two messages).
async fn until(stream: &mut Streaming<X509svidResponse>, want: &[&str]) -> Result<()> {
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen = ids(&next(stream).await?);
        if seen == want {
            return Ok(());
        }
    }
    anyhow::bail!("never {want:?}, last {seen:?}")
}

fn ids(response: &X509svidResponse) -> Vec<String> {
    response.svids.iter().map(|svid| svid.spiffe_id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_gets_both_kinds_of_svid_and_they_verify() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    d.entry_for_me("e1", "/me")?;
    let mut w = d.workload().await?;
    // SPIRE refuses at once until its agent has polled; Steeple waits for the entry.
    if d.subject() == Subject::Spire {
        d.eventually("entry reaches the agent", Duration::from_secs(20), || {
            d.agent_api(&["api", "fetch"]).code == Some(0)
        })?;
    }
    let mut stream = w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
    let got = next(&mut stream).await?;
    assert_eq!(ids(&got), ["spiffe://example.org/me"]);
    let chain = Certificate::many_from_der(&got.svids[0].x509_svid)?;
    let roots = Certificate::many_from_der(&got.svids[0].bundle)?;
    assert_eq!(chain[0].uri_sans(), ["spiffe://example.org/me"]);
    assert!(!chain[0].is_ca() && roots[0].is_ca());

    let request = JwtsvidRequest { audience: vec!["aud".into()], spiffe_id: String::new() };
    let jwt = w.api.fetch_jwtsvid(Workload::request(request)).await?.into_inner();
    assert_eq!(jwt.svids[0].spiffe_id, "spiffe://example.org/me");
    let request = ValidateJwtsvidRequest { audience: "aud".into(), svid: jwt.svids[0].svid.clone() };
    let valid = w.api.validate_jwtsvid(Workload::request(request)).await?.into_inner();
    assert_eq!(valid.spiffe_id, "spiffe://example.org/me");

    let bundles = w
        .api
        .fetch_x509_bundles(Workload::request(X509BundlesRequest {}))
        .await?
        .into_inner()
        .message()
        .await?;
    assert!(bundles.context("no bundles")?.bundles.contains_key("spiffe://example.org"));
    let bundles = w
        .api
        .fetch_jwt_bundles(Workload::request(JwtBundlesRequest {}))
        .await?
        .into_inner()
        .message()
        .await?;
    assert!(bundles.context("no bundles")?.bundles.contains_key("spiffe://example.org"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_follows_creates_updates_and_deletes() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    d.entry_for_me("a", "/a")?;
    d.eventually("first identity", Duration::from_secs(20), || {
        d.agent_api(&["api", "fetch"]).code == Some(0)
    })?;
    let mut w = d.workload().await?;
    let mut stream = w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
    assert_eq!(ids(&next(&mut stream).await?), ["spiffe://example.org/a"]);

    let begin = Instant::now();
    d.entry_for_me("b", "/b")?;
    until(&mut stream, &["spiffe://example.org/a", "spiffe://example.org/b"]).await?; // sorted by entry id
    if d.subject() == Subject::Steeple {
        assert!(begin.elapsed() < Duration::from_secs(4), "pushed, not polled: {:?}", begin.elapsed());
    }
    let me = format!("unix:uid:{}", steeple_e2e::uid());
    let update = [
        "entry",
        "update",
        "-entryID",
        "b",
        "-spiffeID",
        "spiffe://example.org/b2",
        "-parentID",
        steeple_e2e::NODE,
    ];
    d.server_ok(&[&update[..], &["-selector", &me]].concat())?;
    until(&mut stream, &["spiffe://example.org/a", "spiffe://example.org/b2"]).await?;
    d.server_ok(&["entry", "delete", "-entryID", "b"])?;
    until(&mut stream, &["spiffe://example.org/a"]).await?;
    // The last one gone: the stream says so (Workload API §5.2.1).
    d.server_ok(&["entry", "delete", "-entryID", "a"])?;
    let gone = timeout(Duration::from_secs(15), stream.message()).await?.err().context("still open")?;
    assert_eq!((gone.code(), gone.message()), (Code::PermissionDenied, "no identity issued"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_comes_before_its_entry_waits_for_it() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    if d.subject() == Subject::Spire {
        return Ok(()); // docs/differences.md: SPIRE refuses at once
    }
    let mut w = d.workload().await?;
    let call = tokio::spawn(async move {
        let mut stream = w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
        anyhow::Ok(ids(&next(&mut stream).await?))
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    d.entry_for_me("late", "/late")?;
    assert_eq!(call.await??, ["spiffe://example.org/late"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_gets_it() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    d.entry("other", "/other", "unix:uid:4294967", &[])?;
    let mut w = d.workload().await?;
    let begin = Instant::now();
    let refused = match w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await {
        Err(status) => status,
        Ok(stream) => stream.into_inner().message().await.err().context("got an identity")?,
    };
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, "no identity issued"));
    assert!(begin.elapsed() < Duration::from_secs(15), "the wait is bounded: {:?}", begin.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn svids_rotate_on_an_open_stream() -> Result<()> {
    let d = Deployment::builder().start_with_agent()?;
    d.entry("short", "/short", &format!("unix:uid:{}", steeple_e2e::uid()), &["-x509SVIDTTL", "10"])?;
    d.eventually("identity", Duration::from_secs(20), || d.agent_api(&["api", "fetch"]).code == Some(0))?;
    let mut w = d.workload().await?;
    let mut stream = w.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
    let serial = |response: &X509svidResponse| -> Result<(String, i64)> {
        let leaf = Certificate::many_from_der(&response.svids[0].x509_svid)?.remove(0);
        Ok((leaf.serial_decimal(), leaf.not_after()))
    };
    let mut last = serial(&next(&mut stream).await?)?;
    for _ in 0..3 {
        let fresh = serial(&next(&mut stream).await?)?;
        assert_ne!(fresh.0, last.0);
        assert!(fresh.1 > last.1, "{fresh:?} after {last:?}");
        last = fresh;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn identities_parented_to_a_workload_entry_reach_the_agent() -> Result<()> {
    // Cilium: identity entries whose parent is the operator's own entry (not the node, not an alias).
    let d = Deployment::builder().start_with_agent()?;
    d.entry("operator", "/operator", "unix:uid:4294967", &[])?;
    let me = format!("unix:uid:{}", steeple_e2e::uid());
    let create =
        ["entry", "create", "-entryID", "deep", "-spiffeID", "spiffe://example.org/identity/1", "-parentID"];
    d.server_ok(&[&create[..], &["spiffe://example.org/operator", "-selector", &me]].concat())?;
    d.eventually("the descendant's identity", Duration::from_secs(20), || {
        d.agent_api(&["api", "fetch"]).stdout.contains("spiffe://example.org/identity/1")
    })
}
