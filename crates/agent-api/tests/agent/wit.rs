//! WIT-SVIDs: what a workload receives, when it is replaced, and that its keys stay out of everything else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use steeple_proto::steeple::agent::v1::WatchResponse;
use steeple_proto::workload::{JwtBundlesRequest, WitBundlesRequest, WitsvidRequest, WitsvidResponse};
use steeple_spiffe::jwt::WitSvid;
use tonic::Code;

use super::agent::{Agent, Workload, request};
use super::server::{START, Server, view, web};
use super::{gone, running};

async fn workload(agent: &Agent) -> Workload {
    agent
        .workload_with(|config| {
            config.wit_svids = true;
            config.wait_timeout = Duration::from_secs(20);
        })
        .await
}

fn of(spiffe_id: &str) -> WitsvidRequest {
    WitsvidRequest { spiffe_id: spiffe_id.into() }
}

/// Another bundle of the own trust domain, its WIT key tainted or not.
fn bundle(server: &Server, revision: u64, tainted: bool) -> WatchResponse {
    let mut bundle = server.view.lock().unwrap().bundles[0].clone();
    bundle.wit_authorities = vec![server.wit_authority(tainted)];
    WatchResponse { bundles: vec![bundle], ..view(revision, false, &[]) }
}

fn ids(response: &WitsvidResponse) -> Vec<&str> {
    response.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_receives_a_token_bound_to_the_key_beside_it() {
    let (_, server, agent) = running().await;
    let hinted = steeple_proto::spire::api::types::Entry { hint: "h".into(), ..web("2", "/two", "1") };
    server.push(view(2, false, &[web("1", "/one", "1"), hinted]));
    server.push(bundle(&server, 3, false));
    let mut workload = workload(&agent).await;
    let mut stream = workload.client.fetch_witsvid(request(of(""))).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(ids(&first), ["spiffe://example.org/one", "spiffe://example.org/two"]);
    assert_eq!(first.svids[1].hint, "h");
    for svid in &first.svids {
        let parsed = WitSvid::validate(&svid.wit_svid, &server.spiffe_bundle(), START).unwrap();
        assert_eq!(parsed.id.as_str(), svid.spiffe_id);
        let jwk: serde_json::Value = serde_json::from_str(&svid.wit_svid_key).unwrap();
        let (x, _) = parsed.confirmation.0.ec_coordinates().unwrap();
        let encoded = jwk["x"].as_str().unwrap();
        assert_eq!(base64url(encoded), x, "the key beside the token is the one in it");
        assert!(jwk["d"].is_string());
    }
    let keys: Vec<_> = first.svids.iter().map(|svid| &svid.wit_svid_key).collect();
    assert_ne!(keys[0], keys[1]);

    // Whoever comes next shares what is held, and one that names an identity gets that one only.
    let signed = server.wits.load(Ordering::SeqCst);
    let mut second =
        workload.client.fetch_witsvid(request(of("spiffe://example.org/two"))).await.unwrap().into_inner();
    let second = second.message().await.unwrap().unwrap();
    assert_eq!(second.svids, first.svids[1..]);
    assert_eq!(server.wits.load(Ordering::SeqCst), signed);

    // Entitlement ends, the stream ends.
    server.push(gone("1", 4));
    let fewer = stream.message().await.unwrap().unwrap();
    assert_eq!(ids(&fewer), ["spiffe://example.org/two"]);
    server.push(gone("2", 5));
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
}

fn base64url(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_replaced_when_it_is_due_and_when_its_authority_is_tainted() {
    let (clock, server, agent) = running().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    server.push(bundle(&server, 3, false));
    let mut workload = workload(&agent).await;
    let mut stream = workload.client.fetch_witsvid(request(of(""))).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();

    server.push(bundle(&server, 4, true));
    let second = stream.message().await.unwrap().unwrap();
    assert_ne!(second, first);
    assert_ne!(second.svids[0].wit_svid_key, first.svids[0].wit_svid_key, "a new token has a new key");

    // Half of its life is over. The server is away: the one held goes on being handed out, until it ends.
    clock.advance(Duration::from_secs(200));
    server.signing.store(false, Ordering::SeqCst);
    let mut again = workload.client.fetch_witsvid(request(of(""))).await.unwrap().into_inner();
    assert_eq!(again.message().await.unwrap().unwrap(), second);
    clock.advance(Duration::from_secs(200));
    let status = workload.client.fetch_witsvid(request(of(""))).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("could not fetch WIT-SVID: "), "{status}");
    server.signing.store(true, Ordering::SeqCst);
    let mut third = workload.client.fetch_witsvid(request(of(""))).await.unwrap().into_inner();
    assert_ne!(third.message().await.unwrap().unwrap(), second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wit_keys_are_in_wit_bundles_and_jwt_keys_are_not() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    server.push(bundle(&server, 3, false));
    let mut workload = workload(&agent).await;
    let mut wits =
        workload.client.fetch_wit_bundles(request(WitBundlesRequest {})).await.unwrap().into_inner();
    let mut bundles = wits.message().await.unwrap().unwrap().bundles;
    while !bundles["spiffe://example.org"].contains("wit-kid") {
        bundles = wits.message().await.unwrap().unwrap().bundles;
    }
    let jwks: serde_json::Value = serde_json::from_str(&bundles["spiffe://example.org"]).unwrap();
    let keys = jwks["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1, "{jwks}");
    assert_eq!((keys[0]["use"].as_str(), keys[0]["kid"].as_str()), (Some("wit-svid"), Some("wit-kid")));
    assert!(keys[0].get("d").is_none());

    let mut jwts =
        workload.client.fetch_jwt_bundles(request(JwtBundlesRequest {})).await.unwrap().into_inner();
    let jwts = jwts.message().await.unwrap().unwrap().bundles;
    let jwts = String::from_utf8(jwts["spiffe://example.org"].clone()).unwrap();
    assert!(jwts.contains("\"kid\"") && !jwts.contains("wit-kid"), "{jwts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_served_says_so_and_what_is_malformed_says_why() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    let mut without = agent.workload_at("without.sock", |_| {}).await;
    let svid = without.client.fetch_witsvid(request(of(""))).await.unwrap_err();
    let bundles = without.client.fetch_wit_bundles(request(WitBundlesRequest {})).await.unwrap_err();
    let said = |status: &tonic::Status| (status.code(), status.message().to_owned());
    let not = |what: &str| (Code::Unimplemented, format!("fetching {what} is not implemented"));
    assert_eq!((said(&svid), said(&bundles)), (not("WIT-SVIDs"), not("WIT bundles")));

    let mut workload = workload(&agent).await;
    let malformed = workload.client.fetch_witsvid(request(of("x"))).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
    assert!(malformed.message().starts_with("invalid requested SPIFFE ID: "), "{malformed}");

    // A server without the profile.
    server.without_wit.store(true, Ordering::SeqCst);
    let unserved = workload.client.fetch_witsvid(request(of(""))).await.unwrap_err();
    assert_eq!(unserved.code(), Code::Unimplemented);
    assert!(unserved.message().contains("WIT functionality is disabled"), "{unserved}");
}
