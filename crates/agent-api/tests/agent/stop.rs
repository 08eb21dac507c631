//! A stop, and a user who wants too much.

use std::sync::atomic::Ordering;
use std::time::Duration;

use steeple_agent_api::{WorkloadApi, WorkloadAttestation};
use steeple_proto::workload::{JwtsvidRequest, X509BundlesRequest, X509svidRequest};
use steeple_runtime::{grpc, uds};
use tonic::Code;

use super::agent::{Agent, connect, request};
use super::server::{view, web};
use super::{running, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_open_streams_and_waiting_callers_at_once() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    until(|| agent.state.svid_counts().0 == 1).await;
    let config = Agent::workload_config(|config| config.wait_timeout = Duration::from_secs(30));
    let attestation = WorkloadAttestation::new(vec![agent.attestor()]);
    let api = WorkloadApi::new(agent.state.clone(), attestation, agent.signing.clone(), config);
    let path = agent.dir.path().join("api.sock");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = grpc::server_builder()
        .add_service(api)
        .serve_with_incoming_shutdown(uds::bind(&path, 0o777).unwrap(), async { drop(stopped.await) });
    let (end, ended) = tokio::sync::oneshot::channel();
    super::spawn(async move {
        serving.await.unwrap();
        end.send(()).unwrap();
    });
    let mut client = connect(path).await;
    let mut svids = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
    svids.message().await.unwrap().unwrap();
    let mut bundles = client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap().into_inner();
    bundles.message().await.unwrap().unwrap();

    // Nobody has an entry for this one: it waits.
    agent.selector.store(2, Ordering::SeqCst);
    let mut other = client.clone();
    let waiting = async move { other.fetch_x509svid(request(X509svidRequest {})).await.unwrap_err() };
    let mut another = client.clone();
    let jwt = JwtsvidRequest { audience: vec!["a".into()], spiffe_id: String::new() };
    let waiting_for_jwt = async move { another.fetch_jwtsvid(request(jwt)).await.unwrap_err() };
    let attested = agent.attested.load(Ordering::SeqCst);
    let stopping = async {
        until(|| agent.attested.load(Ordering::SeqCst) == attested + 2).await;
        agent.state.close();
        stop.send(()).unwrap();
    };
    let (one, two, ()) = tokio::join!(waiting, waiting_for_jwt, stopping);
    for status in [one, two, svids.message().await.unwrap_err(), bundles.message().await.unwrap_err()] {
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the agent is stopping"));
    }
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("it serves on").unwrap();
}

/// A named pipe in the place of the file that is written takes any time the test likes.
#[tokio::test]
async fn a_slow_disk_stops_nothing_else() {
    let (clock, _server, agent) = running().await;
    let pipe = agent.dir.path().join("agent-data.json.tmp");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let disk = std::thread::spawn(move || {
        let in_time = told.recv_timeout(Duration::from_secs(5)).is_ok();
        std::fs::read(pipe).unwrap();
        in_time
    });
    let before = agent.identity.chain()[0].der().to_vec();
    clock.advance(Duration::from_secs(2000));
    let identity = agent.identity.clone();
    super::spawn(async move { drop(identity.run().await) });
    // The new SVID is being written, and the only thread there is goes on.
    until(|| agent.identity.chain()[0].der() != before).await;
    go_on.send(()).unwrap();
    assert!(disk.join().unwrap(), "the disk kept the runtime waiting");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_too_many_calls_is_refused_and_served_again() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    until(|| agent.state.svid_counts().0 == 1).await;
    let mut workload = agent.workload_with(|config| config.calls_per_user = 2).await;
    let client = &mut workload.client;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = client.fetch_x509svid(request(X509svidRequest {})).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        open.push(stream);
    }
    let status = client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("close some streams"), "{status}");
    drop(open.pop());
    let mut served = client.fetch_x509_bundles(request(X509BundlesRequest {})).await;
    while served.as_ref().is_err_and(|status| status.code() == Code::ResourceExhausted) {
        tokio::task::yield_now().await;
        served = client.fetch_x509_bundles(request(X509BundlesRequest {})).await;
    }
    served.unwrap();

    // The agent's own health check is no user's.
    drop(open);
    let own = agent.workload_at("own.sock", |config| {
        config.calls_per_user = 0;
        config.agent_pid = std::process::id();
    });
    let mut own = own.await;
    own.client.fetch_x509_bundles(request(X509BundlesRequest {})).await.unwrap();
}
