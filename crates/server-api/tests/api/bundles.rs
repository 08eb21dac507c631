//! Our own bundle and those of others.

use steeple_datastore::model::Entry;
use steeple_proto::spire::api::server::bundle::v1 as pb;
use steeple_proto::spire::api::server::bundle::v1::batch_delete_federated_bundle_request::Mode;
use steeple_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use steeple_proto::spire::api::types;
use steeple_spiffe::TrustDomain;
use tonic::Code;

use crate::harness::{Server, entry, pool_key, server};

async fn root(server: &Server) -> Vec<u8> {
    let own = server.state.store.fetch_bundle(&crate::harness::td()).await.unwrap().unwrap();
    own.x509_authorities[0].certificate.der().to_vec()
}

fn jwt_key(id: &str) -> types::JwtKey {
    types::JwtKey {
        public_key: pool_key(2).public_key().spki_der().to_vec(),
        key_id: id.to_owned(),
        expires_at: 0,
        tainted: false,
    }
}

fn bundle(trust_domain: &str, root: &[u8]) -> types::Bundle {
    types::Bundle {
        trust_domain: trust_domain.to_owned(),
        x509_authorities: vec![types::X509Certificate { asn1: root.to_vec(), tainted: false }],
        jwt_authorities: vec![jwt_key("k")],
        refresh_hint: 60,
        sequence_number: 7,
        ..Default::default()
    }
}

fn statuses<T>(results: Vec<T>, status: impl Fn(T) -> Option<types::Status>) -> Vec<(Code, String)> {
    results.into_iter().map(|r| status(r).unwrap()).map(|s| (Code::from_i32(s.code), s.message)).collect()
}

#[tokio::test]
async fn anyone_reads_our_bundle_as_it_is_now() {
    let server = server().await;
    let mut anyone = BundleClient::new(server.anonymous());
    let before = anyone.get_bundle(pb::GetBundleRequest::default()).await.unwrap().into_inner();
    assert_eq!((before.trust_domain.as_str(), before.x509_authorities.len()), ("example.org", 1));
    let mut operator = BundleClient::new(server.local());
    let request =
        pb::AppendBundleRequest { jwt_authorities: vec![jwt_key("appended")], ..Default::default() };
    operator.append_bundle(request).await.unwrap();
    let after = anyone.get_bundle(pb::GetBundleRequest::default()).await.unwrap().into_inner();
    assert!(after.jwt_authorities.iter().any(|key| key.key_id == "appended"));
    assert_eq!(after.sequence_number, before.sequence_number + 1);
    let mask = types::BundleMask { sequence_number: true, ..Default::default() };
    let masked =
        anyone.get_bundle(pb::GetBundleRequest { output_mask: Some(mask) }).await.unwrap().into_inner();
    assert!(masked.x509_authorities.is_empty() && masked.jwt_authorities.is_empty());
    assert_eq!(masked.sequence_number, after.sequence_number);
}

#[tokio::test]
async fn what_can_be_wrong_with_authorities() {
    let server = server().await;
    let mut client = BundleClient::new(server.local());
    let x509 = |asn1: &[u8]| pb::AppendBundleRequest {
        x509_authorities: vec![types::X509Certificate { asn1: asn1.to_vec(), tainted: false }],
        ..Default::default()
    };
    let jwt =
        |key: types::JwtKey| pb::AppendBundleRequest { jwt_authorities: vec![key], ..Default::default() };
    let wit =
        pb::AppendBundleRequest { wit_authorities: vec![types::WitKey::default()], ..Default::default() };
    let cases = [
        (pb::AppendBundleRequest::default(), "no authorities to append"),
        (wit, "no authorities to append"),
        (x509(b"nonsense"), "failed to convert X.509 authority: "),
        (
            jwt(types::JwtKey { public_key: b"nonsense".to_vec(), ..jwt_key("k") }),
            "failed to convert JWT authority: ",
        ),
        (jwt(jwt_key("")), "failed to convert JWT authority: missing key ID"),
    ];
    for (request, message) in cases {
        let status = client.append_bundle(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with(message), "{}", status.message());
    }
}

#[tokio::test]
async fn federated_bundles_are_created_updated_set_listed_and_deleted() {
    let server = server().await;
    let root = root(&server).await;
    let mut client = BundleClient::new(server.local());
    let request = pb::BatchCreateFederatedBundleRequest {
        bundle: vec![
            bundle("one.org", &root),
            bundle("one.org", &root),
            bundle("example.org", &root),
            bundle("No", &root),
            bundle("bad.org", b"nonsense"),
        ],
        output_mask: None,
    };
    let results = client.batch_create_federated_bundle(request).await.unwrap().into_inner().results;
    let created = results[0].bundle.clone().unwrap();
    assert_eq!((created.refresh_hint, created.sequence_number), (60, 7));
    let got = statuses(results, |r| r.status);
    assert_eq!(got[0], (Code::Ok, "OK".to_owned()));
    assert_eq!(got[1], (Code::AlreadyExists, "bundle already exists".to_owned()));
    assert_eq!(
        got[2],
        (
            Code::InvalidArgument,
            "creating a federated bundle for the server's own trust domain is not allowed".to_owned()
        )
    );
    assert_eq!(got[3].0, Code::InvalidArgument);
    assert!(got[3].1.starts_with("trust domain argument is not valid: "), "{}", got[3].1);
    assert!(
        got[4].1.starts_with("failed to convert bundle: unable to parse X.509 authority: "),
        "{}",
        got[4].1
    );

    let mask = types::BundleMask { refresh_hint: true, ..Default::default() };
    let request = pb::BatchUpdateFederatedBundleRequest {
        bundle: vec![
            types::Bundle { refresh_hint: 90, x509_authorities: Vec::new(), ..bundle("one.org", &root) },
            bundle("none.org", &root),
        ],
        input_mask: Some(mask),
        output_mask: None,
    };
    let results = client.batch_update_federated_bundle(request).await.unwrap().into_inner().results;
    let updated = results[0].bundle.clone().unwrap();
    assert_eq!((updated.refresh_hint, updated.x509_authorities.len()), (90, 1));
    assert_eq!(statuses(results, |r| r.status)[1], (Code::NotFound, "bundle not found".to_owned()));

    let request =
        pb::BatchSetFederatedBundleRequest { bundle: vec![bundle("two.org", &root)], output_mask: None };
    let results = client.batch_set_federated_bundle(request).await.unwrap().into_inner().results;
    assert_eq!(statuses(results, |r| r.status), [(Code::Ok, "OK".to_owned())]);

    let list =
        client.list_federated_bundles(pb::ListFederatedBundlesRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = list.bundles.iter().map(|b| b.trust_domain.as_str()).collect();
    assert_eq!(names, ["one.org", "two.org"]);
    let count = client.count_bundles(pb::CountBundlesRequest {}).await.unwrap().into_inner().count;
    assert_eq!(count, 3, "our own counts");

    let get = |trust_domain: &str| pb::GetFederatedBundleRequest {
        trust_domain: trust_domain.to_owned(),
        output_mask: None,
    };
    let (_, channel) = server.agent("reader").await;
    let got = BundleClient::new(channel).get_federated_bundle(get("two.org")).await.unwrap().into_inner();
    assert_eq!(got.trust_domain, "two.org");
    let status = client.get_federated_bundle(get("none.org")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "bundle not found"));
    let status = client.get_federated_bundle(get("example.org")).await.unwrap_err();
    assert_eq!(
        status.message(),
        "getting a federated bundle for the server's own trust domain is not allowed"
    );

    server
        .entry(Entry {
            federates_with: vec![TrustDomain::new("one.org").unwrap()],
            ..entry("spiffe://example.org/spire/agent/x/y", "/federated")
        })
        .await;
    let delete = |names: &[&str], mode| pb::BatchDeleteFederatedBundleRequest {
        trust_domains: names.iter().map(|name| (*name).to_owned()).collect(),
        mode,
    };
    let names = ["one.org", "two.org", "none.org", "example.org", "No"];
    let request = delete(&names, Mode::Restrict as i32);
    let results = client.batch_delete_federated_bundle(request).await.unwrap().into_inner().results;
    let got = statuses(results, |r| r.status);
    assert_eq!(got[0].0, Code::FailedPrecondition);
    assert!(got[0].1.starts_with("failed to delete federated bundle: datastore-sql: "), "{}", got[0].1);
    assert_eq!(got[1], (Code::Ok, "OK".to_owned()));
    assert_eq!(got[2], (Code::NotFound, "bundle not found".to_owned()));
    assert_eq!(
        got[3],
        (Code::InvalidArgument, "removing the bundle for the server trust domain is not allowed".to_owned())
    );
    assert_eq!(got[4].0, Code::InvalidArgument);
    let status = client.batch_delete_federated_bundle(delete(&["one.org"], 9)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "failed to parse deletion mode: unhandled delete mode \"9\"")
    );
    let request = delete(&["one.org"], Mode::Dissociate as i32);
    let results = client.batch_delete_federated_bundle(request).await.unwrap().into_inner().results;
    assert_eq!(statuses(results, |r| r.status), [(Code::Ok, "OK".to_owned())]);
}

#[tokio::test]
async fn a_downstream_server_publishes_its_jwt_key() {
    let server = server().await;
    server.entry(Entry { downstream: true, ..entry("spiffe://example.org/spire/server", "/nested") }).await;
    let mut client = BundleClient::new(server.workload("spiffe://example.org/nested").await);
    let request = pb::PublishJwtAuthorityRequest { jwt_authority: Some(jwt_key("nested")) };
    let keys = client.publish_jwt_authority(request).await.unwrap().into_inner().jwt_authorities;
    assert!(keys.len() == 2 && keys.iter().any(|key| key.key_id == "nested"), "the whole list");
    let status = client.publish_jwt_authority(pb::PublishJwtAuthorityRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "missing JWT authority"));
    let request = pb::PublishJwtAuthorityRequest { jwt_authority: Some(jwt_key("")) };
    let status = client.publish_jwt_authority(request).await.unwrap_err();
    assert_eq!(status.message(), "invalid JWT authority: missing key ID");
    let status = client.publish_wit_authority(pb::PublishWitAuthorityRequest::default()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unimplemented, "WIT-SVID functionality is not yet implemented")
    );
}
