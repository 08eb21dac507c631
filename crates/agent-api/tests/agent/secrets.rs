//! Envoy's secret discovery as Envoys of different ages and Istio's ask for it.

use prost::Message as _;
use steeple_agent_api::sds::SdsNames;
use steeple_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use steeple_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use steeple_proto::envoy::service::discovery::v3 as xds;
use steeple_proto::google::rpc::Status as RpcStatus;
use steeple_proto::spire::api::types;
use steeple_spiffe::{Certificate, PrivateKey};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Streaming};

use super::agent::Agent;
use super::server::{Server, view, web};
use super::{gone, running};

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

fn asks(names: &[&str]) -> xds::DiscoveryRequest {
    xds::DiscoveryRequest {
        resource_names: names.iter().map(ToString::to_string).collect(),
        type_url: SECRET.into(),
        ..xds::DiscoveryRequest::default()
    }
}

fn secrets(response: &xds::DiscoveryResponse) -> Vec<tls::Secret> {
    assert_eq!(response.type_url, SECRET);
    let secret = |any: &prost_types::Any| {
        assert_eq!(any.type_url, SECRET);
        tls::Secret::decode(&*any.value).unwrap()
    };
    response.resources.iter().map(secret).collect()
}

fn names(response: &xds::DiscoveryResponse) -> Vec<String> {
    secrets(response).into_iter().map(|secret| secret.name).collect()
}

fn pem(source: Option<&DataSource>) -> String {
    match source.and_then(|source| source.specifier.clone()) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).unwrap(),
        other => panic!("not inline bytes: {other:?}"),
    }
}

/// The trust domains that a validation context trusts; empty for plain CA certificates.
fn trusted(secret: &tls::Secret) -> Vec<String> {
    let Some(tls::secret::Type::ValidationContext(context)) = &secret.r#type else { panic!("{secret:?}") };
    let Some(custom) = &context.custom_validator_config else {
        assert!(pem(context.trusted_ca.as_ref()).starts_with("-----BEGIN CERTIFICATE-----\n"));
        return vec![];
    };
    assert_eq!(custom.name, "envoy.tls.cert_validator.spiffe");
    let config = custom.typed_config.as_ref().unwrap();
    assert!(config.type_url.ends_with("tls.v3.SPIFFECertValidatorConfig"));
    let config = tls::SpiffeCertValidatorConfig::decode(&*config.value).unwrap();
    for domain in &config.trust_domains {
        assert_eq!(Certificate::from_pem(&pem(domain.trust_bundle.as_ref())).unwrap().len(), 1);
    }
    config.trust_domains.into_iter().map(|domain| domain.name).collect()
}

/// An Envoy: what it sends, what it hears.
struct Envoy {
    requests: mpsc::Sender<xds::DiscoveryRequest>,
    responses: Streaming<xds::DiscoveryResponse>,
}

impl Envoy {
    async fn connect(agent: &Agent, first: xds::DiscoveryRequest) -> Self {
        let mut client = agent.secrets(SdsNames::default()).await;
        let (requests, outgoing) = mpsc::channel(8);
        requests.send(first).await.unwrap();
        let responses = client.stream_secrets(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        Self { requests, responses }
    }

    async fn hears(&mut self) -> xds::DiscoveryResponse {
        self.responses.message().await.unwrap().unwrap()
    }

    async fn answers(&self, to: &xds::DiscoveryResponse, names: &[&str]) {
        let version_info = to.version_info.clone();
        let answer = xds::DiscoveryRequest { version_info, response_nonce: to.nonce.clone(), ..asks(names) };
        self.requests.send(answer).await.unwrap();
    }
}

fn federated(server: &Server, revision: u64) -> steeple_proto::steeple::agent::v1::WatchResponse {
    let entry = types::Entry { federates_with: vec!["other.org".into()], ..web("1", "/one", "1") };
    let mut change = view(revision, false, &[entry, web("2", "/two", "1")]);
    let own = server.view.lock().unwrap().bundles[0].clone();
    change.bundles.push(types::Bundle { trust_domain: "other.org".into(), ..own });
    change
}

async fn with_two_identities() -> (std::sync::Arc<Server>, Agent) {
    let (_, server, agent) = running().await;
    server.push(federated(&server, 2));
    super::until(|| agent.state.svid_counts().0 == 2).await;
    (server, agent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_and_every_alias_is_resolved_in_one_request() {
    let (_, agent) = with_two_identities().await;
    let mut client = agent.secrets(SdsNames::default()).await;
    let all = [
        "spiffe://example.org/one",
        "spiffe://example.org/two",
        "default",
        "spiffe://example.org",
        "spiffe://other.org",
        "ROOTCA",
        "ALL",
    ];
    let response = client.fetch_secrets(asks(&all)).await.unwrap().into_inner();
    assert_eq!((&*response.version_info, &*response.nonce), ("", ""), "no stream");
    let mut got = names(&response);
    got.sort();
    let mut expected = all;
    expected.sort_unstable();
    assert_eq!(got, expected);
    for secret in secrets(&response) {
        match &*secret.name {
            "spiffe://example.org" | "ROOTCA" => assert_eq!(trusted(&secret), ["example.org"]),
            "spiffe://other.org" => assert_eq!(trusted(&secret), ["other.org"]),
            "ALL" => assert_eq!(trusted(&secret), ["example.org", "other.org"]),
            name => {
                let Some(tls::secret::Type::TlsCertificate(pair)) = &secret.r#type else { panic!("{name}") };
                let chain = Certificate::from_pem(&pem(pair.certificate_chain.as_ref())).unwrap();
                let key = PrivateKey::from_pem(&pem(pair.private_key.as_ref())).unwrap();
                assert_eq!(key.public_key(), chain[0].public_key());
                let wanted = if name == "default" { "spiffe://example.org/one" } else { name };
                assert_eq!(chain[0].spiffe_id().unwrap().as_str(), wanted);
            }
        }
    }
    let everything = client.fetch_secrets(asks(&[])).await.unwrap().into_inner();
    assert_eq!(
        names(&everything),
        [
            "spiffe://example.org",
            "spiffe://other.org",
            "spiffe://example.org/one",
            "spiffe://example.org/two"
        ],
        "full names, no aliases"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_may_be_istios_and_the_validator_off() {
    let (_, agent) = with_two_identities().await;
    let istio = SdsNames {
        default_bundle: "null".into(),
        default_all_bundles: "ROOTCA".into(),
        ..SdsNames::default()
    };
    let mut client = agent.secrets(istio).await;
    let response = client.fetch_secrets(asks(&["default", "ROOTCA"])).await.unwrap().into_inner();
    let secrets_of_istio = secrets(&response);
    let bundle = secrets_of_istio.iter().find(|secret| secret.name == "ROOTCA").unwrap();
    assert_eq!(trusted(bundle), ["example.org", "other.org"]);

    let plain = SdsNames { disable_spiffe_cert_validation: true, ..SdsNames::default() };
    let mut client = agent.secrets(plain).await;
    let response = client.fetch_secrets(asks(&["ROOTCA"])).await.unwrap().into_inner();
    assert!(trusted(&secrets(&response)[0]).is_empty());
    let status = client.fetch_secrets(asks(&["ALL"])).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("SPIFFE validator"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_workload_may_not_have_is_named() {
    let (_, server, agent) = running().await;
    let mut client = agent.secrets(SdsNames::default()).await;
    let bundle = client.fetch_secrets(asks(&["ROOTCA"])).await.unwrap().into_inner();
    assert_eq!(names(&bundle), ["ROOTCA"], "the trust domain's bundle is no secret");
    let status = client.fetch_secrets(asks(&["default", "ROOTCA", "file-root:system"])).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::InvalidArgument,
            "workload is not authorized for the requested identities [\"default\" \"file-root:system\"]"
        )
    );
    server.push(view(2, false, &[web("1", "/one", "1")]));
    super::until(|| agent.state.svid_counts().0 == 1).await;
    let mut envoy = Envoy::connect(&agent, asks(&["default"])).await;
    let first = envoy.hears().await;
    envoy.answers(&first, &["default"]).await;
    server.push(gone("1", 3));
    let status = envoy.responses.message().await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    agent.selector.store(0, std::sync::atomic::Ordering::Relaxed);
    let status = client.fetch_secrets(asks(&["default"])).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "workload attestation failed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_told_of_changes_that_concern_it() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    super::until(|| agent.state.svid_counts().0 == 1).await;
    let mut envoy = Envoy::connect(&agent, asks(&["spiffe://example.org/one"])).await;
    let first = envoy.hears().await;
    assert_eq!((&*first.version_info, first.nonce.len()), ("1", 8));
    envoy.answers(&first, &["spiffe://example.org/one"]).await;

    let stale = xds::DiscoveryRequest { response_nonce: "0".into(), ..asks(&["ROOTCA"]) };
    envoy.requests.send(stale).await.unwrap();
    let rejection = RpcStatus { code: 3, message: "no".into(), details: vec![] };
    let rejects = xds::DiscoveryRequest {
        error_detail: Some(rejection),
        response_nonce: first.nonce.clone(),
        ..asks(&["spiffe://example.org/one"])
    };
    for _ in 0..100 {
        envoy.requests.send(rejects.clone()).await.unwrap();
    }
    // None of that is answered, nor a change of what it did not ask for.
    server.push(federated(&server, 3));
    super::until(|| agent.state.svid_counts().0 == 2).await;
    envoy.answers(&first, &["spiffe://example.org/one", "ALL"]).await;
    let second = envoy.hears().await;
    assert_eq!((&*second.version_info, names(&second).len()), ("2", 2));
    assert_ne!(first.nonce, second.nonce);

    envoy.answers(&second, &["spiffe://example.org/one"]).await;
    let third = envoy.hears().await;
    assert_eq!(names(&third), ["spiffe://example.org/one"]);
    server.push(view(
        4,
        false,
        &[types::Entry { dns_names: vec!["a.test".into()], ..web("1", "/one", "1") }],
    ));
    let rotated = envoy.hears().await;
    assert_ne!(third.resources, rotated.resources);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_alone_are_told_to_who_asks_for_changes() {
    let (_, server, agent) = running().await;
    server.push(view(2, false, &[web("1", "/one", "1")]));
    super::until(|| agent.state.svid_counts().0 == 1).await;
    let mut client = agent.secrets(SdsNames::default()).await;
    let (requests, outgoing) = mpsc::channel(8);
    let subscribe = |names: &[&str]| xds::DeltaDiscoveryRequest {
        type_url: SECRET.into(),
        resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
        ..xds::DeltaDiscoveryRequest::default()
    };
    requests.send(subscribe(&["default", "spiffe://other.org", "ROOTCA"])).await.unwrap();
    let request = Request::new(ReceiverStream::new(outgoing));
    let mut stream = client.delta_secrets(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let told: Vec<&str> = first.resources.iter().map(|one| &*one.name).collect();
    assert_eq!(
        (told, &first.removed_resources[..]),
        (vec!["ROOTCA", "default"], &["spiffe://other.org".to_owned()][..])
    );
    server.push(federated(&server, 3));
    let second = loop {
        let message = stream.message().await.unwrap().unwrap();
        if message.resources.iter().any(|one| one.name == "spiffe://other.org") {
            break message;
        }
    };
    assert!(second.removed_resources.is_empty());
    let version = &first.resources[0].version;
    let held = [("ROOTCA".to_owned(), version.clone())];
    let (requests, outgoing) = mpsc::channel(8);
    let back = subscribe(&["ROOTCA", "default"]);
    requests
        .send(xds::DeltaDiscoveryRequest { initial_resource_versions: held.into(), ..back })
        .await
        .unwrap();
    let mut stream = client.delta_secrets(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let back = stream.message().await.unwrap().unwrap();
    let told: Vec<&str> = back.resources.iter().map(|one| &*one.name).collect();
    assert_eq!(told, ["default"], "it holds the bundle already");
}
