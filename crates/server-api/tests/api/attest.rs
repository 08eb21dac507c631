//! AttestAgent: join tokens and challenges.

use std::sync::Arc;

use steeple_plugin::{AgentAttributes, AttestError, Challenged, Evidence, ServerNodeAttestor};
use steeple_proto::spire::api::server::agent::v1 as pb;
use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use steeple_proto::spire::api::server::agent::v1::attest_agent_request::{Params, Step};
use steeple_proto::spire::api::server::agent::v1::attest_agent_response::{
    Result as Attested, Step as Answer,
};
use steeple_proto::spire::api::types;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_server_api::error::denied_reason;
use steeple_spiffe::Certificate;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::harness::{NOW, Options, Server, agent_id, csr, pool_key, server, start};

fn params(kind: &str, payload: &[u8]) -> pb::AttestAgentRequest {
    let data = types::AttestationData { r#type: kind.to_owned(), payload: payload.to_vec() };
    let params = pb::AgentX509svidParams { csr: csr(&[], &[]) };
    pb::AttestAgentRequest { step: Some(Step::Params(Params { data: Some(data), params: Some(params) })) }
}

async fn attest(channel: Channel, request: pb::AttestAgentRequest) -> Result<Attested, Status> {
    let mut stream =
        AgentClient::new(channel).attest_agent(tokio_stream::iter([request])).await?.into_inner();
    match stream.message().await?.and_then(|answer| answer.step) {
        Some(Answer::Result(result)) => Ok(result),
        other => panic!("{other:?}"),
    }
}

async fn token(server: &Server, value: &str) {
    let request = pb::CreateJoinTokenRequest { ttl: 60, token: value.to_owned(), agent_id: None };
    AgentClient::new(server.local()).create_join_token(request).await.unwrap();
}

#[tokio::test]
async fn a_join_token_is_good_once() {
    let server = server().await;
    token(&server, "once").await;
    let result = attest(server.anonymous(), params("join_token", b"once")).await.unwrap();
    assert!(!result.reattestable);
    let svid = result.svid.unwrap();
    let leaf = Certificate::from_der(&svid.cert_chain[0]).unwrap();
    assert_eq!(leaf.spiffe_id().unwrap(), agent_id("once"));
    assert_eq!(leaf.public_key(), pool_key(2).public_key());
    assert_eq!(svid.expires_at, leaf.not_after());
    let agent = server.state.store.fetch_agent(&agent_id("once")).await.unwrap().unwrap();
    assert_eq!(agent.serial_number, leaf.serial_decimal());
    assert_eq!((agent.attestation_type.as_str(), agent.can_reattest), ("join_token", false));

    let status = attest(server.anonymous(), params("join_token", b"once")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "failed to attest: join token does not exist or has already been used")
    );
}

#[tokio::test]
async fn an_expired_or_unknown_token_is_refused() {
    let server = server().await;
    token(&server, "late").await;
    server.clock.set(NOW + 61);
    let status = attest(server.local(), params("join_token", b"late")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "join token expired"));
    for unknown in [&b"nobody"[..], b"late", b"\xff\xfe", b"../x"] {
        let status = attest(server.local(), params("join_token", unknown)).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "failed to attest: join token does not exist or has already been used")
        );
    }
}

/// 1,000 at once: one wins.
#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_thousand_concurrent_tries_gets_in() {
    let server = server().await;
    token(&server, "coveted").await;
    let channel = server.local();
    let tries = (0..1_000).map(|_| attest(channel.clone(), params("join_token", b"coveted")));
    let outcomes = futures::future::join_all(tries).await;
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1);
    for status in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(status.message(), "failed to attest: join token does not exist or has already been used");
    }
}

#[tokio::test]
async fn without_the_attestor_no_token_counts() {
    let server = start(Options { join_token: false, ..Options::default() }).await;
    token(&server, "unwanted").await;
    let status = attest(server.local(), params("join_token", b"unwanted")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::FailedPrecondition,
            "error getting node attestor: could not find node attestor type \"join_token\""
        )
    );
}

#[tokio::test]
async fn a_banned_agent_stays_out() {
    let server = server().await;
    let (id, _) = server.agent("outlaw").await;
    let ban = steeple_datastore::AgentUpdate { serial_number: Some(String::new()), ..Default::default() };
    server.state.store.update_agent(&id, ban, NOW).await.unwrap();
    token(&server, "outlaw").await;
    let status = attest(server.anonymous(), params("join_token", b"outlaw")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "failed to attest: agent is banned")
    );
    assert_eq!(denied_reason(&status), Some(Reason::AgentBanned));
}

#[tokio::test]
async fn missing_pieces_are_named_in_spires_order() {
    let server = server().await;
    let data = |kind: &str, payload: &[u8]| {
        Some(types::AttestationData { r#type: kind.to_owned(), payload: payload.to_vec() })
    };
    let with = |data, csr: Option<Vec<u8>>| {
        let params = csr.map(|csr| pb::AgentX509svidParams { csr });
        pb::AttestAgentRequest { step: Some(Step::Params(Params { data, params })) }
    };
    let some = || Some(csr(&[], &[]));
    let cases = [
        (pb::AttestAgentRequest { step: None }, "missing params"),
        (pb::AttestAgentRequest { step: Some(Step::ChallengeResponse(vec![1])) }, "missing params"),
        (with(None, some()), "missing attestation data"),
        (with(data("x", b"y"), None), "missing X509-SVID parameters"),
        (with(data("x", b"y"), Some(Vec::new())), "missing CSR"),
        (with(data("", b"y"), some()), "missing attestation data type"),
        (with(data("x", b""), some()), "missing attestation data payload"),
    ];
    for (request, what) in cases {
        let status = attest(server.local(), request).await.unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, &*format!("malformed param: {what}"))
        );
    }
    let status = attest(server.local(), params("sshpop", b"y")).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::FailedPrecondition,
            "error getting node attestor: could not find node attestor type \"sshpop\""
        )
    );
}

#[tokio::test]
async fn a_malformed_csr_spends_the_token_and_makes_no_agent() {
    let server = server().await;
    token(&server, "spent").await;
    let data = types::AttestationData { r#type: "join_token".to_owned(), payload: b"spent".to_vec() };
    let params = pb::AgentX509svidParams { csr: b"nonsense".to_vec() };
    let step = Step::Params(Params { data: Some(data), params: Some(params) });
    let status = attest(server.local(), pb::AttestAgentRequest { step: Some(step) }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("failed to parse CSR: "), "{}", status.message());
    assert_eq!(server.state.store.fetch_agent(&agent_id("spent")).await.unwrap(), None);
}

/// Asks for the payload reversed, once or twice.
struct Riddle {
    rounds: usize,
}

#[tonic::async_trait]
impl ServerNodeAttestor for Riddle {
    fn name(&self) -> &str {
        "riddle"
    }

    async fn attest(
        &self,
        evidence: Evidence,
        agent: &mut dyn Challenged,
    ) -> Result<AgentAttributes, AttestError> {
        let payload = evidence.payload;
        let reversed: Vec<u8> = payload.iter().rev().copied().collect();
        for _ in 0..self.rounds {
            if agent.challenge(payload.clone()).await? != reversed {
                return Err(AttestError::PermissionDenied("wrong answer".to_owned()));
            }
        }
        let path = String::from_utf8(payload).unwrap();
        let spiffe_id = format!("spiffe://example.org{path}").parse().unwrap();
        let selector_values = vec!["a".to_owned(), "b".to_owned(), "a".to_owned()];
        Ok(AgentAttributes { spiffe_id, selector_values, can_reattest: true })
    }
}

async fn riddle(server: &Server, path: &str, honest: bool) -> Result<Attested, Status> {
    let (sender, requests) = mpsc::channel(4);
    sender.send(params("riddle", path.as_bytes())).await.unwrap();
    let mut client = AgentClient::new(server.anonymous());
    let mut stream = client.attest_agent(ReceiverStream::new(requests)).await?.into_inner();
    loop {
        match stream.message().await?.unwrap().step.unwrap() {
            Answer::Result(result) => return Ok(result),
            Answer::Challenge(mut challenge) => {
                if honest {
                    challenge.reverse();
                }
                let step = Some(Step::ChallengeResponse(challenge));
                sender.send(pb::AttestAgentRequest { step }).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn challenges_go_to_and_fro() {
    for rounds in [0, 1, 3] {
        let attestors: Vec<Arc<dyn ServerNodeAttestor>> = vec![Arc::new(Riddle { rounds })];
        let server = start(Options { attestors, ..Options::default() }).await;
        let result = riddle(&server, "/spire/agent/riddle/one", true).await.unwrap();
        assert!(result.reattestable);
        let id = "spiffe://example.org/spire/agent/riddle/one".parse().unwrap();
        let agent = server.state.store.fetch_agent(&id).await.unwrap().unwrap();
        let selectors: Vec<String> = agent.selectors.iter().map(ToString::to_string).collect();
        assert_eq!(
            (selectors, agent.can_reattest),
            (vec!["riddle:a".to_owned(), "riddle:b".to_owned()], true)
        );
        // Again: the row is replaced.
        riddle(&server, "/spire/agent/riddle/one", true).await.unwrap();
        let again = server.state.store.fetch_agent(&id).await.unwrap().unwrap();
        assert_ne!(again.serial_number, agent.serial_number);
    }
}

#[tokio::test]
async fn a_wrong_answer_and_a_clash_with_the_server_are_refused() {
    let attestors: Vec<Arc<dyn ServerNodeAttestor>> = vec![Arc::new(Riddle { rounds: 1 })];
    let server = start(Options { attestors, ..Options::default() }).await;
    let status = riddle(&server, "/spire/agent/riddle/x", false).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, "nodeattestor(riddle): wrong answer")
    );
    let status = riddle(&server, "/spire/server", true).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "agent ID cannot collide with the server ID")
    );
}

/// What anybody may send is bounded before any attestor reads it.
#[tokio::test]
async fn oversized_evidence_is_refused() {
    let attestors: Vec<Arc<dyn ServerNodeAttestor>> = vec![Arc::new(Riddle { rounds: 100 })];
    let server = start(Options { attestors, ..Options::default() }).await;
    let status = attest(server.anonymous(), params("riddle", &vec![b'x'; 64 * 1024 + 1])).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "malformed param: attestation data payload is larger than 65536 bytes")
    );
    let status = attest(server.anonymous(), params("riddle", &vec![b'x'; 300 * 1024])).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "not even read: {status}");
    assert!(status.message().contains("message length too large"), "{status}");
    // An attestor that goes on and on, or one that is led on.
    let status = riddle(&server, "/spire/agent/riddle/long", true).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert!(status.message().contains("more challenges than any needs"), "{status}");
}

/// An agent that goes away in the middle leaves nothing behind.
#[tokio::test]
async fn an_agent_that_hangs_up_is_forgotten() {
    let attestors: Vec<Arc<dyn ServerNodeAttestor>> = vec![Arc::new(Riddle { rounds: 1 })];
    let server = start(Options { attestors, ..Options::default() }).await;
    let (sender, requests) = mpsc::channel(4);
    sender.send(params("riddle", b"/spire/agent/riddle/gone")).await.unwrap();
    let mut client = AgentClient::new(server.anonymous());
    let mut stream = client.attest_agent(ReceiverStream::new(requests)).await.unwrap().into_inner();
    stream.message().await.unwrap();
    drop(sender);
    let status = stream.message().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "failed to receive challenge from agent: EOF")
    );
}

/// A ban that comes while the agent attests counts: the row is not written over.
#[tokio::test]
async fn a_ban_during_attestation_counts() {
    let attestors: Vec<Arc<dyn ServerNodeAttestor>> = vec![Arc::new(Riddle { rounds: 1 })];
    let server = start(Options { attestors, ..Options::default() }).await;
    let path = "/spire/agent/riddle/late";
    riddle(&server, path, true).await.unwrap();
    let id = "spiffe://example.org/spire/agent/riddle/late".parse().unwrap();
    let mut row = server.state.store.fetch_agent(&id).await.unwrap().unwrap();
    let ban = steeple_datastore::AgentUpdate { serial_number: Some(String::new()), ..Default::default() };
    server.state.store.update_agent(&id, ban, NOW).await.unwrap();
    row.serial_number = "1".to_owned();
    let put = server.state.store.put_agent(row, NOW).await;
    assert!(matches!(put, Err(steeple_datastore::Error::AgentBanned)), "{put:?}");
    let status = riddle(&server, path, true).await.unwrap_err();
    assert_eq!(denied_reason(&status), Some(Reason::AgentBanned));
}

fn is_slow(status: &Status, what: &str) {
    let text = format!("gave up on the agent: {what} took longer than 30 seconds");
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, text.as_str()));
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_given_up() {
    let attestors: Vec<Arc<dyn ServerNodeAttestor>> = vec![Arc::new(Riddle { rounds: 1 })];
    let server = start(Options { attestors, ..Options::default() }).await;
    let mut client = AgentClient::new(server.anonymous());
    let mut silent = client.attest_agent(tokio_stream::pending()).await.unwrap().into_inner();
    let (sender, requests) = mpsc::channel(4);
    sender.send(params("riddle", b"/spire/agent/riddle/slow")).await.unwrap();
    let mut asked = client.attest_agent(ReceiverStream::new(requests)).await.unwrap().into_inner();
    assert!(matches!(asked.message().await.unwrap().unwrap().step, Some(Answer::Challenge(_))));
    // From here on time passes whenever nothing else happens.
    tokio::time::pause();
    is_slow(&silent.message().await.unwrap_err(), "its first message");
    is_slow(&asked.message().await.unwrap_err(), "its answer to a challenge");
}

#[tokio::test]
async fn an_address_has_so_many_attestations_open() {
    const MOST: usize = 256;
    let server = server().await;
    let mut client = AgentClient::new(server.anonymous());
    let mut open = Vec::new();
    for _ in 0..MOST {
        open.push(client.attest_agent(tokio_stream::pending()).await.unwrap().into_inner());
    }
    let status = client.attest_agent(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::ResourceExhausted,
            "rejecting request: 256 attestations from this address are under way already; try again when some \
             have ended"
        )
    );
    // Operators and the agent on this machine are not in their way.
    AgentClient::new(server.local()).attest_agent(tokio_stream::pending()).await.unwrap();
    tokio::time::pause();
    for mut stream in open {
        is_slow(&stream.message().await.unwrap_err(), "its first message");
    }
    tokio::time::resume();
    client.attest_agent(tokio_stream::pending()).await.unwrap();
}
