//! The agent's parts together, against a server that does what a test tells it, over real TLS and a real socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::default_trait_access,
    reason = "what a test relies on may fail it"
)]

#[path = "agent/agent.rs"]
mod agent;
#[path = "agent/caches.rs"]
mod caches;
#[path = "agent/delegated.rs"]
mod delegated;
#[path = "agent/explain.rs"]
mod explain;
#[path = "agent/recovery.rs"]
mod recovery;
#[path = "agent/secrets.rs"]
mod secrets;
#[path = "agent/server.rs"]
mod server;
#[path = "agent/stop.rs"]
mod stop;
#[path = "agent/taint.rs"]
mod taint;
#[path = "agent/telemetry.rs"]
mod telemetry;
#[path = "agent/wit.rs"]
mod wit;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent::{Agent, Options, request};
use server::{START, Server, view, web};
use steeple_agent_api::IdentityError;
use steeple_plugins_base::key_manager::MemoryKeyManager;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_proto::steeple::agent::v1::WatchResponse;
use steeple_proto::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, WitsvidRequest, X509BundlesRequest,
    X509svidRequest,
};
use steeple_runtime::clock::FakeClock;
use steeple_spiffe::{Bundle, X509Svid};
use tonic::{Code, Request, Status};

#[allow(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]
fn spawn<F: Future<Output = ()> + Send + 'static>(task: F) {
    tokio::spawn(task);
}

async fn start() -> (FakeClock, Arc<Server>) {
    steeple_runtime::install_crypto_provider();
    let clock = FakeClock::new(START);
    let server = Server::start("example.org", &clock, 3600).await;
    server.token("token");
    (clock, server)
}

/// An attested, synced agent.
async fn running() -> (FakeClock, Arc<Server>, Agent) {
    let (clock, server) = start().await;
    let agent = Agent::new(&clock, Options::of(&server));
    agent.establish().await.unwrap();
    agent.sync().await;
    (clock, server, agent)
}

fn gone(id: &str, revision: u64) -> WatchResponse {
    WatchResponse { removed_entry_ids: vec![id.into()], ..view(revision, false, &[]) }
}

/// Waits for something that other tasks bring about; a test that waits for too long fails.
async fn until(mut reached: impl FnMut() -> bool) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it never happened");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_reaches_an_open_stream_and_its_removal_closes_it() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    let mut workload = agent.workload_with(|config| config.wait_timeout = Duration::from_secs(10)).await;
    let mut stream = workload.client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.svids.len(), 1);
    assert_eq!(first.svids[0].spiffe_id, "spiffe://example.org/one");
    let svid = X509Svid::from_der(&first.svids[0].x509_svid, &first.svids[0].x509_svid_key).unwrap();
    let bundle = Bundle::from_x509_der(server.trust_domain.clone(), &first.svids[0].bundle).unwrap();
    steeple_spiffe::x509::verify_svid(svid.chain(), &bundle, START).unwrap();

    let federating = steeple_proto::spire::api::types::Entry {
        hint: "second".into(),
        federates_with: vec!["other.org".into()],
        ..web("2", "/two", "1")
    };
    let mut change = view(3, false, &[federating]);
    change.bundles.push(steeple_proto::spire::api::types::Bundle {
        trust_domain: "other.org".into(),
        ..server.view.lock().unwrap().bundles[0].clone()
    });
    server.push(change);
    let mut second = stream.message().await.unwrap().unwrap();
    while second.svids.len() < 2 {
        // The other trust domain's bundle may come first.
        second = stream.message().await.unwrap().unwrap();
    }
    assert_eq!(second.svids[1].hint, "second");
    assert!(second.federated_bundles.contains_key("spiffe://other.org"));

    server.push(gone("1", 4));
    let third = stream.message().await.unwrap().unwrap();
    assert_eq!(third.svids[0].spiffe_id, "spiffe://example.org/two");
    server.push(gone("2", 5));
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_entry_waits_for_one_but_not_beyond_its_deadline() {
    let (_, server, agent) = running().await;
    let mut workload = agent.workload_with(|config| config.wait_timeout = Duration::from_secs(30)).await;
    let mut hurried = request(X509svidRequest {});
    hurried.set_timeout(Duration::from_millis(600));
    let status = workload.client.fetch_x509svid(hurried).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));

    let mut patient = workload.client.clone();
    let asking = async move { patient.fetch_x509svid(request(X509svidRequest {})).await };
    let creating = async {
        tokio::task::yield_now().await;
        server.push(view(2, false, &[web("1", "/one", "1")]));
    };
    let (answer, ()) = tokio::join!(asking, creating);
    let first = answer.unwrap().into_inner().message().await.unwrap().unwrap();
    assert_eq!(first.svids[0].spiffe_id, "spiffe://example.org/one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses_and_messages_are_spires() {
    let (_, server, agent) = running().await;
    let mut workload = agent.workload().await;
    let refused = |status: Status| (status.code(), status.message().to_owned());
    let header = (Code::InvalidArgument, "security header missing from request".to_owned());
    let none = (Code::PermissionDenied, "no identity issued".to_owned());
    let client = &mut workload.client;
    assert_eq!(refused(client.fetch_x509svid(X509svidRequest {}).await.unwrap_err()), header);
    assert_eq!(refused(client.fetch_witsvid(WitsvidRequest::default()).await.unwrap_err()), header);
    for value in ["True", "1", ""] {
        let mut wrong = Request::new(X509BundlesRequest {});
        wrong.metadata_mut().insert("workload.spiffe.io", value.parse().unwrap());
        assert_eq!(refused(client.fetch_x509_bundles(wrong).await.unwrap_err()), header);
    }
    let mut twice = request(JwtBundlesRequest {});
    twice.metadata_mut().append("workload.spiffe.io", "true".parse().unwrap());
    assert_eq!(refused(client.fetch_jwt_bundles(twice).await.unwrap_err()), header);
    let wit = client.fetch_witsvid(request(WitsvidRequest::default())).await.unwrap_err();
    assert_eq!(wit.code(), Code::Unimplemented);
    for status in [
        client.fetch_x509svid(request(X509svidRequest {})).await.unwrap_err(),
        client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap_err(),
        client.fetch_jwt_bundles(request(JwtBundlesRequest {})).await.unwrap_err(),
    ] {
        assert_eq!(refused(status), none);
    }
    let jwt = |audience: &[&str], id: &str| {
        request(JwtsvidRequest {
            audience: audience.iter().map(ToString::to_string).collect(),
            spiffe_id: id.to_owned(),
        })
    };
    let invalid = |message: &str| (Code::InvalidArgument, message.to_owned());
    assert_eq!(
        refused(client.fetch_jwtsvid(jwt(&[], "")).await.unwrap_err()),
        invalid("audience must be specified")
    );
    let malformed = client.fetch_jwtsvid(jwt(&["a"], "x")).await.unwrap_err();
    assert!(malformed.message().starts_with("invalid requested SPIFFE ID: "), "{malformed}");
    let validate = |audience: &str, svid: &str| {
        request(ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() })
    };
    let status = client.validate_jwtsvid(validate("", "x")).await.unwrap_err();
    assert_eq!(refused(status), invalid("audience must be specified"));
    let status = client.validate_jwtsvid(validate("a", "")).await.unwrap_err();
    assert_eq!(refused(status), invalid("svid must be specified"));

    server.push(view(2, false, &[web("1", "/one", "1")]));
    until(|| agent.state.svid_counts().0 == 1).await;
    let other = client.fetch_jwtsvid(jwt(&["a"], "spiffe://example.org/other")).await.unwrap_err();
    assert_eq!(refused(other), none);
    agent.selector.store(0, Ordering::SeqCst);
    let status = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap_err();
    assert_eq!(refused(status), (Code::Unavailable, "workload attestation failed".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifiers_without_identity_get_the_own_bundle_only_where_allowed() {
    let (_, _, agent) = running().await;
    let mut workload = agent.workload_with(|config| config.allow_unauthenticated_verifiers = true).await;
    let mut x509 =
        workload.client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap().into_inner();
    let bundles = x509.message().await.unwrap().unwrap().bundles;
    assert_eq!(bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
    let mut jwt =
        workload.client.fetch_jwt_bundles(request(JwtBundlesRequest {})).await.unwrap().into_inner();
    let bundles = jwt.message().await.unwrap().unwrap().bundles;
    let jwks = String::from_utf8(bundles["spiffe://example.org"].clone()).unwrap();
    assert!(jwks.contains("kid") && !jwks.contains("x5c") && !jwks.contains("spiffe"), "{jwks}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jwts_are_cached_until_half_life_and_served_while_the_server_is_away() {
    let (clock, server, agent) = running().await;
    let with_jti = steeple_proto::spire::api::types::Entry {
        additional_attributes: Some(steeple_proto::spire::api::types::entry::AdditionalAttributes {
            jwt_svid_include_jti: true,
            ..Default::default()
        }),
        ..web("2", "/two", "2")
    };
    server.push(view(2, false, &[web("1", "/one", "1"), with_jti]));
    until(|| agent.state.svid_counts().0 == 2).await;
    let mut workload = agent.workload().await;
    let ask = || request(JwtsvidRequest { audience: vec!["b".into(), "a".into()], spiffe_id: String::new() });
    let first = workload.client.fetch_jwtsvid(ask()).await.unwrap().into_inner();
    assert_eq!(first.svids[0].spiffe_id, "spiffe://example.org/one");
    assert_eq!(workload.client.fetch_jwtsvid(ask()).await.unwrap().into_inner(), first);
    assert_eq!(server.jwts.load(Ordering::SeqCst), 1);

    let svid = first.svids[0].svid.clone();
    let valid = ValidateJwtsvidRequest { audience: "a".into(), svid: svid.clone() };
    let claims = workload.client.validate_jwtsvid(request(valid)).await.unwrap().into_inner().claims.unwrap();
    assert!(["sub", "aud", "exp", "iat"].iter().all(|name| claims.fields.contains_key(*name)));
    let wrong = ValidateJwtsvidRequest { audience: "c".into(), svid };
    let status = workload.client.validate_jwtsvid(request(wrong)).await.unwrap_err();
    assert_eq!(status.message(), "expected audience in [\"c\"] (audience=[\"b\" \"a\"])");

    let many = futures::future::join_all((0..50).map(|_| {
        let mut client = workload.client.clone();
        async move {
            let audience = vec!["many".to_owned()];
            client
                .fetch_jwtsvid(request(JwtsvidRequest { audience, spiffe_id: String::new() }))
                .await
                .unwrap()
        }
    }));
    assert_eq!(many.await.len(), 50);
    assert_eq!(server.jwts.load(Ordering::SeqCst), 2, "those who wait for one token share one call");

    clock.advance(Duration::from_secs(160));
    server.signing.store(false, Ordering::SeqCst);
    let aged = workload.client.fetch_jwtsvid(ask()).await.unwrap().into_inner();
    assert_eq!(aged, first, "past its half-life, but valid");
    clock.advance(Duration::from_secs(160));
    let status = workload.client.fetch_jwtsvid(ask()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("could not fetch JWT-SVID: "), "{status}");

    server.signing.store(true, Ordering::SeqCst);
    agent.selector.store(2, Ordering::SeqCst);
    let before = server.jwts.load(Ordering::SeqCst);
    for _ in 0..2 {
        workload.client.fetch_jwtsvid(ask()).await.unwrap();
    }
    assert_eq!(
        server.jwts.load(Ordering::SeqCst),
        before + 2,
        "a token with a jti is never handed out twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_that_cannot_be_signed_yet_is_waited_for() {
    let (clock, server, agent) = running().await;
    server.push(view(2, false, &[web("0", "/nobodys-yet", "0")]));
    until(|| server.priorities.lock().unwrap().contains("prefetch")).await;
    assert!(!server.priorities.lock().unwrap().contains("waiting"));
    server.signing.store(false, Ordering::SeqCst);
    server.push(view(3, false, &[web("1", "/one", "1")]));
    let mut workload = agent.workload_with(|config| config.wait_timeout = Duration::from_secs(10)).await;
    let mut hurried = request(X509svidRequest {});
    hurried.set_timeout(Duration::from_millis(900));
    let status = workload.client.fetch_x509svid(hurried).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    server.signing.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(10));
    let mut stream = workload.client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().svids.len(), 1);
    assert!(server.priorities.lock().unwrap().contains("waiting"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_push_is_polled() {
    let (clock, server) = start().await;
    server.pushes.store(false, Ordering::SeqCst);
    server.push(view(2, false, &[web("1", "/one", "1")]));
    let agent = Agent::new(&clock, Options::of(&server));
    agent.establish().await.unwrap();
    agent.sync().await;
    until(|| agent.state.svid_counts().0 == 1).await;
    // More than a page: by revision.
    server.pages.store(true, Ordering::SeqCst);
    let many: Vec<_> = (2..8).map(|n| web(&n.to_string(), &format!("/{n}"), "1")).collect();
    server.push(view(3, false, &many));
    until(|| agent.state.svid_counts().0 == 7).await;
    server.push(gone("1", 4));
    until(|| agent.state.svid_counts().0 == 6).await;
    assert_eq!(server.watches.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn federated_bundles_are_polled_and_missing_ones_left_out() {
    let (clock, server) = start().await;
    server.pushes.store(false, Ordering::SeqCst);
    let entry = steeple_proto::spire::api::types::Entry {
        federates_with: vec!["other.org".into(), "missing.org".into()],
        ..web("1", "/one", "1")
    };
    server.push(view(2, false, &[entry]));
    let agent = Agent::new(&clock, Options::of(&server));
    agent.establish().await.unwrap();
    agent.sync().await;
    let mut workload = agent.workload().await;
    let mut stream =
        workload.client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap().into_inner();
    let mut names: Vec<String> = stream.message().await.unwrap().unwrap().bundles.into_keys().collect();
    names.sort();
    assert_eq!(names, ["spiffe://example.org", "spiffe://other.org"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_view_is_not_taken_and_the_stream_opened_again() {
    let (_, server, agent) = running().await;
    server.push(view(5, false, &[web("1", "/one", "1")]));
    until(|| agent.state.svid_counts().0 == 1).await;
    // A server that lags behind, as with a read replica.
    let _ = server.changes.send(Ok(view(4, true, &[])));
    until(|| server.watches.load(Ordering::SeqCst) >= 2).await;
    assert_eq!(agent.state.svid_counts().0, 1);
    // The stream breaks: opened again, and goes on.
    let _ = server.changes.send(Err(Status::unavailable("rebalance")));
    until(|| server.watches.load(Ordering::SeqCst) >= 3).await;
    server.push(view(6, false, &[web("2", "/two", "1")]));
    until(|| agent.state.svid_counts().0 == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stored_svid_is_used_again_and_renewed_at_half_life() {
    let (clock, server) = start().await;
    let keys = Arc::new(MemoryKeyManager::new());
    let first = Agent::new(&clock, Options { keys: keys.clone(), ..Options::of(&server) });
    first.establish().await.unwrap();
    assert_eq!(server.attestations.load(Ordering::SeqCst), 1);
    let dir = first.dir;

    // The token is spent: only the stored SVID gets it back in.
    let again = Agent::new(&clock, Options { keys, dir, ..Options::of(&server) });
    again.establish().await.unwrap();
    assert_eq!(server.attestations.load(Ordering::SeqCst), 1);
    let before = again.identity.chain()[0].der().to_vec();
    clock.advance(Duration::from_secs(2000));
    let identity = again.identity.clone();
    spawn(async move { drop(identity.run().await) });
    until(|| server.renewals.load(Ordering::SeqCst) == 1).await;
    until(|| again.identity.chain()[0].der() != before).await;
    again.sync().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_spires_exits_are_asked_for_a_banned_agent_deletes_its_svid_and_ends() {
    let (clock, server) = start().await;
    let agent = Agent::new(&clock, Options { recovers: false, ..Options::of(&server) });
    agent.establish().await.unwrap();
    *server.denial.lock().unwrap() = Some(Reason::AgentBanned);
    agent.identity_ends(&server).await;
    let stored = std::fs::read_to_string(agent.dir.path().join("agent-data.json")).unwrap();
    assert!(stored.contains("\"svid\":[]") && !stored.contains("\"bundle\":[]"), "{stored}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_agent_attests_again_if_it_can_and_ends_if_not() {
    for reason in [Reason::AgentNotAttested, Reason::AgentExpired, Reason::AgentNotActive] {
        let (clock, server) = start().await;
        let agent = Agent::new(&clock, Options { recovers: false, ..Options::of(&server) });
        agent.establish().await.unwrap();
        *server.denial.lock().unwrap() = Some(reason);
        agent.identity_ends(&server).await;
    }
    let (clock, server) = start().await;
    server.reattestable.store(true, Ordering::SeqCst);
    let agent = Agent::new(&clock, Options::of(&server));
    agent.establish().await.unwrap();
    *server.denial.lock().unwrap() = Some(Reason::AgentNotAttested);
    let identity = agent.identity.clone();
    spawn(async move { drop(identity.run().await) });
    agent.sync().await;
    assert_eq!(server.attestations.load(Ordering::SeqCst), 2);
}

impl Agent {
    /// The next word with the server makes the agent give up.
    async fn identity_ends(&self, server: &Server) {
        use steeple_agent_api::sync::{Sync, SyncConfig};
        let config =
            SyncConfig { interval: Duration::from_millis(20), by_revision: true, version: "t".into() };
        let sync = Sync::new(self.state.clone(), self.link.clone(), self.identity.clone(), config);
        let ended = tokio::time::timeout(Duration::from_secs(20), sync.run()).await.expect("it goes on");
        assert!(matches!(ended, Err(IdentityError::GaveUp(_))), "{ended:?}");
        assert!(self.identity.chain().is_empty());
        assert_eq!(server.attestations.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_or_spent_join_token_is_named_and_what_to_do() {
    let (clock, server) = start().await;
    let agent = Agent::new(&clock, Options { token: "other", ..Options::of(&server) });
    let error = agent.establish().await.unwrap_err().to_string();
    assert!(error.contains("join token does not exist or has already been used"), "{error}");
    assert!(error.contains("spire-server token generate"), "{error}");

    Agent::new(&clock, Options::of(&server)).establish().await.unwrap();
    let spent = Agent::new(&clock, Options::of(&server)).establish().await.unwrap_err().to_string();
    assert!(spent.contains("already been used"), "{spent}");
    let none = Agent::new(&clock, Options { token: "", ..Options::of(&server) });
    // Final, as the refusals above: no second try would find one.
    let began = steeple_runtime::clock::monotonic();
    let error = none.establish().await.unwrap_err().to_string();
    let took = steeple_runtime::clock::monotonic().saturating_sub(began);
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(error.contains("join token") && error.contains("-joinToken"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_trust_domain_is_refused() {
    let (clock, server) = start().await;
    let other = Server::start("other.org", &clock, 3600).await;
    other.token("token");
    // Its certificate is under another authority and names another server.
    for trust in [Some(vec![server.authority.clone()]), Some(vec![other.authority.clone()]), None] {
        let agent =
            Agent::new(&clock, Options { trust, address: other.address.to_string(), ..Options::of(&server) });
        let attested = agent.identity.establish_once().await;
        let error = attested.unwrap_err().to_string();
        assert!(error.contains("other.org") || error.contains("unknown authority"), "{error}");
        assert!(error.contains("example.org") && error.contains("check"), "{error}");
    }
    assert_eq!(other.attestations.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_of_the_wrong_trust_domain_is_told_so() {
    let (clock, server) = start().await;
    let agent = Agent::new(&clock, Options { trust_domain: "wrong.org", ..Options::of(&server) });
    let error = agent.identity.establish_once().await.unwrap_err().to_string();
    assert!(error.contains("check that trust_domain") || error.contains("check server_address"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_off_is_told_apart_from_a_wrong_server() {
    let (_, server) = start().await;
    for skew in [-600, 2 * 3600] {
        let clock = FakeClock::new(START + skew);
        let agent = Agent::new(&clock, Options::of(&server));
        let error = agent.identity.establish_once().await.unwrap_err().to_string();
        assert!(error.contains("clock"), "{error}");
    }
    // Ten minutes ahead: everything is still valid, and the skew is a warning.
    let ahead = FakeClock::new(START + 600);
    let agent = Agent::new(&ahead, Options::of(&server));
    agent.establish().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn insecure_bootstrap_trusts_the_first_contact_only() {
    let (clock, server) = start().await;
    let keys = Arc::new(MemoryKeyManager::new());
    let agent = Agent::new(
        &clock,
        Options { trust: None, recovers: false, keys: keys.clone(), ..Options::of(&server) },
    );
    agent.establish().await.unwrap();
    agent.sync().await;
    *server.denial.lock().unwrap() = Some(Reason::AgentBanned);
    agent.identity_ends(&server).await;
    // Another server under the same name: the SVID is gone, but the bundle is known by now.
    let impostor = Server::start("example.org", &clock, 3600).await;
    impostor.token("token");
    let options = Options { trust: None, keys, dir: agent.dir, ..Options::of(&impostor) };
    let error = Agent::new(&clock, options).identity.establish_once().await.unwrap_err().to_string();
    assert!(error.contains("could not verify") && error.contains("data_dir"), "{error}");
    assert_eq!(impostor.attestations.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_is_named_with_what_to_check() {
    let (clock, server) = start().await;
    let options = Options { address: "127.0.0.1:1".into(), ..Options::of(&server) };
    let error = Agent::new(&clock, options).identity.establish_once().await.unwrap_err().to_string();
    assert!(error.contains("server_address"), "{error}");
}

/// A process that holds another's connection (orphan.py).
struct Orphan {
    child: tokio::process::Child,
    lines: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
}

impl Orphan {
    fn start(agent: &Agent, when: &str) -> Option<Self> {
        use tokio::io::AsyncBufReadExt as _;
        let mut child = tokio::process::Command::new("python3")
            .args(["-c", include_str!("agent/orphan.py")])
            .arg(agent.dir.path().join("api.sock"))
            .arg(when)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .ok()?;
        let lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self { child, lines })
    }

    async fn says(&mut self) -> String {
        let line = tokio::time::timeout(Duration::from_secs(20), self.lines.next_line());
        line.await.expect("it says nothing").unwrap().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_process_has_gone_is_served_to_nobody() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    until(|| agent.state.svid_counts().0 == 1).await;
    let _workload = agent.workload().await;

    let Some(mut early) = Orphan::start(&agent, "early") else { return };
    assert_eq!(early.says().await, "orphaned");
    drop(early.child.stdin.take());
    assert_eq!(early.says().await, "closed");

    let Some(mut late) = Orphan::start(&agent, "late") else { return };
    assert_eq!(late.says().await, "orphaned");
    // It had its SVID while it lived; what comes now is not for whoever holds the connection.
    server.push(view(3, false, &[web("2", "/two", "1")]));
    assert_eq!(late.says().await, "closed");
}
