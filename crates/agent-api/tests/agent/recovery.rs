//! Where SPIRE's agent exits, ours goes on: banned, evicted, expired, a server with another authority, clocks that jump.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use steeple_agent_api::identity::IdentityError;
use steeple_agent_core::node::{Patience, Rebootstrap, Standing};
use steeple_plugin::KeyManager;
use steeple_plugins_base::key_manager::MemoryKeyManager;
use steeple_plugins_base::node_attestor::JoinToken;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_proto::workload::{X509svidRequest, X509svidResponse};
use steeple_runtime::clock::FakeClock;
use tonic::{Code, Streaming};

use crate::agent::{Agent, Options, Workload, request};
use crate::server::{START, Server, view, web};
use crate::{start, until};

const DAYS: i64 = 72 * 3600;

/// An agent with one identity on an open stream.
async fn serving(agent: &Agent, server: &Server) -> (Workload, Streaming<X509svidResponse>) {
    server.renew_certificate();
    agent.establish().await.unwrap();
    agent.keep();
    agent.sync().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    let mut workload = agent.workload_with(|config| config.wait_timeout = Duration::from_secs(20)).await;
    let mut stream = workload.client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().svids.len(), 1);
    (workload, stream)
}

fn stored(agent: &Agent) -> String {
    std::fs::read_to_string(agent.dir.path().join("agent-data.json")).unwrap()
}

async fn refused(stream: &mut Streaming<X509svidResponse>) {
    let told = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Err(status) = stream.message().await {
                break status;
            }
        }
    });
    let status = told.await.expect("the stream goes on");
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_agent_drops_everything_at_once_and_comes_back_when_it_is_let_in() {
    for pushes in [true, false] {
        let (clock, server) = start().await;
        server.pushes.store(pushes, Ordering::SeqCst);
        server.reattestable.store(true, Ordering::SeqCst);
        let keys = Arc::new(MemoryKeyManager::new());
        let agent = Agent::new(&clock, Options { keys: keys.clone(), ..Options::of(&server) });
        let (mut workload, mut stream) = serving(&agent, &server).await;
        let before = keys.public_keys().await.unwrap();
        let hooks = Arc::new(Mutex::new(0));
        let counted = hooks.clone();
        agent.identity.when_forfeited(Box::new(move || *counted.lock().unwrap() += 1));

        server.ban(true);
        refused(&mut stream).await;
        agent.stands(&clock, Standing::Banned).await;
        assert_eq!(agent.state.svid_counts(), (0, 0));
        until(|| stored(&agent).contains("\"svid\":[]")).await;
        assert!(!stored(&agent).contains("\"bundle\":[]"), "what verifies the server stays");
        until(|| agent.identity.chain().is_empty()).await;
        let after = keys.public_keys().await.unwrap();
        assert!(before.iter().all(|key| !after.contains(key)), "the agent's keys are gone");
        assert_eq!(*hooks.lock().unwrap(), 1, "told once");
        let status = workload.client.fetch_x509svid({
            let mut asked = request(X509svidRequest {});
            asked.set_timeout(Duration::from_secs(1));
            asked
        });
        assert_eq!(status.await.unwrap_err().code(), Code::PermissionDenied);

        // It asks now and then, and is told so.
        let asked = server.refused.load(Ordering::SeqCst);
        for _ in 0..400 {
            clock.advance(Duration::from_secs(1));
            agent.identity.look();
            tokio::task::yield_now().await;
        }
        until(|| server.refused.load(Ordering::SeqCst) > asked).await;
        assert!(server.refused.load(Ordering::SeqCst) < asked + 20, "not a flood");
        assert_eq!(agent.identity.standings().borrow().standing, Standing::Banned);

        server.ban(false);
        agent.stands(&clock, Standing::Ready).await;
        let mut stream =
            workload.client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
        assert_eq!(stream.message().await.unwrap().unwrap().svids.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_evicted_for_good_drops_everything_and_takes_a_new_token_from_its_file() {
    let (clock, server) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "token\n").unwrap();
    let attestor = Some(Arc::new(JoinToken::from_file(&file)) as Arc<_>);
    let agent = Agent::new(&clock, Options { attestor, ..Options::of(&server) });
    let (mut workload, mut stream) = serving(&agent, &server).await;

    *server.denial.lock().unwrap() = Some(Reason::AgentNotAttested);
    server.break_streams();
    refused(&mut stream).await;
    agent.stands(&clock, Standing::Evicted).await;
    until(|| {
        agent.identity.standings().borrow().reason.contains("already been used") || {
            clock.advance(Duration::from_secs(1));
            agent.identity.look();
            false
        }
    })
    .await;

    server.token("second");
    std::fs::write(&file, "second\n").unwrap();
    agent.stands(&clock, Standing::Ready).await;
    assert_eq!(server.attestations.load(Ordering::SeqCst), 2);
    let mut stream = workload.client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().svids.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_agent_that_can_attests_again_and_its_workloads_do_not_notice() {
    let (clock, server) = start().await;
    server.reattestable.store(true, Ordering::SeqCst);
    let agent = Agent::new(&clock, Options::of(&server));
    let (_workload, mut stream) = serving(&agent, &server).await;
    *server.denial.lock().unwrap() = Some(Reason::AgentNotAttested);
    server.break_streams();
    until(|| server.attestations.load(Ordering::SeqCst) == 2).await;
    agent.stands(&clock, Standing::Ready).await;
    server.push(view(3, false, &[web("2", "/two", "1")]));
    let next = tokio::time::timeout(Duration::from_secs(20), stream.message()).await.unwrap();
    assert_eq!(next.unwrap().unwrap().svids.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_gone_for_longer_than_the_svid_lives_finds_the_agent_again() {
    let (clock, server) = start().await;
    server.reattestable.store(true, Ordering::SeqCst);
    let agent = Agent::new(&clock, Options::of(&server));
    let (_workload, mut stream) = serving(&agent, &server).await;
    server.be_away(true);
    agent.stands(&clock, Standing::Expired).await;
    assert_eq!(agent.state.svid_counts().0, 1, "nobody decided against it");
    server.be_away(false);
    agent.stands(&clock, Standing::Ready).await;
    assert!(server.attestations.load(Ordering::SeqCst) >= 2);
    server.push(view(3, false, &[web("2", "/two", "1")]));
    let told = tokio::time::timeout(Duration::from_secs(20), async {
        while stream.message().await.unwrap().unwrap().svids.len() < 2 {}
    });
    told.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_agent_of_a_join_token_waits_for_another_one() {
    let (clock, server) = start().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "token").unwrap();
    let keys = Arc::new(MemoryKeyManager::new());
    let attestor = || Some(Arc::new(JoinToken::from_file(&file)) as Arc<_>);
    let agent =
        Agent::new(&clock, Options { attestor: attestor(), keys: keys.clone(), ..Options::of(&server) });
    agent.establish().await.unwrap();
    let dir = agent.dir;
    // The machine sleeps for three days.
    clock.advance(Duration::from_secs(DAYS as u64));
    server.renew_certificate();
    let agent = Agent::new(&clock, Options { attestor: attestor(), keys, dir, ..Options::of(&server) });
    let identity = agent.identity.clone();
    let established = Arc::new(Mutex::new(None));
    let outcome = established.clone();
    crate::spawn(async move { *outcome.lock().unwrap() = Some(identity.establish().await) });
    agent.stands(&clock, Standing::Expired).await;
    until(|| agent.identity.standings().borrow().reason.contains("token generate")).await;
    assert!(established.lock().unwrap().is_none(), "it does not end");
    server.token("new");
    std::fs::write(&file, "new").unwrap();
    agent.stands(&clock, Standing::Ready).await;
    until(|| matches!(*established.lock().unwrap(), Some(Ok(())))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_slept_for_three_days_renews_everything_and_goes_on() {
    let (clock, server) = start().await;
    server.reattestable.store(true, Ordering::SeqCst);
    let agent = Agent::new(&clock, Options::of(&server));
    let (_workload, mut stream) = serving(&agent, &server).await;
    let before = agent.identity.chain()[0].not_after();
    // The server's machine did not sleep: it has a new certificate.
    clock.set(START + DAYS);
    server.renew_certificate();
    agent.identity.look();
    until(|| agent.identity.chain().first().is_some_and(|leaf| leaf.not_after() > before)).await;
    // Signing looks at the clock at its own pace; a change makes it look now.
    server.push(view(3, false, &[web("2", "/two", "1")]));
    let told = tokio::time::timeout(Duration::from_mins(1), async {
        loop {
            let svids = stream.message().await.unwrap().unwrap().svids;
            let good = |svid: &[u8]| {
                let chain = steeple_spiffe::Certificate::many_from_der(svid).unwrap();
                chain[0].not_after() > START + DAYS
            };
            if svids.len() == 2 && svids.iter().all(|svid| good(&svid.x509_svid)) {
                break;
            }
        }
    });
    told.await.expect("workloads keep SVIDs that are over");
    agent.stands(&clock, Standing::Ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_set_back_three_days_and_put_right_again_leaves_no_trace() {
    let (clock, server) = start().await;
    server.reattestable.store(true, Ordering::SeqCst);
    let agent = Agent::new(&clock, Options::of(&server));
    let (_workload, mut stream) = serving(&agent, &server).await;
    clock.set(START - DAYS);
    agent.identity.look();
    // Nothing verifies meanwhile; the agent tries, and does not end.
    for _ in 0..60 {
        clock.advance(Duration::from_secs(1));
        agent.identity.look();
        tokio::task::yield_now().await;
    }
    let tries = server.attestations.load(Ordering::SeqCst);
    clock.set(START + 120);
    agent.stands(&clock, Standing::Ready).await;
    server.push(view(3, false, &[web("2", "/two", "1")]));
    let told = tokio::time::timeout(Duration::from_mins(1), async {
        while stream.message().await.unwrap().unwrap().svids.len() < 2 {}
    });
    told.await.expect("it never came back");
    assert!(server.attestations.load(Ordering::SeqCst) <= tries + 20, "it spins");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_authority_is_waited_for_or_taken_up_as_the_mode_says() {
    for mode in [Rebootstrap::Never, Rebootstrap::Auto, Rebootstrap::Always] {
        let (clock, server) = start().await;
        server.reattestable.store(true, Ordering::SeqCst);
        let patience = Patience { rebootstrap: mode, delay: 600_000 };
        let agent = Agent::new(&clock, Options { patience, ..Options::of(&server) });
        let (_workload, mut stream) = serving(&agent, &server).await;
        server.set_up_anew();
        agent.stands(&clock, Standing::Untrusted).await;
        assert_eq!(agent.state.svid_counts().0, 1);
        if mode == Rebootstrap::Never {
            for _ in 0..1500 {
                clock.advance(Duration::from_secs(1));
            }
            agent.identity.look();
            assert_eq!(agent.identity.standings().borrow().standing, Standing::Untrusted);
            assert_eq!(agent.trust.asked.lock().unwrap().len(), 1, "only the first time");
            // The operator puts the old one back.
            server.restore();
            agent.stands(&clock, Standing::Ready).await;
            continue;
        }
        // A restart goes on with the clock.
        until(|| !stored(&agent).contains("0001-01-01")).await;
        assert!(stored(&agent).contains("\"bootstrap_use\":2"), "{}", stored(&agent));
        *agent.trust.authorities.lock().unwrap() = Some(vec![server.authority()]);
        agent.stands(&clock, Standing::Rebootstrapping).await;
        agent.stands(&clock, Standing::Ready).await;
        let asked = agent.trust.asked.lock().unwrap().clone();
        assert_eq!((asked[0].mode, asked.last().unwrap().mode), ("bootstrap", "rebootstrap"));
        until(|| stored(&agent).contains("0001-01-01T00:00:00Z")).await;
        // Workloads follow: their SVIDs are under the new authority.
        let told = tokio::time::timeout(Duration::from_mins(1), async {
            loop {
                let update = stream.message().await.unwrap().unwrap();
                let chain = steeple_spiffe::Certificate::many_from_der(&update.svids[0].x509_svid).unwrap();
                if chain[0].verify_signature_by(&server.authority().public_key()).is_ok() {
                    break;
                }
                clock.advance(Duration::from_secs(5));
            }
        });
        told.await.expect("workloads keep SVIDs of the old authority");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_spires_exits_are_asked_for_another_authority_ends_the_agent() {
    for (mode, message, wiped) in [
        (Rebootstrap::Never, "failed to sync with SPIRE Server: ", false),
        (Rebootstrap::Auto, "shutting down for rebootstrapping", true),
    ] {
        let (clock, server) = start().await;
        server.reattestable.store(true, Ordering::SeqCst);
        let patience = Patience { rebootstrap: mode, delay: 0 };
        let options = Options { patience, recovers: false, ..Options::of(&server) };
        let agent = Agent::new(&clock, options);
        agent.establish().await.unwrap();
        let running = both(&agent);
        until(|| server.watches.load(Ordering::SeqCst) == 1).await;
        server.set_up_anew();
        let ended = tokio::time::timeout(Duration::from_secs(30), running).await.unwrap().unwrap();
        assert!(ended.to_string().starts_with(message), "{ended}");
        assert_eq!(stored(&agent).contains("\"bundle\":[]"), wiped, "{}", stored(&agent));
    }
}

/// Sync and the agent's own SVID, until one of them ends.
fn both(agent: &Agent) -> tokio::sync::oneshot::Receiver<IdentityError> {
    use steeple_agent_api::sync::{Sync, SyncConfig};
    let config = SyncConfig { interval: Duration::from_millis(20), by_revision: true, version: "t".into() };
    let sync = Sync::new(agent.state.clone(), agent.link.clone(), agent.identity.clone(), config);
    let identity = agent.identity.clone();
    let (ended, end) = tokio::sync::oneshot::channel();
    crate::spawn(async move {
        let outcome = tokio::select! {
            outcome = sync.run() => outcome,
            outcome = identity.run() => outcome,
        };
        let _ = ended.send(outcome.expect_err("it goes on"));
    });
    end
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn always_does_not_run_where_attestation_cannot_be_repeated() {
    let (clock, server) = start().await;
    let patience = Patience { rebootstrap: Rebootstrap::Always, delay: 600_000 };
    let agent = Agent::new(&clock, Options { patience, ..Options::of(&server) });
    let error = agent.establish().await.unwrap_err().to_string();
    assert!(
        error.starts_with("you have requested rebootstrap support but the NodeAttestor plugin"),
        "{error}"
    );
    let patience = Patience { rebootstrap: Rebootstrap::Auto, delay: 600_000 };
    server.token("again");
    let agent = Agent::new(&clock, Options { patience, token: "again", ..Options::of(&server) });
    agent.establish().await.unwrap();
}

/// A server that serves an older view than another did is left, and what was forgotten does not make it welcome.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_the_one_that_lags_behind_is_left() {
    steeple_runtime::install_crypto_provider();
    let clock = FakeClock::new(START);
    let ahead = Server::start("example.org", &clock, 3600).await;
    ahead.reattestable.store(true, Ordering::SeqCst);
    ahead.renew_certificate();
    ahead.push(view(9, false, &[web("1", "/one", "1")]));
    let address = format!("127.0.0.1,127.0.0.2:{}", ahead.address.port());
    let agent = Agent::new(&clock, Options { address, ..Options::of(&ahead) });
    agent.establish().await.unwrap();
    agent.keep();
    agent.sync().await;
    until(|| agent.state.svid_counts().0 == 1).await;

    let behind = ahead.start_beside(&clock).await;
    behind.renew_certificate();
    behind.push(view(5, false, &[]));
    ahead.break_streams();
    until(|| behind.watches.load(Ordering::SeqCst) >= 1).await;
    until(|| ahead.watches.load(Ordering::SeqCst) >= 2).await;
    assert_eq!(agent.state.svid_counts().0, 1, "it took a view of the past");
    // The first one goes, the second one has caught up.
    behind.push(view(10, false, &[web("1", "/one", "1"), web("2", "/two", "1")]));
    ahead.be_away(true);
    until(|| agent.state.svid_counts().0 == 2).await;
}
