//! Every RPC, called by every kind of caller (spire.md §1.7).

use std::collections::BTreeMap;

use http::uri::PathAndQuery;
use steeple_datastore::AgentUpdate;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_server_api::access::{Access, METHODS};
use steeple_server_api::error::denied_reason;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{Options, Server, agent_id, entry, pool_key, start};

/// An empty message of any type, both ways: authorization comes before the message is read.
#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

async fn call(channel: &Channel, path: &'static str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let codec: tonic_prost::ProstCodec<Nothing, Nothing> = tonic_prost::ProstCodec::default();
    let requests = tokio_stream::iter([Nothing {}]);
    let response =
        grpc.streaming(tonic::Request::new(requests), PathAndQuery::from_static(path), codec).await?;
    // A refusal of a streaming call may come as the first thing on the stream.
    let mut stream = response.into_inner();
    let first = tokio::time::timeout(std::time::Duration::from_millis(200), stream.message()).await;
    match first {
        Ok(Err(status)) => Err(status),
        _ => Ok(()),
    }
}

fn is_denied(outcome: &Result<(), Status>, path: &str) -> bool {
    match outcome {
        Ok(()) => false,
        Err(status) => {
            status.code() == Code::PermissionDenied
                && status.message() == format!("authorization denied for method {path}")
        }
    }
}

struct Kinds(BTreeMap<&'static str, Channel>);

impl Kinds {
    async fn of(server: &Server) -> Self {
        server
            .entry(steeple_datastore::model::Entry {
                admin: true,
                ..entry("spiffe://example.org/spire/server", "/admin-by-entry")
            })
            .await;
        server
            .entry(steeple_datastore::model::Entry {
                downstream: true,
                ..entry("spiffe://example.org/spire/server", "/downstream")
            })
            .await;
        server.entry(entry("spiffe://example.org/spire/server", "/workload")).await;
        let evicted = server.agent("evicted").await.1;
        server.state.store.delete_agent(&agent_id("evicted")).await.unwrap();
        let banned = server.agent("banned").await.1;
        let ban = AgentUpdate { serial_number: Some(String::new()), ..AgentUpdate::default() };
        server.state.store.update_agent(&agent_id("banned"), ban, 0).await.unwrap();
        let inactive = server.agent("inactive").await.1;
        let other = AgentUpdate { serial_number: Some("12345".to_owned()), ..AgentUpdate::default() };
        server.state.store.update_agent(&agent_id("inactive"), other, 0).await.unwrap();
        Self(BTreeMap::from([
            ("local", server.local()),
            ("anonymous", server.anonymous()),
            ("workload", server.workload("spiffe://example.org/workload").await),
            ("admin by config", server.workload("spiffe://example.org/admin-by-config").await),
            ("admin by entry", server.workload("spiffe://example.org/admin-by-entry").await),
            ("downstream", server.workload("spiffe://example.org/downstream").await),
            ("agent", server.agent("good").await.1),
            ("evicted agent", evicted),
            ("banned agent", banned),
            ("inactive agent", inactive),
        ]))
    }
}

fn may(kind: &str, access: Access) -> bool {
    access.anyone
        || match kind {
            "local" => access.local,
            "admin by config" | "admin by entry" => access.admin,
            "downstream" => access.downstream,
            "agent" => access.agent,
            _ => false,
        }
}

fn local_only(path: &str) -> bool {
    ["spire.api.server.logger.", "spire.api.server.debug.", "grpc.health."]
        .iter()
        .any(|p| path[1..].starts_with(p))
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rpc_by_each_kind_of_caller() {
    let server = start(Options::default()).await;
    let kinds = Kinds::of(&server).await;
    for method in METHODS {
        // Would stop the log for the other tests.
        if method.name == "SetLogLevel" {
            continue;
        }
        for (kind, channel) in &kinds.0 {
            let outcome = call(channel, method.path).await;
            let served_here = (*kind == "local" && method.path != "/steeple.agent.v1.Sync/Watch")
                || (*kind != "local" && !local_only(method.path));
            let what = format!("{} by {kind}: {outcome:?}", method.path);
            match (may(kind, method.access), served_here) {
                (false, _) => assert!(is_denied(&outcome, method.path), "{what}"),
                (true, false) => {
                    assert_eq!(outcome.as_ref().unwrap_err().code(), Code::Unimplemented, "{what}");
                }
                (true, true) => assert!(!is_denied(&outcome, method.path), "{what}"),
            }
            if let Err(status) = &outcome
                && is_denied(&outcome, method.path)
            {
                let reason = denied_reason(status);
                let expected = if method.access.agent { reason_of(kind) } else { None };
                assert_eq!(reason, expected, "{what}");
            }
        }
    }
}

/// What an agent learns; a caller that is no agent at all learns that, too.
fn reason_of(kind: &str) -> Option<Reason> {
    match kind {
        "local" | "anonymous" => None,
        "banned agent" => Some(Reason::AgentBanned),
        "inactive agent" => Some(Reason::AgentNotActive),
        _ => Some(Reason::AgentNotAttested),
    }
}

#[tokio::test]
async fn an_expired_svid_does_not_get_past_the_handshake_or_the_check() {
    let server = start(Options::default()).await;
    let (_, channel) = server.agent("old").await;
    let path = "/spire.api.server.entry.v1.Entry/GetAuthorizedEntries";
    assert!(call(&channel, path).await.is_ok());
    // The connection stays; the SVID on it does not last.
    server.clock.advance(std::time::Duration::from_secs(3_601));
    let status = call(&channel, path).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(denied_reason(&status), Some(Reason::AgentExpired));
}

/// In grpc-go's words, on both endpoints.
#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    let server = start(Options::default()).await;
    let unknown_service = |service: &str| format!("unknown service {service}");
    let unknown = [
        (
            "/spire.api.server.trustdomain.v1.TrustDomain/ListFederationRelationships",
            unknown_service("spire.api.server.trustdomain.v1.TrustDomain"),
        ),
        (
            "/spire.api.server.localauthority.v1.LocalAuthority/GetJWTAuthorityState",
            unknown_service("spire.api.server.localauthority.v1.LocalAuthority"),
        ),
        (
            "/spire.api.server.entry.v1.Entry/NoSuchMethod",
            "unknown method NoSuchMethod for service spire.api.server.entry.v1.Entry".to_owned(),
        ),
        ("/no.Such/Service", unknown_service("no.Such")),
        ("/no/such/Service", unknown_service("no/such")),
        ("/nothing", "malformed method name: \"/nothing\"".to_owned()),
    ];
    for channel in [server.local(), server.anonymous()] {
        for (path, text) in &unknown {
            let status = call(&channel, path).await.unwrap_err();
            assert_eq!((status.code(), status.message()), (Code::Unimplemented, text.as_str()), "{path}");
        }
    }
    let status = call(&server.local(), "/steeple.agent.v1.Sync/NoSuch").await.unwrap_err();
    assert_eq!(status.message(), "unknown service steeple.agent.v1.Sync");
    let status = call(&server.anonymous(), "/spire.api.server.debug.v1.Debug/NoSuch").await.unwrap_err();
    assert_eq!(status.message(), "unknown service spire.api.server.debug.v1.Debug");
}

/// An admin may be of another trust domain, whose bundle is then trusted too.
#[tokio::test]
async fn an_admin_of_another_trust_domain() {
    use steeple_spiffe::x509::{self, CaTemplate, DistinguishedName, Issuer, LeafTemplate, SerialNumber};
    use steeple_spiffe::{Certificate, SignatureAlgorithm, TrustDomain};
    let options = Options { admin_ids: vec!["spiffe://other.org/admin"], ..Options::default() };
    let server = start(options).await;
    let (root_key, leaf_key) = (pool_key(0), pool_key(1));
    let (not_before, not_after) = (crate::harness::NOW - 10, crate::harness::NOW + 600);
    let other = TrustDomain::new("other.org").unwrap();
    let template = CaTemplate {
        trust_domain: other.clone(),
        public_key: root_key.public_key(),
        subject: DistinguishedName::default_ca(),
        not_before,
        not_after,
        serial: SerialNumber::random().unwrap(),
    };
    let algorithm = SignatureAlgorithm::EcdsaSha256;
    let sign = |tbs: &[u8]| x509::assemble(tbs, algorithm, &root_key.sign(algorithm, tbs).unwrap());
    let root = sign(&x509::ca_tbs_self_signed(&template, algorithm).unwrap());
    let root = Certificate::from_der(&root).unwrap();
    let issuer = Issuer::from_certificate(&root, algorithm);
    server.trust(&other, root);
    let svid = |path: &str| {
        let template = LeafTemplate {
            spiffe_id: format!("spiffe://other.org{path}").parse().unwrap(),
            public_key: leaf_key.public_key(),
            not_before,
            not_after,
            dns_names: Vec::new(),
            subject: None,
            serial: SerialNumber::random().unwrap(),
        };
        let chain = vec![sign(&x509::leaf_tbs(&template, &issuer).unwrap())];
        steeple_server_core::ca::SignedX509 {
            chain,
            serial: String::new(),
            not_before,
            expires_at: not_after,
        }
    };
    let path = "/spire.api.server.agent.v1.Agent/CountAgents";
    assert!(call(&server.with_svid(&svid("/admin"), &leaf_key), path).await.is_ok());
    let outcome = call(&server.with_svid(&svid("/somebody"), &leaf_key), path).await;
    assert!(is_denied(&outcome, path), "{outcome:?}");
}

/// A renewed serial is good from its first use; the old one until then.
#[tokio::test]
async fn a_new_serial_becomes_current_when_first_used() {
    let server = start(Options::default()).await;
    let (id, old) = server.agent("renewing").await;
    let next = server.agent_svid(&id).await;
    let update = AgentUpdate {
        new_serial_number: Some(next.serial.clone()),
        new_expires_at: Some(next.expires_at),
        ..AgentUpdate::default()
    };
    server.state.store.update_agent(&id, update, 0).await.unwrap();
    let path = "/spire.api.server.entry.v1.Entry/GetAuthorizedEntries";
    assert!(call(&old, path).await.is_ok(), "the old one is good");
    let new = server.with_svid(&next, &pool_key(1));
    assert!(call(&new, path).await.is_ok(), "the new one is good");
    let stored = server.state.store.fetch_agent(&id).await.unwrap().unwrap();
    assert_eq!((stored.serial_number, stored.new_serial_number), (next.serial, String::new()));
    assert_eq!(stored.expires_at, next.expires_at);
    let status = call(&old, path).await.unwrap_err();
    assert_eq!(denied_reason(&status), Some(Reason::AgentNotActive), "the old one is over");
}
