//! Agents as operators see them, and join tokens.

use std::sync::Arc;

use steeple_datastore::model::Selector;
use steeple_datastore::{AgentUpdate, Datastore as _};
use steeple_proto::spire::api::server::agent::v1 as pb;
use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use steeple_proto::spire::api::types;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_proto::spire::api::types::selector_match::MatchBehavior;
use steeple_server_api::authorize::{AgentDenied, Denied, authorize_agent};
use steeple_server_api::caller::CallerSvid;
use steeple_server_api::error::denied_reason;
use steeple_spiffe::Certificate;
use tonic::Code;

use crate::harness::{NOW, Server, agent_id, csr, pool_key, server};

fn proto_id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() })
}

async fn list(server: &Server, filter: pb::list_agents_request::Filter) -> Vec<String> {
    let request = pb::ListAgentsRequest { filter: Some(filter), ..Default::default() };
    let answer = AgentClient::new(server.local()).list_agents(request).await.unwrap().into_inner();
    answer
        .agents
        .into_iter()
        .map(|agent| agent.id.unwrap().path.rsplit('/').next().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn list_count_get_with_filters_masks_and_pages() {
    let server = server().await;
    for name in ["a", "b", "c"] {
        server.agent(name).await;
    }
    let mut b = server.state.store.fetch_agent(&agent_id("b")).await.unwrap().unwrap();
    b.selectors = vec![Selector::new("x", "1"), Selector::new("x", "2")];
    b.can_reattest = true;
    b.attestation_type = "k8s_psat".to_owned();
    server.state.store.put_agent(b, NOW).await.unwrap();
    let ban = AgentUpdate { serial_number: Some(String::new()), ..Default::default() };
    server.state.store.update_agent(&agent_id("c"), ban, NOW).await.unwrap();

    let filter = pb::list_agents_request::Filter::default;
    assert_eq!(list(&server, filter()).await, ["a", "b", "c"]);
    assert_eq!(
        list(&server, pb::list_agents_request::Filter { by_banned: Some(true), ..filter() }).await,
        ["c"]
    );
    assert_eq!(
        list(&server, pb::list_agents_request::Filter { by_can_reattest: Some(true), ..filter() }).await,
        ["b"]
    );
    let kind = pb::list_agents_request::Filter { by_attestation_type: "k8s_psat".to_owned(), ..filter() };
    assert_eq!(list(&server, kind).await, ["b"]);
    let wanted = types::SelectorMatch {
        selectors: vec![types::Selector { r#type: "x".to_owned(), value: "1".to_owned() }],
        r#match: MatchBehavior::MatchSuperset as i32,
    };
    let selectors = pb::list_agents_request::Filter { by_selector_match: Some(wanted), ..filter() };
    assert_eq!(list(&server, selectors).await, ["b"]);
    let late = pb::list_agents_request::Filter {
        by_expires_before: "2036-01-01 00:00:00 +0000 +00".to_owned(),
        ..filter()
    };
    assert_eq!(list(&server, late).await, ["a", "b", "c"]);
    let early = pb::list_agents_request::Filter {
        by_expires_before: "2006-01-01 00:00:00 +0000 +00".to_owned(),
        ..filter()
    };
    assert!(list(&server, early).await.is_empty());

    let mut client = AgentClient::new(server.local());
    let bad = pb::list_agents_request::Filter { by_expires_before: "soon".to_owned(), ..filter() };
    let request = pb::ListAgentsRequest { filter: Some(bad), ..Default::default() };
    let status = client.list_agents(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let count = client.count_agents(pb::CountAgentsRequest { filter: None }).await.unwrap().into_inner();
    assert_eq!(count.count, 3);

    let request = pb::ListAgentsRequest { page_size: 2, ..Default::default() };
    let first = client.list_agents(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.agents.len(), 2);
    let request = pb::ListAgentsRequest { page_token: first.next_page_token, ..request };
    let second = client.list_agents(request).await.unwrap().into_inner();
    assert_eq!((second.agents.len(), second.next_page_token.as_str()), (1, ""));

    let mask = types::AgentMask { selectors: true, ..Default::default() };
    let request = pb::GetAgentRequest { id: proto_id("/spire/agent/join_token/b"), output_mask: Some(mask) };
    let agent = client.get_agent(request).await.unwrap().into_inner();
    assert_eq!(agent.selectors.len(), 2);
    assert_eq!((agent.attestation_type.as_str(), agent.can_reattest), ("", false));
    let request = pb::GetAgentRequest { id: proto_id("/spire/agent/join_token/c"), output_mask: None };
    assert!(client.get_agent(request).await.unwrap().into_inner().banned);
}

#[tokio::test]
async fn bad_ids_and_unknown_agents() {
    let server = server().await;
    let mut client = AgentClient::new(server.local());
    let cases = [
        (None, Code::InvalidArgument, "invalid agent ID: request must specify SPIFFE ID"),
        (
            proto_id("/workload"),
            Code::InvalidArgument,
            "invalid agent ID: \"spiffe://example.org/workload\" is not an agent in trust domain \"example.org\"; \
             path is not in the agent namespace",
        ),
        (
            proto_id(""),
            Code::InvalidArgument,
            "invalid agent ID: \"spiffe://example.org\" is not an agent in trust domain \"example.org\"; path is empty",
        ),
        (
            Some(types::Spiffeid {
                trust_domain: "other.org".to_owned(),
                path: "/spire/agent/x/y".to_owned(),
            }),
            Code::InvalidArgument,
            "invalid agent ID: \"spiffe://other.org/spire/agent/x/y\" is not a member of trust domain \"example.org\"",
        ),
        (proto_id("/spire/agent/x/none"), Code::NotFound, "agent not found"),
    ];
    for (id, code, message) in cases {
        let got =
            client.get_agent(pb::GetAgentRequest { id: id.clone(), output_mask: None }).await.unwrap_err();
        let banned = client.ban_agent(pb::BanAgentRequest { id: id.clone() }).await.unwrap_err();
        let deleted = client.delete_agent(pb::DeleteAgentRequest { id }).await.unwrap_err();
        for status in [got, banned, deleted] {
            assert_eq!((status.code(), status.message()), (code, message));
        }
    }
}

#[tokio::test]
async fn a_banned_agent_is_refused_at_once_and_an_evicted_one_too() {
    let server = server().await;
    let (_, banned) = server.agent("banned").await;
    let (_, evicted) = server.agent("evicted").await;
    let mut operator = AgentClient::new(server.local());
    operator.ban_agent(pb::BanAgentRequest { id: proto_id("/spire/agent/join_token/banned") }).await.unwrap();
    operator
        .delete_agent(pb::DeleteAgentRequest { id: proto_id("/spire/agent/join_token/evicted") })
        .await
        .unwrap();
    for (channel, reason) in [(banned, Reason::AgentBanned), (evicted, Reason::AgentNotAttested)] {
        let status =
            AgentClient::new(channel).post_status(pb::PostStatusRequest::default()).await.unwrap_err();
        assert_eq!(denied_reason(&status), Some(reason));
    }
    let row = server.state.store.fetch_agent(&agent_id("banned")).await.unwrap().unwrap();
    assert!(row.is_banned(), "the row of a banned agent stays");
    assert_eq!(server.state.store.fetch_agent(&agent_id("evicted")).await.unwrap(), None);
}

#[tokio::test]
async fn join_tokens() {
    let server = server().await;
    let mut client = AgentClient::new(server.local());
    let request =
        |ttl, token: &str, agent_id| pb::CreateJoinTokenRequest { ttl, token: token.to_owned(), agent_id };

    let status = client.create_join_token(request(0, "", None)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "ttl is required, you must provide one")
    );
    let status = client.create_join_token(request(-5, "", None)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);

    let token = client.create_join_token(request(60, "", None)).await.unwrap().into_inner();
    assert_eq!(token.expires_at, NOW + 60);
    assert_eq!(token.value.len(), 36, "a UUID");

    let token = client.create_join_token(request(60, "mine", proto_id("/node"))).await.unwrap().into_inner();
    assert_eq!(token.value, "mine");
    let entries =
        server.state.store.list_entries(&Default::default(), &Default::default()).await.unwrap().items;
    let alias = &entries[0];
    assert_eq!(alias.spiffe_id.as_str(), "spiffe://example.org/node");
    assert_eq!(alias.parent_id.as_str(), "spiffe://example.org/spire/agent/join_token/mine");
    assert_eq!(alias.selectors, [Selector::new("spiffe_id", alias.parent_id.as_str())]);

    let status = client.create_join_token(request(60, "mine", None)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().starts_with("failed to create token: datastore-sql: "), "{}", status.message());

    // A bad alias leaves no token behind.
    let status =
        client.create_join_token(request(60, "spare", proto_id("/spire/agent/x"))).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("invalid agent ID: "), "{}", status.message());
    assert_eq!(server.state.store.take_join_token("spare").await.unwrap(), None);
}

#[tokio::test]
async fn renewal_is_signed_but_the_old_serial_stays_current() {
    let server = server().await;
    let (id, channel) = server.agent("renewing").await;
    let before = server.state.store.fetch_agent(&id).await.unwrap().unwrap();
    let mut client = AgentClient::new(channel);
    let params = |csr: Vec<u8>| pb::RenewAgentRequest { params: Some(pb::AgentX509svidParams { csr }) };

    let status = client.renew_agent(pb::RenewAgentRequest { params: None }).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "params cannot be nil"));
    let status = client.renew_agent(params(Vec::new())).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "missing CSR"));
    let status = client.renew_agent(params(b"nonsense".to_vec())).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("failed to parse CSR: "), "{}", status.message());

    let svid = client.renew_agent(params(csr(&[], &[]))).await.unwrap().into_inner().svid.unwrap();
    let leaf = steeple_spiffe::Certificate::from_der(&svid.cert_chain[0]).unwrap();
    assert_eq!(leaf.spiffe_id().unwrap(), id);
    assert_eq!(leaf.public_key(), pool_key(2).public_key());
    let after = server.state.store.fetch_agent(&id).await.unwrap().unwrap();
    assert_eq!(after.serial_number, before.serial_number);
    assert_eq!(after.new_serial_number, leaf.serial_decimal());

    let reattest = AgentUpdate { can_reattest: Some(true), ..Default::default() };
    server.state.store.update_agent(&id, reattest, NOW).await.unwrap();
    let status = client.renew_agent(params(csr(&[], &[]))).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "agent must reattest instead of renew")
    );
    assert_eq!(denied_reason(&status), Some(Reason::AgentMustReattest));
}

#[tokio::test]
async fn an_agents_version_is_kept_if_it_is_not_too_long() {
    let server = server().await;
    let (id, channel) = server.agent("versioned").await;
    let mut client = AgentClient::new(channel);
    let post = |version: String| pb::PostStatusRequest { agent_version: version, ..Default::default() };
    client.post_status(post("x".repeat(255))).await.unwrap();
    assert_eq!(server.state.store.fetch_agent(&id).await.unwrap().unwrap().agent_version.len(), 255);
    let status = client.post_status(post("x".repeat(256))).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "agent version is too long (max 255 characters)")
    );
    client.post_status(post(String::new())).await.unwrap();
    assert_eq!(server.state.store.fetch_agent(&id).await.unwrap().unwrap().agent_version.len(), 255);
}

/// What the caller presents after a renewal.
async fn renewed(server: &Server, name: &str) -> CallerSvid {
    let (id, channel) = server.agent(name).await;
    let params = Some(pb::AgentX509svidParams { csr: csr(&[], &[]) });
    let answer = AgentClient::new(channel).renew_agent(pb::RenewAgentRequest { params }).await.unwrap();
    let svid = answer.into_inner().svid.unwrap();
    let chain = svid.cert_chain.iter().map(|der| Certificate::from_der(der).unwrap()).collect();
    server.state.fresh().await;
    CallerSvid { id, chain: Arc::new(chain) }
}

/// Another server on the same database is first, and this server's view has not heard of it yet.
#[tokio::test]
async fn a_ban_is_not_undone_by_the_first_use_of_a_renewed_svid() {
    let server = server().await;
    let other = server.another_store();
    let svid = renewed(&server, "banned").await;
    let ban = AgentUpdate { serial_number: Some(String::new()), ..AgentUpdate::default() };
    other.update_agent(&svid.id, ban, NOW).await.unwrap().unwrap();
    let denied = authorize_agent(&server.state, &svid).await.unwrap_err();
    assert!(matches!(denied, Denied::Agent(AgentDenied::Banned(_))), "{denied:?}");
    assert!(other.fetch_agent(&svid.id).await.unwrap().unwrap().is_banned());

    let svid = renewed(&server, "evicted").await;
    other.delete_agent(&svid.id).await.unwrap().unwrap();
    let denied = authorize_agent(&server.state, &svid).await.unwrap_err();
    assert!(matches!(denied, Denied::Agent(AgentDenied::NotAttested(_))), "{denied:?}");
    assert_eq!(other.fetch_agent(&svid.id).await.unwrap(), None);

    let svid = renewed(&server, "renewed-again").await;
    let again = AgentUpdate { new_serial_number: Some("1".to_owned()), ..AgentUpdate::default() };
    other.update_agent(&svid.id, again, NOW).await.unwrap().unwrap();
    let denied = authorize_agent(&server.state, &svid).await.unwrap_err();
    assert!(matches!(denied, Denied::Agent(AgentDenied::NotActive { .. })), "{denied:?}");

    let svid = renewed(&server, "used-there").await;
    let serial = svid.leaf().unwrap().serial_decimal();
    other.promote_agent_serial(&svid.id, &serial, NOW).await.unwrap().unwrap();
    authorize_agent(&server.state, &svid).await.unwrap();
}
