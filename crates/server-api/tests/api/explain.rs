//! Why: for people everything, for agents what concerns them.

use steeple_proto::spire::api::types::Selector;
use steeple_proto::steeple::server::v1::explain_client::ExplainClient;
use steeple_proto::steeple::server::v1::{
    EntryFinding, ForAgentRequest, Reason, RegistrationsRequest, RegistrationsResponse,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::harness::{Options, Server, entry, server, start};

fn selectors(values: &[&str]) -> Vec<Selector> {
    let one = |value: &&str| Selector { r#type: "unix".into(), value: (*value).into() };
    values.iter().map(one).collect()
}

fn having(values: &[&str]) -> Vec<steeple_datastore::model::Selector> {
    values.iter().map(|value| steeple_datastore::model::Selector::new("unix", *value)).collect()
}

fn codes(reasons: &[Reason]) -> Vec<&str> {
    reasons.iter().map(|reason| reason.code.as_str()).collect()
}

async fn registrations(server: &Server, request: RegistrationsRequest) -> RegistrationsResponse {
    ExplainClient::new(server.local()).registrations(request).await.unwrap().into_inner()
}

async fn for_agent(channel: Channel, values: &[&str], spiffe_id: &str) -> Vec<EntryFinding> {
    let request = ForAgentRequest { selectors: selectors(values), spiffe_id: spiffe_id.into() };
    ExplainClient::new(channel).for_agent(request).await.unwrap().into_inner().entries
}

#[tokio::test]
async fn people_are_told_of_parents_selectors_and_lifetimes() {
    let server = server().await;
    let (agent, _) = server.agent("one").await;
    let mut mine = entry(agent.as_str(), "/mine");
    (mine.selectors, mine.x509_svid_ttl) = (having(&["uid:1", "gid:1"]), i32::MAX);
    let mine = server.entry(mine).await;
    let mut lost = entry("spiffe://example.org/nobody", "/lost");
    lost.selectors = having(&["uid:1"]);
    let lost = server.entry(lost).await;
    let about = |entry_id: &str| RegistrationsRequest { entry_id: entry_id.into(), ..Default::default() };

    let told = registrations(&server, about(&mine.id)).await;
    assert_eq!(codes(&told.reasons), ["ISSUED", "TTL_CLAMPED"]);
    assert_eq!(told.entries[0].agents, [agent.to_string()]);
    let lifetime = told.entries[0].lifetime.unwrap();
    assert!(lifetime.ttl < lifetime.entry_ttl && lifetime.ttl > 0, "{lifetime:?}");

    let told =
        registrations(&server, RegistrationsRequest { agent_id: agent.to_string(), ..about(&mine.id) }).await;
    assert_eq!(told.entries[0].chain, [agent.to_string()]);
    assert!(told.agent.unwrap().known);

    let told = registrations(&server, about(&lost.id)).await;
    assert_eq!(codes(&told.reasons), ["PARENT_NOT_REACHED"]);
    let told = registrations(&server, about("none")).await;
    assert_eq!(codes(&told.reasons), ["NO_ENTRY"]);

    let selectors = selectors(&["uid:1"]);
    let told = registrations(
        &server,
        RegistrationsRequest {
            selectors: selectors.clone(),
            agent_id: agent.to_string(),
            ..Default::default()
        },
    )
    .await;
    // What matches, and does not lead there; then what nearly matches.
    let ids: Vec<&str> = told.entries.iter().map(|entry| entry.entry_id.as_str()).collect();
    assert_eq!(ids, [&*lost.id, &*mine.id]);
    assert_eq!(told.entries[1].missing_selectors, ["unix:gid:1"]);

    let foreign = RegistrationsRequest { spiffe_id: "spiffe://other.org/x".into(), ..Default::default() };
    assert_eq!(codes(&registrations(&server, foreign).await.reasons), ["FOREIGN_TRUST_DOMAIN"]);
    let unknown =
        RegistrationsRequest { agent_id: "spiffe://example.org/spire/agent/x".into(), ..Default::default() };
    assert_eq!(codes(&registrations(&server, unknown).await.reasons), ["AGENT_NOT_ATTESTED"]);
}

#[tokio::test]
async fn bad_questions_are_refused() {
    let server = server().await;
    let mut client = ExplainClient::new(server.local());
    let refused = client.registrations(RegistrationsRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let nope = RegistrationsRequest { agent_id: "nope".into(), ..Default::default() };
    let refused = client.registrations(nope).await.unwrap_err();
    assert!(
        refused.code() == Code::InvalidArgument && refused.message().starts_with("agent_id: "),
        "{refused}"
    );
    let (_, channel) = server.agent("one").await;
    let values: Vec<String> = (0..1001).map(|i| format!("uid:{i}")).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let request = ForAgentRequest { selectors: selectors(&values), spiffe_id: String::new() };
    let refused = ExplainClient::new(channel).for_agent(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_agent_is_told_of_complete_matches_only_and_no_selectors() {
    let server = server().await;
    let (agent, channel) = server.agent("one").await;
    let mut mine = entry(agent.as_str(), "/mine");
    mine.selectors = having(&["uid:1"]);
    let mine = server.entry(mine).await;
    let mut other = entry("spiffe://example.org/elsewhere", "/other");
    other.selectors = having(&["uid:1", "path:/secret"]);
    let other = server.entry(other).await;

    let told = for_agent(channel.clone(), &["uid:1"], "").await;
    assert_eq!(told.len(), 1);
    assert_eq!(
        (&*told[0].entry_id, told[0].reached, &told[0].chain),
        (&*mine.id, true, &vec![agent.to_string()])
    );

    let told = for_agent(channel.clone(), &["uid:1", "path:/secret", "gid:5"], "").await;
    let found = told.iter().find(|entry| entry.entry_id == other.id).unwrap();
    let bare = EntryFinding {
        entry_id: other.id.clone(),
        spiffe_id: other.spiffe_id.to_string(),
        parent_id: other.parent_id.to_string(),
        ..EntryFinding::default()
    };
    assert_eq!(*found, bare, "nothing but what an operator needs to find it");

    // Naming an identity is no way round.
    let id = other.spiffe_id.as_str();
    assert_eq!(for_agent(channel.clone(), &["uid:1"], id).await, []);
    assert_eq!(for_agent(channel, &[], id).await, [bare]);
}

#[tokio::test]
async fn who_may_ask() {
    let server = start(Options { explain_to_agents: false, ..Options::default() }).await;
    let (_, channel) = server.agent("one").await;
    let refused =
        ExplainClient::new(channel.clone()).for_agent(ForAgentRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let refused = ExplainClient::new(server.local()).for_agent(ForAgentRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "it is about the caller");
    let request = RegistrationsRequest { entry_id: "x".into(), ..Default::default() };
    for channel in [channel, server.anonymous()] {
        let refused = ExplainClient::new(channel).registrations(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}
