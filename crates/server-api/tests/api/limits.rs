//! Rate limits over TCP, and messages beyond the size limit.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
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

/// The turn would come after the caller's deadline: refused at once, and no turn is taken.
#[tokio::test]
async fn a_turn_after_the_deadline_is_refused() {
    let server = start(Options::default()).await;
    let (_, channel) = server.agent("hurried").await;
    let mut client = AgentClient::new(channel);
    for _ in 0..10 {
        client.post_status(agent::PostStatusRequest::default()).await.unwrap();
    }
    // The clock of the limiter stands still: each next turn is a tenth of a second away.
    for _ in 0..20 {
        let mut request = tonic::Request::new(agent::PostStatusRequest::default());
        request.set_timeout(Duration::from_millis(99));
        let status = client.post_status(request).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (
                Code::ResourceExhausted,
                "rejecting request due to post status rate limiting: rate: Wait(n=1) would exceed context deadline"
            )
        );
    }
    server.clock.advance(Duration::from_millis(100));
    client.post_status(agent::PostStatusRequest::default()).await.unwrap();
}

/// AttestAgent is for anybody, one a second. However many streams wait or are reset, the address owes 20 s at most.
#[tokio::test]
async fn a_flood_of_attestations_does_not_lock_an_address_out() {
    let server = start(Options { limits: RateLimitConfig::default(), ..Options::default() }).await;
    let client = AgentClient::new(server.anonymous());
    let attest = || {
        let mut client = client.clone();
        async move { client.attest_agent(tokio_stream::pending()).await }
    };
    attest().await.unwrap();
    let mut flood: FuturesUnordered<_> = (0..60).map(|_| attest()).collect();
    for _ in 0..40 {
        let status = flood.next().await.unwrap().unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (
                Code::ResourceExhausted,
                "rejecting request due to attest agent rate limiting: rate: Wait(n=1) would exceed context deadline"
            )
        );
    }
    // The other twenty wait; they are reset.
    drop(flood);
    server.clock.advance(Duration::from_secs(21));
    tokio::time::timeout(Duration::from_secs(10), attest()).await.unwrap().unwrap();
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
