//! What `explain` says of a view that is behind, of a server that does not explain, and to whom it speaks at all.

use steeple_agent_api::WorkloadAttestation;
use steeple_agent_api::explain::{Explain, ExplainServer};
use steeple_proto::spire::api::types::Selector;
use steeple_proto::steeple::agent::v1 as pb;
use steeple_proto::steeple::agent::v1::explain_client::ExplainClient;
use steeple_proto::steeple::server::v1::{EntryFinding, ForAgentResponse};
use steeple_runtime::{grpc, uds};
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::agent::{Agent, channel, request};
use super::running;
use super::server::{view, web};

async fn explain(agent: &Agent) -> ExplainClient<Channel> {
    let attestation = WorkloadAttestation::new(vec![agent.attestor()]);
    let explain = Explain::new(agent.state.clone(), attestation, agent.identity.clone(), agent.link.clone());
    let path = agent.dir.path().join("explain.sock");
    let listener = uds::bind(&path, 0o777).unwrap();
    let serving =
        grpc::server_builder().add_service(ExplainServer::new(explain)).serve_with_incoming(listener);
    super::spawn(async move { drop(serving.await) });
    ExplainClient::new(channel(path).await)
}

fn codes(answer: &pb::WhyResponse) -> Vec<&str> {
    answer.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_is_behind_the_servers_is_told() {
    let (_, server, agent) = running().await;
    let mut client = explain(&agent).await;
    // SPIRE's server, or one that keeps it to itself.
    let answer = client.why(request(pb::WhyRequest::default())).await.unwrap().into_inner();
    assert_eq!(codes(&answer), ["NO_ENTRY", "SERVER_CANNOT_EXPLAIN"]);
    assert!(!answer.issued);

    let entry = EntryFinding {
        entry_id: "late".into(),
        spiffe_id: "spiffe://example.org/late".into(),
        reached: true,
        ..EntryFinding::default()
    };
    let held = agent.state.last_sync();
    *server.explains.lock().unwrap() =
        Some(ForAgentResponse { revision: 99, entries: vec![entry.clone()], ..ForAgentResponse::default() });
    let answer = client.why(request(pb::WhyRequest::default())).await.unwrap().into_inner();
    assert_eq!(codes(&answer), ["VIEW_STALE"]);
    let text = &answer.reasons[0].text;
    assert!(text.contains("Entry late") && text.contains("revision 99, the agent at 1"), "{text}");
    assert_eq!(answer.agent.unwrap().last_sync, held);

    // Once it is there, the agent speaks of its own.
    server.push(view(2, false, &[web("late", "/late", "1")]));
    for _ in 0..2_000 {
        let answer = client.why(request(pb::WhyRequest::default())).await.unwrap().into_inner();
        if codes(&answer) == ["ISSUED"] {
            let matched = &answer.matched[0];
            assert!(
                matched.svid_issued_at < matched.rotates_at && matched.rotates_at < matched.svid_expires_at
            );
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("not issued");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_questions_are_refused() {
    let (_, _, agent) = running().await;
    let mut client = explain(&agent).await;
    let selector = |kind: &str| Selector { r#type: kind.into(), value: "1".into() };
    let mut ask = async |question: pb::WhyRequest| {
        let status = client.why(request(question)).await.unwrap_err();
        (status.code(), status.message().to_owned())
    };
    let none = pb::WhyRequest::default;
    let (code, message) = ask(pb::WhyRequest { pid: 1, selectors: vec![selector("unix")], ..none() }).await;
    assert_eq!(
        (code, &*message),
        (Code::InvalidArgument, "ask about a process or about selectors, not both")
    );
    let (code, message) = ask(pb::WhyRequest { pid: -1, ..none() }).await;
    assert_eq!((code, &*message), (Code::InvalidArgument, "pid must not be negative"));
    let (code, message) = ask(pb::WhyRequest { spiffe_id: "nope".into(), ..none() }).await;
    assert!(code == Code::InvalidArgument && message.starts_with("spiffe_id: "), "{message}");
    let (code, message) = ask(pb::WhyRequest { selectors: vec![selector("a:b")], ..none() }).await;
    // Who is not root is told that first.
    assert!(matches!(code, Code::InvalidArgument | Code::PermissionDenied), "{message}");
    let status = client.why(Request::new(none())).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "security header missing from request")
    );
}
