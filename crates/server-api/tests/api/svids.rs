//! Signing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use steeple_datastore::model::{AdditionalAttributes, Entry};
use steeple_plugin::{KeyManager, KeyManagerError};
use steeple_plugins_base::key_manager::MemoryKeyManager;
use steeple_proto::spire::api::server::svid::v1 as pb;
use steeple_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use steeple_proto::spire::api::types;
use steeple_spiffe::x509::DistinguishedName;
use steeple_spiffe::{Certificate, KeyType, PublicKey, SignatureAlgorithm, jwt};
use tokio::sync::{Semaphore, mpsc};
use tonic::Code;

use crate::harness::{NOW, Options, csr, csr_with, entry, forged_csr, pool_key, server, start};

fn proto_id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() })
}

#[tokio::test]
async fn what_a_csr_can_have_wrong() {
    let server = server().await;
    let mut client = SvidClient::new(server.local());
    let good = "spiffe://example.org/w";
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "missing CSR"),
        (b"nonsense".to_vec(), "malformed CSR: "),
        (csr(&[good], &[])[..100].to_vec(), "malformed CSR: "),
        (forged_csr(&[good]), "failed to verify CSR signature: "),
        (csr(&[], &[]), "CSR URI SAN is required"),
        (csr(&[good, "spiffe://example.org/x"], &[]), "only one URI SAN is expected"),
        (csr(&["https://example.org/w"], &[]), "CSR URI SAN is invalid: scheme is missing or invalid"),
        (
            csr(&["spiffe://other.org/w"], &[]),
            "CSR URI SAN is invalid: \"spiffe://other.org/w\" is not a member of trust domain \"example.org\"",
        ),
        (
            csr(&["spiffe://example.org"], &[]),
            "CSR URI SAN is invalid: \"spiffe://example.org\" is not a workload in trust domain \"example.org\"; path is \
             empty",
        ),
        (
            csr(&["spiffe://example.org/spire/agent/x"], &[]),
            "CSR URI SAN is invalid: \"spiffe://example.org/spire/agent/x\" is not a workload in trust domain \
             \"example.org\"; path is in the reserved namespace",
        ),
        (csr(&[good], &["a.*.b"]), "CSR DNS name is invalid: wildcard must be first label"),
        (
            csr(&[good], &["*.example.org", "a.example.org"]),
            "CSR DNS name contains a wildcard that covers another non-wildcard name: name \"a.example.org\" overlaps \
             with an existing wildcard name in the list: wildcard overlap",
        ),
    ];
    for (csr, message) in cases {
        let status = client.mint_x509svid(pb::MintX509svidRequest { csr, ttl: 0 }).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{message}");
        let exact = !message.ends_with(": ");
        assert!(
            if exact { status.message() == message } else { status.message().starts_with(message) },
            "{} instead of {message}",
            status.message()
        );
    }
}

#[tokio::test]
async fn minting_takes_names_subject_and_ttl_of_the_request() {
    let server = server().await;
    let mut client = SvidClient::new(server.local());
    let request = csr(&["spiffe://example.org/minted"], &["a.example.org", "b.example.org"]);
    let svid = client.mint_x509svid(pb::MintX509svidRequest { csr: request, ttl: 120 }).await.unwrap();
    let svid = svid.into_inner().svid.unwrap();
    let leaf = Certificate::from_der(&svid.cert_chain[0]).unwrap();
    assert_eq!((leaf.not_after(), svid.expires_at), (NOW + 120, NOW + 120));
    assert_eq!(leaf.dns_sans(), ["a.example.org", "b.example.org"]);
    assert_eq!(leaf.subject_string(), "CN=a.example.org,O=SPIRE,C=US");
    assert_eq!(svid.id, proto_id("/minted"));

    let subject = DistinguishedName { organization: vec!["Mine".to_owned()], ..Default::default() };
    let request = csr_with(&subject, &["spiffe://example.org/minted"], &[]);
    let svid = client.mint_x509svid(pb::MintX509svidRequest { csr: request, ttl: 0 }).await.unwrap();
    let leaf = Certificate::from_der(&svid.into_inner().svid.unwrap().cert_chain[0]).unwrap();
    assert_eq!((leaf.subject_string().as_str(), leaf.not_after()), ("O=Mine", NOW + 3_600));
}

#[tokio::test]
async fn a_batch_of_svids_has_a_status_for_each() {
    let server = server().await;
    let (agent, channel) = server.agent("signing").await;
    let mine = server
        .entry(Entry {
            x509_svid_ttl: 60,
            dns_names: vec!["w.example.org".to_owned()],
            ..entry(agent.as_str(), "/mine")
        })
        .await;
    let theirs = server.entry(entry("spiffe://example.org/spire/agent/x/other", "/theirs")).await;
    let mut client = SvidClient::new(channel);

    let status = client.batch_new_x509svid(pb::BatchNewX509svidRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "missing parameters"));

    let param = |entry_id: &str, csr: Vec<u8>| pb::NewX509svidParams { entry_id: entry_id.to_owned(), csr };
    let params = vec![
        param(&mine.id, csr(&[], &[])),
        param("", csr(&[], &[])),
        param(&mine.id, Vec::new()),
        param(&theirs.id, csr(&[], &[])),
        param("none", csr(&[], &[])),
        param(&mine.id, b"nonsense".to_vec()),
        param(&mine.id, forged_csr(&[])),
    ];
    let results =
        client.batch_new_x509svid(pb::BatchNewX509svidRequest { params }).await.unwrap().into_inner().results;
    let statuses: Vec<(Code, String)> = results
        .iter()
        .map(|r| r.status.clone().unwrap())
        .map(|s| (Code::from_i32(s.code), s.message))
        .collect();
    let expected = [
        (Code::Ok, "OK"),
        (Code::InvalidArgument, "missing entry ID"),
        (Code::InvalidArgument, "missing CSR"),
        (Code::NotFound, "entry not found or not authorized"),
        (Code::NotFound, "entry not found or not authorized"),
        (Code::InvalidArgument, "malformed CSR: "),
        (Code::InvalidArgument, "invalid CSR signature: "),
    ];
    for ((code, message), (expected_code, start)) in statuses.iter().zip(expected) {
        assert_eq!(*code, expected_code, "{message}");
        assert!(message.starts_with(start), "{message}");
    }
    let svid = results[0].svid.as_ref().unwrap();
    let leaf = Certificate::from_der(&svid.cert_chain[0]).unwrap();
    assert_eq!(leaf.spiffe_id().unwrap(), mine.spiffe_id);
    assert_eq!(leaf.public_key(), pool_key(2).public_key());
    assert_eq!((leaf.dns_sans(), leaf.not_after()), (mine.dns_names, NOW + 60));
    assert_eq!((svid.expires_at, svid.id.clone()), (NOW + 60, proto_id("/mine")));
    assert!(results[1..].iter().all(|result| result.svid.is_none()));
}

#[tokio::test]
async fn jwt_svids() {
    let server = server().await;
    let (agent, channel) = server.agent("jwt").await;
    let with_jti = Some(AdditionalAttributes { jwt_svid_include_jti: true, ..Default::default() });
    let mine = server
        .entry(Entry { jwt_svid_ttl: 60, additional: with_jti, ..entry(agent.as_str(), "/mine") })
        .await;
    let mut client = SvidClient::new(channel);
    let request = |entry_id: &str, audience: &[&str]| pb::NewJwtsvidRequest {
        entry_id: entry_id.to_owned(),
        audience: audience.iter().map(|a| (*a).to_owned()).collect(),
    };
    let svid =
        client.new_jwtsvid(request(&mine.id, &["one", "two"])).await.unwrap().into_inner().svid.unwrap();
    let token = jwt::parse_insecure(&svid.token).unwrap();
    assert_eq!(token.id, mine.spiffe_id);
    assert_eq!((svid.issued_at, svid.expires_at), (NOW, NOW + 60));
    assert!(svid.token.split('.').nth(1).is_some());

    let status = client.new_jwtsvid(request("none", &["one"])).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "entry not found or not authorized"));
    let status = client.new_jwtsvid(request(&mine.id, &[])).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "at least one audience is required")
    );

    let mut operator = SvidClient::new(server.local());
    let mint = |path: &str, audience: &[&str]| pb::MintJwtsvidRequest {
        id: proto_id(path),
        audience: audience.iter().map(|a| (*a).to_owned()).collect(),
        ttl: 0,
    };
    let svid = operator.mint_jwtsvid(mint("/minted", &["one"])).await.unwrap().into_inner().svid.unwrap();
    assert_eq!((svid.id, svid.expires_at), (proto_id("/minted"), NOW + 300));
    let status = operator.mint_jwtsvid(mint("/minted", &[])).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "at least one audience is required")
    );
    let status = operator.mint_jwtsvid(mint("/spire/x", &["one"])).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::InvalidArgument,
            "invalid SPIFFE ID: \"spiffe://example.org/spire/x\" is not a workload in trust domain \"example.org\"; path \
             is in the reserved namespace"
        )
    );
}

#[tokio::test]
async fn what_is_switched_off_or_not_served_says_so() {
    let server = start(Options { jwt_disabled: true, ..Options::default() }).await;
    let (_, channel) = server.agent("jwt").await;
    let request = pb::NewJwtsvidRequest { entry_id: "x".to_owned(), audience: vec!["a".to_owned()] };
    let status = SvidClient::new(channel.clone()).new_jwtsvid(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "JWT functionality is disabled"));
    let mut operator = SvidClient::new(server.local());
    let status = operator.mint_jwtsvid(pb::MintJwtsvidRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "JWT functionality is disabled"));
}

#[tokio::test]
async fn a_downstream_server_gets_a_ca() {
    let server = server().await;
    server.entry(Entry { downstream: true, ..entry("spiffe://example.org/spire/server", "/nested") }).await;
    let channel = server.workload("spiffe://example.org/nested").await;
    let mut client = SvidClient::new(channel);
    let request = |csr| pb::NewDownstreamX509caRequest { csr, preferred_ttl: 600 };
    let answer = client.new_downstream_x509ca(request(csr(&[], &[]))).await.unwrap().into_inner();
    let ca = Certificate::from_der(&answer.ca_cert_chain[0]).unwrap();
    assert!(ca.is_ca());
    assert_eq!((ca.not_after(), ca.uri_sans()), (NOW + 600, vec!["spiffe://example.org".to_owned()]));
    assert_eq!(answer.x509_authorities.len(), 1);
    let status = client.new_downstream_x509ca(request(b"nonsense".to_vec())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("malformed CSR: "), "{}", status.message());
    let status = client.new_downstream_x509ca(request(forged_csr(&[]))).await.unwrap_err();
    assert!(status.message().starts_with("invalid CSR signature: "), "{}", status.message());
}

/// Tells of each signature before it makes it, and makes it when it is let.
struct Gate {
    inner: MemoryKeyManager,
    shut: AtomicBool,
    begun: mpsc::UnboundedSender<Vec<u8>>,
    turns: Semaphore,
}

#[tonic::async_trait]
impl KeyManager for Gate {
    async fn generate_key(&self, id: &str, key_type: KeyType) -> Result<PublicKey, KeyManagerError> {
        self.inner.generate_key(id, key_type).await
    }

    async fn public_key(&self, id: &str) -> Result<Option<PublicKey>, KeyManagerError> {
        self.inner.public_key(id).await
    }

    async fn public_keys(&self) -> Result<Vec<(String, PublicKey)>, KeyManagerError> {
        self.inner.public_keys().await
    }

    async fn sign(
        &self,
        id: &str,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, KeyManagerError> {
        if self.shut.load(Ordering::Relaxed) {
            self.begun.send(data.to_vec()).unwrap();
            self.turns.acquire().await.unwrap().forget();
        }
        self.inner.sign(id, algorithm, data).await
    }
}

/// A batch says what it is for; those of agents that do not say come first.
#[tokio::test]
async fn workloads_that_wait_come_before_prefetches() {
    let (begun, mut signing) = mpsc::unbounded_channel();
    let shut = AtomicBool::new(false);
    let gate = Arc::new(Gate { inner: MemoryKeyManager::new(), shut, begun, turns: Semaphore::new(0) });
    let server = start(Options { keys: gate.clone(), ..Options::default() }).await;
    let (agent, channel) = server.agent("busy").await;
    let patient = server.entry(entry(agent.as_str(), "/patient")).await.id;
    let urgent = server.entry(entry(agent.as_str(), "/urgent")).await.id;
    gate.shut.store(true, Ordering::Relaxed);
    let batch = |entry_id: &String, count: usize, priority: Option<&'static str>| {
        let param = pb::NewX509svidParams { entry_id: entry_id.clone(), csr: csr(&[], &[]) };
        let mut request = tonic::Request::new(pb::BatchNewX509svidRequest { params: vec![param; count] });
        if let Some(priority) = priority {
            request.metadata_mut().insert("steeple-priority", priority.parse().unwrap());
        }
        let mut client = SvidClient::new(channel.clone());
        // Joined below: a test's own task.
        #[allow(clippy::disallowed_methods, reason = "joined by the test")]
        tokio::spawn(async move { client.batch_new_x509svid(request).await.unwrap().into_inner().results })
    };
    let queued = async |count| {
        let full = async {
            while server.state.ca.waiting_signatures() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), full).await.unwrap();
    };
    let places = std::thread::available_parallelism().unwrap().get();
    let mut batches = vec![batch(&patient, places, Some("prefetch"))];
    for _ in 0..places {
        signing.recv().await.unwrap();
    }
    batches.push(batch(&patient, 3, Some("prefetch")));
    queued(3).await;
    batches.push(batch(&urgent, 2, None));
    queued(5).await;
    let mut order = Vec::new();
    for _ in 0..5 {
        gate.turns.add_permits(1);
        let data = signing.recv().await.unwrap();
        order.push(data.windows(7).any(|part| part == b"/urgent"));
    }
    gate.turns.add_permits(places);
    // One in eight turns goes to the others, so that they do not starve.
    assert!(order[..3].iter().filter(|urgent| **urgent).count() == 2, "{order:?}");
    for batch in batches {
        assert!(batch.await.unwrap().iter().all(|result| result.svid.is_some()));
    }
}
