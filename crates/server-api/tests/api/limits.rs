//! Rate limits over TCP, and messages beyond the size limit.

use std::time::Duration;

use steeple_proto::spire::api::server::agent::v1 as agent;
use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use steeple_proto::spire::api::server::entry::v1 as entry;
use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use steeple_proto::spire::api::server::svid::v1 as svid;
use steeple_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use steeple_proto::spire::api::types;
use steeple_server_api::RateLimitConfig;
use tonic::Code;

use crate::harness::{Options, start};

#[tokio::test]
async fn a_batch_beyond_the_burst_is_refused_over_tcp_only() {
    let server = start(Options { limits: RateLimitConfig::default(), ..Options::default() }).await;
    let (_, channel) = server.agent("eager").await;
    let params =
        |count| svid::BatchNewX509svidRequest { params: vec![svid::NewX509svidParams::default(); count] };
    let status = SvidClient::new(channel.clone()).batch_new_x509svid(params(501)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::ResourceExhausted,
            "rejecting request due to certificate signing rate limiting: rate (501) exceeds burst size (500)"
        )
    );
    let answer = SvidClient::new(channel).batch_new_x509svid(params(500)).await.unwrap().into_inner();
    assert_eq!(answer.results.len(), 500);
}

#[tokio::test]
async fn switched_off_there_is_no_limit() {
    let server = start(Options::default()).await;
    let (_, channel) = server.agent("eager").await;
    let params = vec![svid::NewX509svidParams::default(); 501];
    let request = svid::BatchNewX509svidRequest { params };
    assert_eq!(
        SvidClient::new(channel).batch_new_x509svid(request).await.unwrap().into_inner().results.len(),
        501
    );
}

/// PostStatus: ten a second. Others wait their turn instead of failing.
#[tokio::test]
async fn callers_wait_for_their_turn() {
    let server = start(Options::default()).await;
    let (_, channel) = server.agent("chatty").await;
    let mut client = AgentClient::new(channel);
    for _ in 0..10 {
        client.post_status(agent::PostStatusRequest::default()).await.unwrap();
    }
    // The clock of the limiter stands still: the next one waits a tenth of a second.
    let waiting = tokio::time::timeout(
        Duration::from_millis(20),
        client.post_status(agent::PostStatusRequest::default()),
    );
    assert!(waiting.await.is_err());
    server.clock.advance(Duration::from_secs(2));
    client.post_status(agent::PostStatusRequest::default()).await.unwrap();
}

/// 4 MiB, as grpc-go's default.
#[tokio::test]
async fn an_oversized_message_is_refused() {
    let server = start(Options::default()).await;
    let hint = "x".repeat(4 * 1024 * 1024);
    let request = entry::BatchCreateEntryRequest {
        entries: vec![types::Entry { hint, ..Default::default() }],
        output_mask: None,
    };
    let status = EntryClient::new(server.local()).batch_create_entry(request).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}
