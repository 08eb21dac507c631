//! Debug, Logger, health.

use steeple_proto::spire::api::server::debug::v1::GetInfoRequest;
use steeple_proto::spire::api::server::debug::v1::debug_client::DebugClient;
use steeple_proto::spire::api::server::logger::v1 as logger;
use steeple_proto::spire::api::server::logger::v1::logger_client::LoggerClient;
use steeple_proto::spire::api::types::LogLevel;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::harness::{NOW, entry, server};

#[tokio::test]
async fn info_is_kept_for_five_seconds() {
    let server = server().await;
    server.entry(entry("spiffe://example.org/spire/server", "/one")).await;
    let mut client = DebugClient::new(server.local());
    let info = client.get_info(GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.agents_count, info.entries_count, info.federated_bundles_count), (0, 1, 1));
    let ids: Vec<String> = info.svid_chain.iter().map(|cert| cert.id.clone().unwrap().path).collect();
    assert_eq!(ids, ["/spire/server", ""]);
    assert_eq!(info.svid_chain[0].subject, "O=SPIRE,C=US");

    server.entry(entry("spiffe://example.org/spire/server", "/two")).await;
    server.clock.advance(std::time::Duration::from_secs(4));
    assert_eq!(client.get_info(GetInfoRequest {}).await.unwrap().into_inner().entries_count, 1);
    server.clock.advance(std::time::Duration::from_secs(1));
    let info = client.get_info(GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.entries_count, info.uptime), (2, 5));
}

/// Callers at once share one answer, whoever of them goes away; a refusal is not kept.
#[tokio::test]
async fn one_question_for_all_who_ask() {
    let server = server().await;
    let client = DebugClient::new(server.local());
    let ask = || {
        let mut client = client.clone();
        async move { client.get_info(GetInfoRequest {}).await.map(tonic::Response::into_inner) }
    };
    let impatient = tokio::time::timeout(std::time::Duration::ZERO, ask()).await;
    assert!(impatient.is_err());
    let answers = futures::future::join_all((0..50).map(|_| ask())).await;
    let first = answers[0].as_ref().unwrap();
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap() == first));

    server.clock.advance(std::time::Duration::from_secs(5));
    server.clock.set(NOW + 30 * 24 * 3600);
    for refused in futures::future::join_all((0..3).map(|_| ask())).await {
        let status = refused.unwrap_err();
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().starts_with("failed verification against bundle: "), "{}", status.message());
    }
    server.clock.set(NOW);
    assert_eq!(ask().await.unwrap().uptime, 5);
}

#[tokio::test]
async fn bad_levels_are_refused_and_good_ones_set() {
    let server = server().await;
    let mut client = LoggerClient::new(server.local());
    let set = |new_level| logger::SetLogLevelRequest { new_level };
    let status = client.set_log_level(set(0)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED")
    );
    let status = client.set_log_level(set(99)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "unsupported log level"));
    // Trace shows everything the other tests look for.
    let levels = client.set_log_level(set(LogLevel::Trace as i32)).await.unwrap().into_inner();
    assert_eq!((levels.current_level(), levels.launch_level()), (LogLevel::Trace, LogLevel::Debug));
    let levels = client.reset_log_level(logger::ResetLogLevelRequest {}).await.unwrap().into_inner();
    assert_eq!((levels.current_level(), levels.launch_level()), (LogLevel::Debug, LogLevel::Debug));
    let levels = client.get_logger(logger::GetLoggerRequest {}).await.unwrap().into_inner();
    assert_eq!(levels.current_level(), LogLevel::Debug);
}

#[tokio::test]
async fn health() {
    let server = server().await;
    let mut client = HealthClient::new(server.local());
    let answer = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer, HealthCheckResponse { status: ServingStatus::Serving as i32 });
    let status = client.check(HealthCheckRequest { service: "x".to_owned() }).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "per-service health is not supported")
    );
    let status = client.watch(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unimplemented, "method Watch not implemented"));
}
