//! What the agent has signed, for whom, and what it keeps.

use std::sync::atomic::Ordering;
use std::time::Duration;

use steeple_proto::spire::api::types::Entry;
use steeple_proto::spire::api::types::entry::AdditionalAttributes;
use steeple_proto::workload::{JwtBundlesRequest, JwtsvidRequest, X509BundlesRequest, X509svidRequest};

use super::agent::{Agent, Options, request};
use super::server::{view, web};
use super::{start, until};

fn with(attributes: AdditionalAttributes, entry: Entry) -> Entry {
    Entry { additional_attributes: Some(attributes), ..entry }
}

fn jwt(audience: &str) -> tonic::Request<JwtsvidRequest> {
    request(JwtsvidRequest { audience: vec![audience.into()], spiffe_id: String::new() })
}

/// With a server that pushes, and with one that is polled as SPIRE's.
async fn agent_of(pushes: bool, entries: &[Entry]) -> (std::sync::Arc<super::Server>, Agent) {
    let (clock, server) = start().await;
    server.pushes.store(pushes, Ordering::SeqCst);
    server.push(view(2, false, entries));
    let agent = Agent::new(&clock, Options::of(&server));
    agent.establish().await.unwrap();
    agent.sync().await;
    (server, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_uses_jwts_alone_costs_no_x509_svid() {
    for pushes in [true, false] {
        let attributes = AdditionalAttributes { disable_x509_svid_prefetch: true, ..Default::default() };
        let (server, agent) = agent_of(pushes, &[with(attributes, web("1", "/one", "1"))]).await;
        let mut workload =
            agent.workload_with(|config| config.wait_timeout = Duration::from_secs(10)).await.client;
        let svids = workload.fetch_jwtsvid(jwt("a")).await.unwrap().into_inner().svids;
        assert_eq!(svids[0].spiffe_id, "spiffe://example.org/one");
        let bundles = workload.fetch_jwt_bundles(request(JwtBundlesRequest {})).await;
        let mut bundles = bundles.unwrap().into_inner();
        bundles.message().await.unwrap().unwrap();
        let more = workload.fetch_x509_bundles(request(X509BundlesRequest {})).await;
        more.unwrap().into_inner().message().await.unwrap().unwrap();
        // Anything to be signed would have been asked for by the time that this is.
        server.push(view(3, false, &[web("2", "/nobodys", "2")]));
        until(|| agent.state.svid_counts().0 > 0).await;
        assert_eq!(agent.state.svid_counts(), (1, 1), "the other one's");
        assert!(!server.priorities.lock().unwrap().contains("waiting"));
        let mut stream = workload.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
        let svids = stream.message().await.unwrap().unwrap().svids;
        assert_eq!(svids.len(), 1, "once it asks it is signed");
        assert!(server.priorities.lock().unwrap().contains("waiting"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_with_a_jti_is_never_handed_out_twice_whichever_way_its_entry_came() {
    for pushes in [true, false] {
        let attributes = AdditionalAttributes { jwt_svid_include_jti: true, ..Default::default() };
        let (server, agent) = agent_of(pushes, &[with(attributes, web("1", "/one", "1"))]).await;
        let mut workload =
            agent.workload_with(|config| config.wait_timeout = Duration::from_secs(10)).await.client;
        for _ in 0..2 {
            workload.fetch_jwtsvid(jwt("a")).await.unwrap();
        }
        assert_eq!((server.jwts.load(Ordering::SeqCst), agent.state.svid_counts().1), (2, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_with_a_deadline_gets_the_token_that_is_there_before_it_passes() {
    let (clock, server) = start().await;
    let agent = Agent::new(&clock, Options::of(&server));
    agent.establish().await.unwrap();
    agent.sync().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    let mut workload =
        agent.workload_with(|config| config.wait_timeout = Duration::from_secs(10)).await.client;
    let first = workload.fetch_jwtsvid(jwt("a")).await.unwrap().into_inner();
    // Past its half-life, and the server does not answer at all.
    clock.advance(Duration::from_secs(160));
    server.hangs.store(true, Ordering::SeqCst);
    // The answer has a quarter of a second to arrive, which a busy machine may need for itself.
    for tries in 1.. {
        let mut hurried = jwt("a");
        hurried.set_timeout(Duration::from_secs(1));
        match workload.fetch_jwtsvid(hurried).await {
            Ok(answer) => {
                assert_eq!(answer.into_inner(), first);
                break;
            }
            Err(status) => assert!(tries < 20, "{status}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_bounds_both_kinds_and_refuses_nobody() {
    const BYTES: usize = 10_000;
    let (clock, server) = start().await;
    let agent = Agent::new(&clock, Options { max_bytes: BYTES, ..Options::of(&server) });
    agent.establish().await.unwrap();
    agent.sync().await;
    let many: Vec<_> = (0..50).map(|n| web(&format!("x{n}"), &format!("/{n}"), "9")).collect();
    server.push(view(2, false, &many));
    until(|| agent.state.svid_counts().0 > 0).await;
    server.push(view(3, false, &[web("1", "/one", "1")]));
    let mut workload =
        agent.workload_with(|config| config.wait_timeout = Duration::from_secs(10)).await.client;
    let mut stream = workload.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().svids.len(), 1);
    for n in 0..40 {
        workload.fetch_jwtsvid(jwt(&n.to_string())).await.unwrap();
        let (x509, jwt) = agent.state.svid_counts();
        // None of them takes less than 400 bytes.
        assert!((x509 + jwt) * 400 <= BYTES, "{x509} and {jwt}");
    }
    let before = server.jwts.load(Ordering::SeqCst);
    workload.fetch_jwtsvid(jwt("39")).await.unwrap();
    assert_eq!(server.jwts.load(Ordering::SeqCst), before, "what was used last is kept");
    // What a workload holds open stays.
    assert!(agent.state.svid_counts().0 >= 1);
}
