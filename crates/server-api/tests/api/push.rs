//! The push stream.

use steeple_datastore::AgentUpdate;
use steeple_datastore::model::Entry;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_proto::steeple::agent::v1::sync_client::SyncClient;
use steeple_proto::steeple::agent::v1::{WatchRequest, WatchResponse};
use steeple_server_api::error::denied_reason;
use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::harness::{NOW, entry, server};

async fn watch(channel: Channel) -> Streaming<WatchResponse> {
    SyncClient::new(channel).watch(WatchRequest::default()).await.unwrap().into_inner()
}

async fn next(stream: &mut Streaming<WatchResponse>) -> WatchResponse {
    stream.message().await.unwrap().unwrap()
}

#[tokio::test]
async fn a_snapshot_first_then_each_change() {
    let server = server().await;
    let (agent, channel) = server.agent("pushed").await;
    let first = server.entry(entry(agent.as_str(), "/first")).await;
    let mut stream = watch(channel).await;
    let snapshot = next(&mut stream).await;
    assert!(snapshot.snapshot && !snapshot.more);
    assert_eq!(snapshot.entries.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), [first.id.as_str()]);
    assert_eq!(snapshot.bundles.iter().map(|b| b.trust_domain.as_str()).collect::<Vec<_>>(), ["example.org"]);
    assert!(!snapshot.log_id.is_empty() && snapshot.revision > 0);

    let second = server.entry(entry(agent.as_str(), "/second")).await;
    let delta = next(&mut stream).await;
    assert!(!delta.snapshot && delta.revision > snapshot.revision);
    assert_eq!(delta.entries[0].id, second.id);
    // Another agent's entry is no news; the next message is about ours.
    server.entry(entry("spiffe://example.org/spire/agent/x/other", "/theirs")).await;
    server.state.store.delete_entry(&first.id).await.unwrap();
    let delta = next(&mut stream).await;
    assert_eq!((delta.removed_entry_ids, delta.entries.len()), (vec![first.id], 0));
}

#[tokio::test]
async fn bundles_come_and_go_with_the_entries_that_federate() {
    let server = server().await;
    let (agent, channel) = server.agent("pushed").await;
    let other = TrustDomain::new("other.org").unwrap();
    server.state.store.create_bundle(Bundle::new(other.clone()), NOW).await.unwrap();
    let mut stream = watch(channel).await;
    assert_eq!(next(&mut stream).await.bundles.len(), 1);
    let federated = server
        .entry(Entry { federates_with: vec![other.clone()], ..entry(agent.as_str(), "/federated") })
        .await;
    let delta = next(&mut stream).await;
    assert_eq!(delta.bundles[0].trust_domain, "other.org");
    let changed = Bundle { refresh_hint: Some(77), ..Bundle::new(other) };
    server.state.store.set_bundle(changed, NOW).await.unwrap();
    assert_eq!(next(&mut stream).await.bundles[0].refresh_hint, 77);
    server.state.store.delete_entry(&federated.id).await.unwrap();
    assert_eq!(next(&mut stream).await.removed_bundles, ["other.org"]);
}

#[tokio::test]
async fn the_stream_ends_when_the_agent_is_banned_or_evicted() {
    let server = server().await;
    for (name, reason) in [("to-ban", Reason::AgentBanned), ("to-evict", Reason::AgentNotAttested)] {
        let (agent, channel) = server.agent(name).await;
        let mut stream = watch(channel).await;
        next(&mut stream).await;
        if reason == Reason::AgentBanned {
            let ban = AgentUpdate { serial_number: Some(String::new()), ..Default::default() };
            server.state.store.update_agent(&agent, ban, NOW).await.unwrap();
        } else {
            server.state.store.delete_agent(&agent).await.unwrap();
        }
        let status = stream.message().await.unwrap_err();
        assert_eq!((status.code(), denied_reason(&status)), (Code::PermissionDenied, Some(reason)));
    }
}

#[tokio::test]
async fn an_agent_that_knows_more_than_we_is_sent_away() {
    let server = server().await;
    let (_, channel) = server.agent("ahead").await;
    let snapshot = next(&mut watch(channel.clone()).await).await;
    let request = |last_revision, log_id: &str| WatchRequest { last_revision, log_id: log_id.to_owned() };
    let mut client = SyncClient::new(channel);
    let ahead = request(snapshot.revision + 1_000, &snapshot.log_id);
    let status = client.watch(ahead).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    // Of another log, or what we know ourselves: welcome.
    for request in
        [request(snapshot.revision + 1_000, "another"), request(snapshot.revision, &snapshot.log_id)]
    {
        assert!(next(&mut client.watch(request).await.unwrap().into_inner()).await.snapshot);
    }
}

#[tokio::test]
async fn a_stopping_server_says_so() {
    let server = server().await;
    let (_, channel) = server.agent("pushed").await;
    let mut stream = watch(channel).await;
    next(&mut stream).await;
    server.tasks.shutdown().request("test");
    let status = stream.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the server is stopping"));
}

#[tokio::test]
async fn a_large_snapshot_comes_in_bounded_messages() {
    let server = server().await;
    let (agent, channel) = server.agent("large").await;
    let entries = (0..1_201).map(|n| entry(agent.as_str(), &format!("/w{n}"))).collect();
    server.state.store.create_entries(entries, NOW).await.unwrap();
    let mut stream = watch(channel).await;
    let mut sizes = Vec::new();
    let mut ids = std::collections::HashSet::new();
    loop {
        let message = next(&mut stream).await;
        assert!(message.snapshot);
        sizes.push(message.entries.len());
        ids.extend(message.entries.into_iter().map(|entry| entry.id));
        if !message.more {
            break;
        }
    }
    assert_eq!((sizes, ids.len()), (vec![500, 500, 201], 1_201));
}
