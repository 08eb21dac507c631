//! The Delegated Identity API as Cilium's agent and others use it. The caller's selector is `test:1`.

use std::process::Command;
use std::sync::atomic::Ordering;

use steeple_proto::spire::api::agent::delegatedidentity::v1 as api;
use steeple_proto::spire::api::types;
use steeple_spiffe::{Certificate, PrivateKey};
use tonic::{Code, Status, Streaming};

use super::server::{START, view, web};
use super::{gone, running};

const DELEGATE: &str = "spiffe://example.org/delegate";

fn selectors(value: &str) -> Vec<types::Selector> {
    vec![types::Selector { r#type: "test".into(), value: value.into() }]
}

fn by_selector(value: &str) -> api::SubscribeToX509sviDsRequest {
    api::SubscribeToX509sviDsRequest { selectors: selectors(value), pid: 0 }
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), status.message().to_owned())
}

async fn paths(stream: &mut Streaming<api::SubscribeToX509sviDsResponse>) -> Vec<String> {
    let message = stream.message().await.unwrap().unwrap();
    let path = |svid: api::X509svidWithKey| svid.x509_svid.unwrap().id.unwrap().path;
    message.x509_svids.into_iter().map(path).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegate_holds_the_svids_of_others() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("d", "/delegate", "1")]));
    let mut client = agent.delegated(&[DELEGATE]).await;
    super::until(|| agent.state.svid_counts().0 == 1).await;

    let mut stream = client.subscribe_to_x509svi_ds(by_selector("7")).await.unwrap().into_inner();
    assert!(paths(&mut stream).await.is_empty(), "the first message comes at once, empty or not");
    server.push(view(3, false, &[web("a", "/identity/7", "7")]));
    let message = stream.message().await.unwrap().unwrap();
    let [svid] = &message.x509_svids[..] else { panic!("{} SVIDs", message.x509_svids.len()) };
    let inner = svid.x509_svid.as_ref().unwrap();
    assert!(inner.expires_at > START);
    let leaf = Certificate::from_der(&inner.cert_chain[0]).unwrap();
    assert_eq!(leaf.spiffe_id().unwrap().as_str(), "spiffe://example.org/identity/7");
    let key = PrivateKey::from_pkcs8_der(&svid.x509_svid_key).unwrap();
    assert_eq!(key.public_key(), leaf.public_key());

    let admin = types::Entry { admin: true, ..web("b", "/admin", "7") };
    let downstream = types::Entry { downstream: true, ..web("c", "/downstream", "7") };
    server.push(view(4, false, &[admin, downstream, web("e", "/identity/8", "7")]));
    let mut held = paths(&mut stream).await;
    while held.len() < 2 {
        held = paths(&mut stream).await;
    }
    assert_eq!(held, ["/identity/7", "/identity/8"], "admin and downstream entries are never delegated");
    super::until(|| agent.state.svid_counts().0 == 5).await;

    server.push(gone("a", 5));
    let mut held = paths(&mut stream).await;
    while held.len() != 1 {
        held = paths(&mut stream).await;
    }
    assert_eq!(held, ["/identity/8"], "each message is the complete set");

    server.push(gone("d", 6));
    let ended = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!((ended.code(), ended.message()), (Code::PermissionDenied, "no identity issued"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delegate_may_name_a_process() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("d", "/delegate", "1")]));
    let mut client = agent.delegated(&[DELEGATE]).await;
    super::until(|| agent.state.svid_counts().0 == 1).await;
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = child.id() as i32;
    let asked = api::SubscribeToX509sviDsRequest { selectors: vec![], pid };
    let mut stream = client.subscribe_to_x509svi_ds(asked.clone()).await.unwrap().into_inner();
    assert_eq!(paths(&mut stream).await, ["/delegate"], "the test's attestor says the same of everybody");
    let tokens = api::FetchJwtsviDsRequest { audience: vec!["a".into()], selectors: vec![], pid };
    let tokens = client.fetch_jwtsvi_ds(tokens).await.unwrap().into_inner();
    assert_eq!(tokens.svids[0].id.as_ref().unwrap().path, "/delegate");
    assert!(tokens.svids[0].expires_at > START && tokens.svids[0].issued_at > 0);

    child.kill().unwrap();
    child.wait().unwrap();
    let ended = loop {
        match stream.message().await {
            Ok(message) => assert!(message.is_some()),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "the process has gone: {ended:?}");
    let (code, message) = refusal(client.subscribe_to_x509svi_ds(asked).await);
    assert_eq!((code, &*message), (Code::Unavailable, "workload attestation failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bundles_are_complete_sets_too() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("d", "/delegate", "1")]));
    let mut client = agent.delegated(&[DELEGATE]).await;
    super::until(|| agent.state.svid_counts().0 == 1).await;
    let x509 = client.subscribe_to_x509_bundles(api::SubscribeToX509BundlesRequest {}).await;
    let jwt = client.subscribe_to_jwt_bundles(api::SubscribeToJwtBundlesRequest {}).await;
    let (mut x509, mut jwt) = (x509.unwrap().into_inner(), jwt.unwrap().into_inner());
    let first = x509.message().await.unwrap().unwrap().ca_certificates;
    assert_eq!(first["spiffe://example.org"], server.authority.der());
    let keys = jwt.message().await.unwrap().unwrap().bundles;
    assert!(String::from_utf8_lossy(&keys["spiffe://example.org"]).contains("\"keys\""));

    let mut change = view(3, false, &[]);
    let own = server.view.lock().unwrap().bundles[0].clone();
    change.bundles.push(types::Bundle { trust_domain: "other.org".into(), ..own });
    server.push(change);
    let second = x509.message().await.unwrap().unwrap().ca_certificates;
    assert_eq!(second.len(), 2);
    assert_eq!(jwt.message().await.unwrap().unwrap().bundles.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_spires() {
    let (_, server, agent) = running().await;
    let mut client = agent.delegated(&[DELEGATE]).await;
    let none = (Code::PermissionDenied, "no identity issued".to_owned());
    assert_eq!(refusal(client.subscribe_to_x509svi_ds(by_selector("7")).await), none);
    server.push(view(2, false, &[web("w", "/web", "1")]));
    super::until(|| agent.state.svid_counts().0 == 1).await;
    let stranger = "caller not configured as an authorized delegate".to_owned();
    let stranger = (Code::PermissionDenied, stranger);
    assert_eq!(refusal(client.subscribe_to_x509svi_ds(by_selector("7")).await), stranger);
    let bundles = client.subscribe_to_x509_bundles(api::SubscribeToX509BundlesRequest {}).await;
    assert_eq!(refusal(bundles), stranger);

    server.push(view(3, false, &[web("d", "/delegate", "1")]));
    super::until(|| agent.state.svid_counts().0 == 2).await;
    let both = "must provide either selectors or non-zero PID, but not both";
    for (selectors, pid) in [(selectors("7"), 1), (vec![], 0)] {
        let asked = api::SubscribeToX509sviDsRequest { selectors: selectors.clone(), pid };
        let answer = refusal(client.subscribe_to_x509svi_ds(asked).await);
        assert_eq!(answer, (Code::InvalidArgument, both.to_owned()));
        let asked = api::FetchJwtsviDsRequest { audience: vec!["a".into()], selectors, pid };
        assert_eq!(refusal(client.fetch_jwtsvi_ds(asked).await), (Code::InvalidArgument, both.to_owned()));
    }
    for (kind, value) in [("", "x"), ("a:b", "x"), ("test", "")] {
        let selectors = vec![types::Selector { r#type: kind.into(), value: value.into() }];
        let asked = api::SubscribeToX509sviDsRequest { selectors, pid: 0 };
        let answer = refusal(client.subscribe_to_x509svi_ds(asked).await);
        assert_eq!(answer, (Code::InvalidArgument, "could not parse provided selectors".to_owned()));
    }
    let asked = api::FetchJwtsviDsRequest { audience: vec![], selectors: selectors("7"), pid: 0 };
    let answer = refusal(client.fetch_jwtsvi_ds(asked).await);
    assert_eq!(answer, (Code::InvalidArgument, "audience must be specified".to_owned()));
    let asked = api::FetchJwtsviDsRequest { audience: vec!["a".into()], selectors: selectors("7"), pid: 0 };
    assert_eq!(refusal(client.fetch_jwtsvi_ds(asked).await), none);
    let asked = api::SubscribeToX509sviDsRequest { selectors: vec![], pid: -4 };
    let answer = refusal(client.subscribe_to_x509svi_ds(asked).await);
    assert_eq!(answer.0, Code::Unavailable);
    agent.selector.store(0, Ordering::Relaxed);
    let answer = refusal(client.subscribe_to_x509svi_ds(by_selector("7")).await);
    assert_eq!(answer, (Code::Unavailable, "workload attestation failed".to_owned()));
}

/// Cilium takes a message for all there is. How fast that is the black-box test tells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_identities_come_in_one_message() {
    let (_, server, agent) = running().await;
    let mut entries = vec![web("d", "/delegate", "1")];
    entries.extend((0..5000).map(|n| web(&format!("e{n:04}"), &format!("/identity/{n}"), "7")));
    server.push(view(2, false, &entries));
    let mut client = agent.delegated(&[DELEGATE]).await;
    super::until(|| agent.state.svid_counts().0 >= 1).await;
    let mut stream = client.subscribe_to_x509svi_ds(by_selector("7")).await.unwrap().into_inner();
    assert_eq!(paths(&mut stream).await.len(), 5000);
    let mut again = client.subscribe_to_x509svi_ds(by_selector("7")).await.unwrap().into_inner();
    assert_eq!(paths(&mut again).await.len(), 5000);
}
