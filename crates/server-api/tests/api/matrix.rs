//! Every RPC, called by every kind of caller (spire.md §1.7).

use std::collections::BTreeMap;

use http::uri::PathAndQuery;
use steeple_datastore::AgentUpdate;
use steeple_datastore::model::Entry;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_runtime::clock::Clock as _;
use steeple_server_api::access::METHODS;
use steeple_server_api::error::denied_reason;
use steeple_spiffe::x509::{self, CaTemplate, DistinguishedName, Issuer, LeafTemplate, SerialNumber};
use steeple_spiffe::{Certificate, SignatureAlgorithm, TrustDomain};
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

/// Who calls. `F` is of another trust domain, which is trusted because an admin is of it.
const KINDS: [&str; 13] = [
    "local",
    "anonymous",
    "workload",
    "admin by id",
    "admin by entry",
    "foreign admin",
    "foreign workload",
    "downstream",
    "agent",
    "evicted agent",
    "banned agent",
    "inactive agent",
    "expired agent",
];

/// Who may call what: L = local, A = admin, G = agent, D = downstream, * = anyone (spire.md §1.7); and where it is
/// served: B = on both endpoints, U = on the Unix socket, T = on TCP.
const TABLE: &[(&str, &str, &str, &str)] = &[
    (
        "spire.api.server.agent.v1.Agent",
        "CountAgents ListAgents GetAgent DeleteAgent BanAgent CreateJoinToken",
        "LA",
        "B",
    ),
    ("spire.api.server.agent.v1.Agent", "AttestAgent", "*", "B"),
    ("spire.api.server.agent.v1.Agent", "RenewAgent PostStatus", "G", "B"),
    ("spire.api.server.bundle.v1.Bundle", "GetBundle", "*", "B"),
    (
        "spire.api.server.bundle.v1.Bundle",
        "AppendBundle CountBundles ListFederatedBundles BatchCreateFederatedBundle BatchUpdateFederatedBundle \
         BatchSetFederatedBundle BatchDeleteFederatedBundle",
        "LA",
        "B",
    ),
    ("spire.api.server.bundle.v1.Bundle", "GetFederatedBundle", "LAG", "B"),
    ("spire.api.server.bundle.v1.Bundle", "PublishJWTAuthority PublishWITAuthority", "D", "B"),
    (
        "spire.api.server.entry.v1.Entry",
        "CountEntries ListEntries GetEntry BatchCreateEntry BatchUpdateEntry BatchDeleteEntry",
        "LA",
        "B",
    ),
    ("spire.api.server.entry.v1.Entry", "GetAuthorizedEntries SyncAuthorizedEntries", "G", "B"),
    ("spire.api.server.svid.v1.SVID", "MintX509SVID MintJWTSVID MintWITSVID", "LA", "B"),
    ("spire.api.server.svid.v1.SVID", "BatchNewX509SVID NewJWTSVID BatchNewWITSVID", "G", "B"),
    ("spire.api.server.svid.v1.SVID", "NewDownstreamX509CA", "D", "B"),
    (
        "spire.api.server.trustdomain.v1.TrustDomain",
        "ListFederationRelationships GetFederationRelationship BatchCreateFederationRelationship \
         BatchUpdateFederationRelationship BatchDeleteFederationRelationship RefreshBundle",
        "LA",
        "B",
    ),
    (
        "spire.api.server.localauthority.v1.LocalAuthority",
        "GetJWTAuthorityState PrepareJWTAuthority ActivateJWTAuthority TaintJWTAuthority RevokeJWTAuthority \
         GetX509AuthorityState PrepareX509Authority ActivateX509Authority TaintX509Authority RevokeX509Authority \
         TaintX509UpstreamAuthority RevokeX509UpstreamAuthority \
         GetWITAuthorityState PrepareWITAuthority ActivateWITAuthority TaintWITAuthority RevokeWITAuthority",
        "LA",
        "B",
    ),
    ("spire.api.server.logger.v1.Logger", "GetLogger SetLogLevel ResetLogLevel", "L", "U"),
    ("spire.api.server.debug.v1.Debug", "GetInfo", "L", "U"),
    ("grpc.health.v1.Health", "Check List Watch", "L", "U"),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", "L", "U"),
    ("grpc.reflection.v1alpha.ServerReflection", "ServerReflectionInfo", "L", "U"),
    ("steeple.server.v1.Rotation", "RotateEntries RotateAgents", "LA", "B"),
    ("steeple.server.v1.Federation", "ListStates", "LA", "B"),
    ("steeple.server.v1.Explain", "Registrations", "LA", "B"),
    ("steeple.server.v1.Explain", "ForAgent", "G", "B"),
    ("steeple.agent.v1.Sync", "Watch", "G", "T"),
];

/// Path, who, where.
fn rows() -> impl Iterator<Item = (String, &'static str, &'static str)> {
    TABLE.iter().flat_map(|(service, methods, who, at)| {
        methods.split_whitespace().map(move |method| (format!("/{service}/{method}"), *who, *at))
    })
}

/// A method that is served has a row here, and a row in the program's own table.
#[test]
fn every_served_method_has_a_row() {
    use prost::Message as _;
    let mut expected: Vec<String> = rows().map(|row| row.0).collect();
    let spires = expected.iter().filter(|path| path.starts_with("/spire.")).count();
    assert_eq!(spires, 62);
    expected.sort();
    let mut ours: Vec<String> = METHODS.iter().map(|method| method.path.to_owned()).collect();
    ours.sort();
    assert_eq!(ours, expected);
    let files = prost_types::FileDescriptorSet::decode(steeple_proto::FILE_DESCRIPTOR_SET).unwrap();
    let servers = ["spire.api.server.", "steeple.server.", "steeple.agent."];
    let mut declared = 0;
    for file in files.file.iter().filter(|file| servers.iter().any(|name| file.package().starts_with(name))) {
        // The agent serves that one.
        let of_agent = |name: &str| file.package() == "steeple.agent.v1" && name == "Explain";
        for service in file.service.iter().filter(|service| !of_agent(service.name())) {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                assert!(expected.contains(&path), "{path} has no row");
                declared += 1;
            }
        }
    }
    assert_eq!(declared, 62 + 6);
}

/// And a bit.
const HALF_A_LIFE: std::time::Duration = std::time::Duration::from_secs(1_801);

struct Kinds(BTreeMap<&'static str, Channel>);

impl Kinds {
    async fn of(server: &Server) -> Self {
        let under_server = |path| entry("spiffe://example.org/spire/server", path);
        server.entry(Entry { admin: true, ..under_server("/admin-by-entry") }).await;
        server.entry(Entry { downstream: true, ..under_server("/downstream") }).await;
        server.entry(under_server("/workload")).await;
        let old = server.agent("expired").await.1;
        server.clock.advance(HALF_A_LIFE);
        let evicted = server.agent("evicted").await.1;
        server.state.store.delete_agent(&agent_id("evicted")).await.unwrap();
        let banned = server.agent("banned").await.1;
        let ban = AgentUpdate { serial_number: Some(String::new()), ..AgentUpdate::default() };
        server.state.store.update_agent(&agent_id("banned"), ban, 0).await.unwrap();
        let inactive = server.agent("inactive").await.1;
        let other = AgentUpdate { serial_number: Some("12345".to_owned()), ..AgentUpdate::default() };
        server.state.store.update_agent(&agent_id("inactive"), other, 0).await.unwrap();
        let foreign = Foreign::of(server);
        let kinds = BTreeMap::from([
            ("local", server.local()),
            ("anonymous", server.anonymous()),
            ("workload", server.workload("spiffe://example.org/workload").await),
            ("admin by id", server.workload("spiffe://example.org/admin-by-config").await),
            ("admin by entry", server.workload("spiffe://example.org/admin-by-entry").await),
            ("foreign admin", foreign.caller(server, "/admin")),
            ("foreign workload", foreign.caller(server, "/somebody")),
            ("downstream", server.workload("spiffe://example.org/downstream").await),
            ("agent", server.agent("good").await.1),
            ("evicted agent", evicted),
            ("banned agent", banned),
            ("inactive agent", inactive),
            ("expired agent", old),
        ]);
        // Connections stay; the SVIDs on them do not last.
        for (kind, channel) in &kinds {
            let connected = call(channel, "/spire.api.server.bundle.v1.Bundle/GetBundle").await;
            assert!(connected.is_ok(), "{kind}: {connected:?}");
        }
        server.clock.advance(HALF_A_LIFE);
        Self(kinds)
    }
}

fn may(kind: &str, who: &str) -> bool {
    who.contains('*')
        || match kind {
            "local" => who.contains('L'),
            "admin by id" | "admin by entry" | "foreign admin" => who.contains('A'),
            "downstream" => who.contains('D'),
            "agent" => who.contains('G'),
            _ => false,
        }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rpc_by_each_kind_of_caller() {
    let options = Options {
        admin_ids: vec!["spiffe://example.org/admin-by-config", "spiffe://other.org/admin"],
        ..Options::default()
    };
    let server = start(options).await;
    let kinds = Kinds::of(&server).await;
    assert_eq!(kinds.0.len(), KINDS.len());
    for (path, who, at) in rows() {
        let path: &'static str = path.leak();
        for kind in KINDS {
            let local = kind == "local";
            // An empty request would be taken for one: it changes nothing that later rows need.
            let outcome = call(&kinds.0[kind], path).await;
            let what = format!("{path} by {kind}: {outcome:?}");
            if (local && at == "T") || (!local && at == "U") {
                let status = outcome.as_ref().unwrap_err();
                assert_eq!(status.code(), Code::Unimplemented, "{what}");
                assert!(status.message().starts_with("unknown service "), "{what}");
            } else if may(kind, who) {
                assert!(!is_denied(&outcome, path), "{what}");
                let served = outcome.as_ref().err().is_none_or(|status| {
                    status.code() != Code::Unimplemented || !status.message().starts_with("unknown")
                });
                assert!(served, "{what}");
            } else {
                assert!(is_denied(&outcome, path), "{what}");
                let reason = denied_reason(outcome.as_ref().unwrap_err());
                assert_eq!(reason, if who.contains('G') { reason_of(kind) } else { None }, "{what}");
            }
        }
    }
}

/// What an agent learns; a caller that is no agent at all learns that, too.
fn reason_of(kind: &str) -> Option<Reason> {
    match kind {
        "local" | "anonymous" => None,
        "banned agent" => Some(Reason::AgentBanned),
        "expired agent" => Some(Reason::AgentExpired),
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

/// Another trust domain, and callers of it.
struct Foreign {
    root_key: steeple_spiffe::PrivateKey,
    root: Certificate,
}

impl Foreign {
    /// Its bundle is trusted from now on.
    fn of(server: &Server) -> Self {
        let foreign = Self::unknown(server.clock.now());
        server.trust(&TrustDomain::new("other.org").unwrap(), foreign.root.clone());
        foreign
    }

    fn unknown(now: i64) -> Self {
        let root_key = pool_key(0);
        let template = CaTemplate {
            trust_domain: TrustDomain::new("other.org").unwrap(),
            public_key: root_key.public_key(),
            subject: DistinguishedName::default_ca(),
            not_before: now - 10,
            not_after: now + 3_600,
            serial: SerialNumber::random().unwrap(),
        };
        let tbs = x509::ca_tbs_self_signed(&template, SignatureAlgorithm::EcdsaSha256).unwrap();
        let root = Certificate::from_der(&sign(&root_key, &tbs)).unwrap();
        Self { root_key, root }
    }

    fn caller(&self, server: &Server, path: &str) -> Channel {
        let key = pool_key(1);
        let issuer = Issuer::from_certificate(&self.root, SignatureAlgorithm::EcdsaSha256);
        let template = LeafTemplate {
            spiffe_id: format!("spiffe://other.org{path}").parse().unwrap(),
            public_key: key.public_key(),
            not_before: self.root.not_before(),
            not_after: self.root.not_after(),
            dns_names: Vec::new(),
            subject: None,
            serial: SerialNumber::random().unwrap(),
        };
        let svid = steeple_server_core::ca::SignedX509 {
            chain: vec![sign(&self.root_key, &x509::leaf_tbs(&template, &issuer).unwrap())],
            serial: String::new(),
            not_before: self.root.not_before(),
            expires_at: self.root.not_after(),
        };
        server.with_svid(&svid, &key)
    }
}

fn sign(key: &steeple_spiffe::PrivateKey, tbs: &[u8]) -> Vec<u8> {
    let algorithm = SignatureAlgorithm::EcdsaSha256;
    x509::assemble(tbs, algorithm, &key.sign(algorithm, tbs).unwrap())
}

/// The handshake fails: not even what is open to anyone can be called with it.
#[tokio::test]
async fn an_svid_of_an_unknown_trust_domain() {
    let server = start(Options::default()).await;
    let stranger = Foreign::unknown(server.clock.now()).caller(&server, "/admin");
    let status = call(&stranger, "/spire.api.server.bundle.v1.Bundle/GetBundle").await.unwrap_err();
    // In TLS 1.3 the client learns of it after its first words.
    assert!([Code::Unavailable, Code::Unknown].contains(&status.code()), "{status}");
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
