//! Rotation on demand.

use steeple_datastore::AgentUpdate;
use steeple_proto::steeple::agent::v1::WatchRequest;
use steeple_proto::steeple::agent::v1::sync_client::SyncClient;
use steeple_proto::steeple::server::v1::rotation_client::RotationClient;
use steeple_proto::steeple::server::v1::{RotateAgentsRequest, RotateEntriesRequest};

use crate::harness::{NOW, Server, agent_id, entry, server};

async fn rotate_agents(server: &Server, ids: &[&str]) -> Vec<(i32, String)> {
    let request = RotateAgentsRequest { ids: ids.iter().map(ToString::to_string).collect() };
    let answer = RotationClient::new(server.local()).rotate_agents(request).await.unwrap().into_inner();
    answer.results.into_iter().map(|result| (result.code, result.message)).collect()
}

#[tokio::test]
async fn an_entry_is_rotated_and_its_agent_told() {
    let server = server().await;
    let (agent, channel) = server.agent("rotated").await;
    let mine = server.entry(entry(agent.as_str(), "/mine")).await;
    let mut stream = SyncClient::new(channel).watch(WatchRequest::default()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let request = RotateEntriesRequest { ids: vec![mine.id.clone(), "none".to_owned(), String::new()] };
    let answer = RotationClient::new(server.local()).rotate_entries(request).await.unwrap().into_inner();
    let results: Vec<_> =
        answer.results.iter().map(|r| (r.code, r.message.as_str(), r.id.as_str())).collect();
    assert_eq!(results, [(0, "OK", &*mine.id), (5, "entry not found", "none"), (3, "missing ID", "")]);
    let told = stream.message().await.unwrap().unwrap();
    assert_eq!(told.rotate_entry_ids, [mine.id.as_str()]);
    assert!(!told.rotate_agent && !told.snapshot);
    // What SPIRE's agents go by.
    assert_eq!(told.entries[0].revision_number, mine.revision_number + 1);
}

#[tokio::test]
async fn an_agent_is_told_at_once_or_when_it_comes_back() {
    let server = server().await;
    let (agent, channel) = server.agent("rotated").await;
    server.entry(entry(agent.as_str(), "/mine")).await;
    let mut client = SyncClient::new(channel);
    let mut stream = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    assert!(!stream.message().await.unwrap().unwrap().rotate_agent);
    assert_eq!(rotate_agents(&server, &[agent.as_str()]).await, [(0, "OK".to_owned())]);
    let told = stream.message().await.unwrap().unwrap();
    assert!(told.rotate_agent && told.entries.is_empty());
    drop(stream);

    // Issued in the second of the order: told already. Another second, and it was away.
    let mut again = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    assert!(!again.message().await.unwrap().unwrap().rotate_agent);
    drop(again);
    server.clock.advance(std::time::Duration::from_secs(5));
    rotate_agents(&server, &[agent.as_str()]).await;
    let mut late = client.watch(WatchRequest::default()).await.unwrap().into_inner();
    assert!(late.message().await.unwrap().unwrap().rotate_agent);
    // With an SVID that is newer than the order there is nothing to do.
    server.clock.advance(std::time::Duration::from_secs(1));
    let (_, renewed) = server.agent("rotated").await;
    let mut new = SyncClient::new(renewed).watch(WatchRequest::default()).await.unwrap().into_inner();
    assert!(!new.message().await.unwrap().unwrap().rotate_agent);
}

#[tokio::test]
async fn agents_that_cannot_be_told() {
    let server = server().await;
    let (banned, _) = server.agent("banned").await;
    let ban = AgentUpdate { serial_number: Some(String::new()), ..AgentUpdate::default() };
    server.state.store.update_agent(&banned, ban, NOW).await.unwrap();
    let (spires, _) = server.agent("spires").await;
    let version = AgentUpdate { agent_version: Some("1.16.0".to_owned()), ..AgentUpdate::default() };
    server.state.store.update_agent(&spires, version, NOW).await.unwrap();
    let none = agent_id("none");
    let ids = [banned.as_str(), spires.as_str(), none.as_str(), "", "nonsense", "spiffe://example.org/w"];
    let results = rotate_agents(&server, &ids).await;
    let expected = [
        (9, "agent is banned: it holds nothing to rotate"),
        (9, "agent runs 1.16.0, which cannot be told"),
        (5, "agent not found"),
        (3, "missing ID"),
        (3, "invalid agent ID: scheme is missing or invalid"),
        (3, "invalid agent ID: \"spiffe://example.org/w\" is not an agent in trust domain \"example.org\""),
    ];
    for ((code, message), (expected, text)) in results.iter().zip(expected) {
        assert!(*code == expected && message.starts_with(text), "{code} {message}");
    }
}
