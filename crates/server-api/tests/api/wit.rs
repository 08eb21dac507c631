//! WIT-SVIDs, behind their feature flag.

use steeple_proto::spire::api::server::bundle::v1::PublishWitAuthorityRequest;
use steeple_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use steeple_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use steeple_proto::spire::api::server::svid::v1::{
    BatchNewWitsvidRequest, MintWitsvidRequest, NewWitsvidParams,
};
use steeple_proto::spire::api::types::{Spiffeid, WitKey};
use steeple_spiffe::{KeyType, PrivateKey};
use tonic::{Code, Status};

use crate::harness::{NOW, Options, Server, entry, pool_key, start};

async fn with_flag() -> Server {
    start(Options { wit: true, ..Options::default() }).await
}

fn id(path: &str) -> Spiffeid {
    Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() }
}

fn p256() -> Vec<u8> {
    pool_key(0).public_key().spki_der().to_vec()
}

fn text(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

#[tokio::test]
async fn without_the_flag_spires_refusals() {
    let server = start(Options::default()).await;
    let mint = SvidClient::new(server.local()).mint_witsvid(MintWitsvidRequest::default()).await.unwrap_err();
    assert_eq!(text(&mint), (Code::Unimplemented, "WIT functionality is disabled"));
    let (agent, channel) = server.agent("wit").await;
    let mine = server.entry(entry(agent.as_str(), "/mine")).await;
    let param =
        NewWitsvidParams { entry_id: mine.id, public_key: p256(), signing_algorithm: "ES256".to_owned() };
    let request = BatchNewWitsvidRequest { params: vec![param] };
    let answer = SvidClient::new(channel).batch_new_witsvid(request).await.unwrap().into_inner();
    let status = answer.results[0].status.clone().unwrap();
    assert!(status.code == 13 && status.message.starts_with("failed to sign WIT-SVID: "), "{status:?}");
    server
        .entry(steeple_datastore::model::Entry {
            downstream: true,
            ..entry("spiffe://example.org/spire/server", "/downstream")
        })
        .await;
    let mut downstream = BundleClient::new(server.workload("spiffe://example.org/downstream").await);
    let publish = downstream.publish_wit_authority(PublishWitAuthorityRequest::default()).await.unwrap_err();
    assert_eq!(text(&publish), (Code::Unimplemented, "WIT-SVID functionality is not yet implemented"));
}

#[tokio::test]
async fn minted_and_refused() {
    let server = with_flag().await;
    let mut client = SvidClient::new(server.local());
    let good = MintWitsvidRequest {
        id: Some(id("/w")),
        public_key: p256(),
        ttl: 60,
        signing_algorithm: "ES256".to_owned(),
    };
    let svid = client.mint_witsvid(good.clone()).await.unwrap().into_inner().svid.unwrap();
    assert_eq!((svid.issued_at, svid.expires_at), (NOW, NOW + 60));
    assert_eq!(svid.token.split('.').count(), 3);
    let bundle = server.state.store.fetch_bundle(&crate::harness::td()).await.unwrap().unwrap();
    assert_eq!(bundle.wit_authorities.len(), 1);

    let p384 = PrivateKey::generate(KeyType::EcP384).unwrap().public_key().spki_der().to_vec();
    let rsa = PrivateKey::generate(KeyType::Rsa2048).unwrap().public_key().spki_der().to_vec();
    let with_key = |key: &[u8], algorithm: &str| MintWitsvidRequest {
        public_key: key.to_vec(),
        signing_algorithm: algorithm.to_owned(),
        ..good.clone()
    };
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        client.mint_witsvid(with_key(&rsa, algorithm)).await.unwrap();
    }
    client.mint_witsvid(with_key(&p384, "ES384")).await.unwrap();
    let unsupported = "invalid signing algorithm or key type: unsupported signing algorithm for ";
    let bad = [
        (MintWitsvidRequest { id: None, ..good.clone() }, "invalid SPIFFE ID: "),
        (MintWitsvidRequest { id: Some(id("/spire/x")), ..good.clone() }, "invalid SPIFFE ID: "),
        (with_key(b"x", "ES256"), "invalid public key: "),
        (with_key(&p256(), "ES384"), &format!("{unsupported}ec-p256 key: ES384")),
        (with_key(&p384, ""), &format!("{unsupported}ec-p384 key: ")),
        (with_key(&rsa, "ES256"), &format!("{unsupported}RSA key: ES256")),
        (with_key(&p256(), "none"), &format!("{unsupported}ec-p256 key: none")),
    ];
    for (request, expected) in bad {
        let status = client.mint_witsvid(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(expected), "{}", status.message());
    }
}

#[tokio::test]
async fn an_agent_gets_those_of_its_entries() {
    let server = with_flag().await;
    let (agent, channel) = server.agent("wit").await;
    let mine = server
        .entry(steeple_datastore::model::Entry { x509_svid_ttl: 90, ..entry(agent.as_str(), "/mine") })
        .await;
    let theirs = server.entry(entry("spiffe://example.org/spire/agent/x/other", "/theirs")).await;
    let param = |entry_id: &str, key: Vec<u8>, algorithm: &str| NewWitsvidParams {
        entry_id: entry_id.to_owned(),
        public_key: key,
        signing_algorithm: algorithm.to_owned(),
    };
    let request = BatchNewWitsvidRequest {
        params: vec![
            param(&mine.id, p256(), "ES256"),
            param(&theirs.id, p256(), "ES256"),
            param("", p256(), "ES256"),
            param(&mine.id, Vec::new(), "ES256"),
            param(&mine.id, vec![1], "ES256"),
            param(&mine.id, p256(), "RS256"),
        ],
    };
    let mut client = SvidClient::new(channel);
    let answer = client.batch_new_witsvid(request).await.unwrap().into_inner();
    let svid = answer.results[0].svid.clone().unwrap();
    assert_eq!((svid.id, svid.expires_at), (Some(id("/mine")), NOW + 90));
    let expected = [
        (0, "OK"),
        (5, "entry not found or not authorized"),
        (3, "missing entry ID"),
        (3, "missing public key"),
        (3, "malformed public key: "),
        (3, "invalid signing algorithm or key type: unsupported signing algorithm for ec-p256 key: RS256"),
    ];
    assert_eq!(answer.results.len(), expected.len());
    for (result, (code, text)) in answer.results.iter().zip(expected) {
        let status = result.status.clone().unwrap();
        assert!(status.code == code && status.message.starts_with(text), "{status:?}");
    }
    let none = client.batch_new_witsvid(BatchNewWitsvidRequest::default()).await.unwrap_err();
    assert_eq!(text(&none), (Code::InvalidArgument, "missing parameters"));
}

#[tokio::test]
async fn a_downstream_server_publishes_its_key() {
    let server = with_flag().await;
    server
        .entry(steeple_datastore::model::Entry {
            downstream: true,
            ..entry("spiffe://example.org/spire/server", "/downstream")
        })
        .await;
    let mut client = BundleClient::new(server.workload("spiffe://example.org/downstream").await);
    let publish = |key: Option<WitKey>| PublishWitAuthorityRequest { wit_authority: key };
    let key = WitKey { public_key: p256(), key_id: "theirs".to_owned(), expires_at: NOW + 9, tainted: false };
    let answer = client.publish_wit_authority(publish(Some(key.clone()))).await.unwrap().into_inner();
    assert_eq!((answer.wit_authorities.len(), &answer.wit_authorities[1]), (2, &key));
    let bad = [
        (None, "missing WIT authority"),
        (Some(WitKey { public_key: vec![1], ..key.clone() }), "invalid WIT authority: "),
        (Some(WitKey { key_id: String::new(), ..key }), "invalid WIT authority: missing key ID"),
    ];
    for (key, expected) in bad {
        let status = client.publish_wit_authority(publish(key)).await.unwrap_err();
        assert!(status.code() == Code::InvalidArgument && status.message().starts_with(expected), "{status}");
    }
}
