//! Relationships with other trust domains.

use steeple_proto::spire::api::server::trustdomain::v1 as pb;
use steeple_proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use steeple_proto::spire::api::types;
use steeple_proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use steeple_proto::steeple::server::v1::ListStatesRequest;
use steeple_proto::steeple::server::v1::federation_client::FederationClient;
use steeple_server_core::federation::{Facts, Refreshed, RelationshipState};
use steeple_spiffe::TrustDomain;
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Options, Server, logged, server, start, td};

fn web(trust_domain: &str) -> types::FederationRelationship {
    types::FederationRelationship {
        trust_domain: trust_domain.to_owned(),
        bundle_endpoint_url: format!("https://{trust_domain}/bundle"),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
        trust_domain_bundle: None,
    }
}

fn spiffe(trust_domain: &str, endpoint: &str) -> types::FederationRelationship {
    let profile = types::HttpsspiffeProfile { endpoint_spiffe_id: endpoint.to_owned() };
    types::FederationRelationship {
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsSpiffe(profile)),
        ..web(trust_domain)
    }
}

async fn bundle(server: &Server, trust_domain: &str) -> types::Bundle {
    let own = server.state.store.fetch_bundle(&td()).await.unwrap().unwrap();
    types::Bundle {
        trust_domain: trust_domain.to_owned(),
        x509_authorities: vec![types::X509Certificate {
            asn1: own.x509_authorities[0].certificate.der().to_vec(),
            tainted: false,
        }],
        refresh_hint: 60,
        sequence_number: 7,
        ..Default::default()
    }
}

type Answers = Vec<(Code, String, Option<types::FederationRelationship>)>;

fn answer(status: Option<types::Status>) -> (Code, String) {
    let status = status.unwrap();
    (Code::from_i32(status.code), status.message)
}

async fn create(
    client: &mut TrustDomainClient<Channel>,
    all: Vec<types::FederationRelationship>,
    output_mask: Option<types::FederationRelationshipMask>,
) -> Answers {
    let request = pb::BatchCreateFederationRelationshipRequest { federation_relationships: all, output_mask };
    let results = client.batch_create_federation_relationship(request).await.unwrap().into_inner().results;
    let one = |result: pb::batch_create_federation_relationship_response::Result| {
        let (code, message) = answer(result.status);
        (code, message, result.federation_relationship)
    };
    results.into_iter().map(one).collect()
}

async fn update(
    client: &mut TrustDomainClient<Channel>,
    one: types::FederationRelationship,
    input_mask: Option<types::FederationRelationshipMask>,
) -> (Code, String, Option<types::FederationRelationship>) {
    let request = pb::BatchUpdateFederationRelationshipRequest {
        federation_relationships: vec![one],
        input_mask,
        output_mask: None,
    };
    let results = client.batch_update_federation_relationship(request).await.unwrap().into_inner().results;
    let result = results.into_iter().next().unwrap();
    let (code, message) = answer(result.status);
    (code, message, result.federation_relationship)
}

#[tokio::test]
async fn created_shown_listed_updated_deleted() {
    let server = server().await;
    let mut client = TrustDomainClient::new(server.local());
    let with_bundle = types::FederationRelationship {
        trust_domain_bundle: Some(bundle(&server, "one.org").await),
        ..spiffe("one.org", "spiffe://one.org/spire/server")
    };
    let made = create(&mut client, vec![with_bundle.clone(), web("two.org"), web("two.org")], None).await;
    assert_eq!(made[0], (Code::Ok, "OK".to_owned(), Some(with_bundle.clone())));
    assert_eq!(made[1], (Code::Ok, "OK".to_owned(), Some(web("two.org"))));
    // SPIRE's answer to a duplicate.
    assert_eq!((made[2].0, made[2].2.clone()), (Code::Internal, None));
    let taken = "failed to create federation relationship: datastore-sql: UNIQUE constraint failed: \
                 federated_trust_domains.trust_domain";
    assert_eq!(made[2].1, taken);
    let none = types::FederationRelationshipMask::default();
    let made = create(&mut client, vec![web("three.org")], Some(none)).await;
    let masked = made[0].2.clone().unwrap();
    assert_eq!(
        masked,
        types::FederationRelationship { trust_domain: "three.org".to_owned(), ..Default::default() }
    );

    let get = |trust_domain: &str| pb::GetFederationRelationshipRequest {
        trust_domain: trust_domain.to_owned(),
        output_mask: None,
    };
    let got = client.get_federation_relationship(get("spiffe://one.org")).await.unwrap().into_inner();
    assert_eq!(got, with_bundle);
    let status = client.get_federation_relationship(get("none.org")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "federation relationship does not exist"));
    let status = client.get_federation_relationship(get("No")).await.unwrap_err();
    assert!(status.message().starts_with("failed to parse trust domain: "), "{}", status.message());

    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let mask = types::FederationRelationshipMask { bundle_endpoint_url: true, ..none };
        let request = pb::ListFederationRelationshipsRequest {
            output_mask: Some(mask),
            page_size: 2,
            page_token: token,
        };
        let page = client.list_federation_relationships(request).await.unwrap().into_inner();
        seen.extend(page.federation_relationships);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let names: Vec<&str> = seen.iter().map(|one| one.trust_domain.as_str()).collect();
    assert_eq!(names, ["one.org", "two.org", "three.org"]);
    assert!(seen.iter().all(|one| one.bundle_endpoint_profile.is_none()
        && one.trust_domain_bundle.is_none()
        && !one.bundle_endpoint_url.is_empty()));
    let lie = pb::ListFederationRelationshipsRequest {
        page_size: 1,
        page_token: "lie".to_owned(),
        ..Default::default()
    };
    let status = client.list_federation_relationships(lie).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "failed to list federation relationships: could not parse token 'lie'")
    );

    let url = types::FederationRelationshipMask { bundle_endpoint_url: true, ..none };
    let moved = types::FederationRelationship {
        bundle_endpoint_url: "https://new.one.org".to_owned(),
        ..web("one.org")
    };
    let (code, _, updated) = update(&mut client, moved.clone(), Some(url)).await;
    let expected = types::FederationRelationship {
        bundle_endpoint_url: "https://new.one.org".to_owned(),
        ..with_bundle.clone()
    };
    assert_eq!((code, updated), (Code::Ok, Some(expected)));
    let (_, _, updated) = update(&mut client, moved.clone(), None).await;
    let kept =
        types::FederationRelationship { trust_domain_bundle: with_bundle.trust_domain_bundle, ..moved };
    assert_eq!(updated, Some(kept));
    let (code, message, _) = update(&mut client, web("none.org"), None).await;
    let missing =
        "failed to update federation relationship: unable to fetch federation relationship: record not found";
    assert_eq!((code, message.as_str()), (Code::Internal, missing));

    let request = pb::BatchDeleteFederationRelationshipRequest {
        trust_domains: ["spiffe://one.org", "one.org", "", "No"].map(str::to_owned).to_vec(),
    };
    let results = client.batch_delete_federation_relationship(request).await.unwrap().into_inner().results;
    let got: Vec<_> = results.into_iter().map(|r| (r.trust_domain, answer(r.status))).collect();
    assert_eq!(got[0], ("one.org".to_owned(), (Code::Ok, "OK".to_owned())));
    let gone = (Code::NotFound, "federation relationship not found".to_owned());
    assert_eq!(got[1], ("one.org".to_owned(), gone));
    assert_eq!(got[2], (String::new(), (Code::InvalidArgument, "missing trust domain".to_owned())));
    assert_eq!((got[3].0.as_str(), got[3].1.0), ("No", Code::InvalidArgument));
    let bundle = server.state.store.fetch_bundle(&TrustDomain::new("one.org").unwrap()).await.unwrap();
    assert!(bundle.is_some(), "the bundle stays, as in SPIRE");
}

#[tokio::test]
async fn what_can_be_wrong_with_a_relationship() {
    let server = server().await;
    let mut client = TrustDomainClient::new(server.local());
    let url =
        |url: &str| types::FederationRelationship { bundle_endpoint_url: url.to_owned(), ..web("other.org") };
    let good = bundle(&server, "another.org").await;
    let bad = types::Bundle {
        x509_authorities: vec![types::X509Certificate { asn1: b"x".to_vec(), tainted: false }],
        ..bundle(&server, "other.org").await
    };
    let with = |bundle: types::Bundle| types::FederationRelationship {
        trust_domain_bundle: Some(bundle),
        ..web("other.org")
    };
    let no_profile = types::FederationRelationship { bundle_endpoint_profile: None, ..web("other.org") };
    let prefix = "failed to convert federation relationship: ";
    for (wrong, message) in [
        (web("No"), "failed to parse trust domain: "),
        (web(""), "failed to parse trust domain: trust domain is missing"),
        (url(""), "bundle endpoint URL must use the https scheme"),
        (url("http://other.org"), "bundle endpoint URL must use the https scheme"),
        (url("https://"), "bundle endpoint URL must specify the host"),
        (url("https://u:p@other.org"), "bundle endpoint URL must not contain user info"),
        (url("https://a b"), "failed to parse bundle endpoint URL: parse \"https://a b\": "),
        (no_profile, "unsupported bundle endpoint profile type: <nil>"),
        (spiffe("other.org", ""), "failed to parse endpoint SPIFFE ID: "),
        (spiffe("other.org", "x"), "failed to parse endpoint SPIFFE ID: "),
        (
            with(good),
            "trust domain bundle (\"another.org\") must match the trust domain of the federation relationship (\"other.org\")",
        ),
        (with(bad), "failed to parse bundle: unable to parse X.509 authority: "),
    ] {
        let (code, text, made) = create(&mut client, vec![wrong.clone()], None).await.remove(0);
        assert_eq!((code, made), (Code::InvalidArgument, None), "{text}");
        assert!(text.starts_with(&format!("{prefix}{message}")), "{text}");
        let (code, text, _) = update(&mut client, wrong, None).await;
        assert_eq!(code, Code::InvalidArgument);
        assert!(text.starts_with(&format!("{prefix}{message}")), "{text}");
    }
    let (code, text, _) = create(&mut client, vec![web("example.org")], None).await.remove(0);
    let own = "unable to create federation relationship for server trust domain";
    assert_eq!((code, text.as_str()), (Code::InvalidArgument, own));
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_known_is_warned_of() {
    let server = start(Options { audit: true, ..Options::default() }).await;
    let mut client = TrustDomainClient::new(server.local());
    create(&mut client, vec![spiffe("warned.org", "spiffe://warned.org/spire/server")], None).await;
    let lines = logged("\"warned.org\"");
    let warned = lines.iter().find(|line| line["level"] == "warning").unwrap();
    assert_eq!(warned["msg"], "bundle not found for the endpoint SPIFFE ID trust domain");
    assert_eq!(warned["endpoint_spiffe_id"], "spiffe://warned.org/spire/server");
    let audited = lines.iter().find(|line| line["type"] == "audit").unwrap();
    assert_eq!(audited["bundle_endpoint_profile"], "https_spiffe");
    assert_eq!(audited["bundle_endpoint_url"], "https://warned.org/bundle");
}

#[tokio::test]
async fn a_refresh_is_ordered_and_states_are_shown() {
    let mut server = server().await;
    let mut orders = server.orders.take().unwrap();
    let mut client = TrustDomainClient::new(server.local());
    let ask = |trust_domain: &str| pb::RefreshBundleRequest { trust_domain: trust_domain.to_owned() };
    let status = client.refresh_bundle(ask("No")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut runs = tokio::task::JoinSet::new();
    runs.spawn(async move {
        for outcome in [Refreshed::Done, Refreshed::Unmanaged, Refreshed::Failed("down".to_owned())] {
            orders.next().await.reply.send(outcome).unwrap();
        }
        orders
    });
    client.refresh_bundle(ask("other.org")).await.unwrap();
    let status = client.refresh_bundle(ask("spiffe://other.org")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "no relationship with trust domain \"other.org\"")
    );
    let status = client.refresh_bundle(ask("other.org")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Internal, "failed to refresh bundle: down"));

    let orders = runs.join_next().await.unwrap().unwrap();
    let state = RelationshipState {
        is_static: true,
        last_attempt: 3,
        last_success: 2,
        next_attempt: 4,
        last_error: Some("down".to_owned()),
        failures_in_a_row: 1,
        stored: Some(Facts { sequence_number: 9, refresh_hint: Some(60) }),
    };
    orders.publish(vec![(TrustDomain::new("other.org").unwrap(), state)]);
    let mut federation = FederationClient::new(server.local());
    let states = federation.list_states(ListStatesRequest {}).await.unwrap().into_inner().states;
    assert_eq!(states.len(), 1);
    let state = &states[0];
    assert_eq!((state.trust_domain.as_str(), state.r#static), ("other.org", true));
    assert_eq!((state.last_attempt, state.last_success, state.next_attempt), (3, 2, 4));
    assert_eq!((state.last_error.as_str(), state.failures_in_a_row), ("down", 1));
    assert_eq!((state.sequence_number, state.refresh_hint), (9, 60));
}
