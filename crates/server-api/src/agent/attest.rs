//! AttestAgent: payload, challenges, and an agent's first X.509-SVID (spire.md §6.2).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use steeple_datastore::Error as StoreError;
use steeple_datastore::model::{Agent, Selector};
use steeple_plugin::{AgentAttributes, AttestError, Challenged, Evidence};
use steeple_proto::spire::api::server::agent::v1 as pb;
use steeple_proto::spire::api::server::agent::v1::attest_agent_request::{Params, Step as Asked};
use steeple_proto::spire::api::server::agent::v1::attest_agent_response::{
    Result as Attested, Step as Answered,
};
use steeple_runtime::tasks::OnEnd;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::Level;

use super::{AgentError, join_token_id, sign};
use crate::caller::Caller;
use crate::convert::check_agent_id_for_attestor;
use crate::open_calls::OpenCall;
use crate::rpc::{Fields, Rpc};
use crate::state::ServerState;
use crate::svid::x509_to_proto;

type Answer = Result<pb::AttestAgentResponse, Status>;

/// How long an agent, which may be anybody, may take for each message. SPIRE waits for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// And for the whole attestation, whatever its attestor has to look up.
const PATIENCE_IN_ALL: Duration = Duration::from_mins(2);

/// Challenges in one attestation. No attestor known needs more than two.
const MAX_CHALLENGES: usize = 8;

/// Bytes of an attestation payload, a challenge's answer or a CSR. The largest known payloads, chains of certificates and
/// cloud documents, are a tenth of it.
const MAX_EVIDENCE: usize = 64 * 1024;

pub(super) fn serve(
    state: &Arc<ServerState>,
    rpc: Rpc,
    open: OpenCall,
    requests: Streaming<pb::AttestAgentRequest>,
) -> ReceiverStream<Answer> {
    let (answers, stream) = mpsc::channel(1);
    let tasks = state.tasks.clone();
    let state = state.clone();
    tasks.spawn_until_shutdown("attest agent", OnEnd::Log, async move {
        let mut learned = Fields::default();
        let answer = match attest(&state, &rpc, requests, &answers, &mut learned).await {
            Ok(result) => Ok(pb::AttestAgentResponse { step: Some(Answered::Result(result)) }),
            Err(e) => Err(rpc.refuse_with(e, learned)),
        };
        let went_well = answer.is_ok();
        let sent = tokio::time::timeout(PATIENCE, answers.send(answer)).await;
        if matches!(sent, Ok(Ok(()))) && went_well {
            rpc.audit();
        }
        drop(open);
    });
    ReceiverStream::new(stream)
}

async fn attest(
    state: &Arc<ServerState>,
    rpc: &Rpc,
    mut requests: Streaming<pb::AttestAgentRequest>,
    answers: &mpsc::Sender<Answer>,
    learned: &mut Fields,
) -> Result<Attested, AgentError> {
    let first = match patiently("its first message", requests.message()).await? {
        Ok(Some(first)) => first,
        Ok(None) => return Err(AgentError::Receive("EOF".to_owned())),
        Err(status) => return Err(AgentError::Receive(status.message().to_owned())),
    };
    let (kind, payload, csr) = pieces(first)?;
    rpc.audit_fields(|| Fields::default().with("node_attestor_type", &kind));
    learned.push("node_attestor_type", kind.as_str());
    let (attributes, token) = if kind == "join_token" {
        let (attributes, token) = join_token(state, payload).await?;
        (attributes, Some(token))
    } else {
        let attestor = state.attestors.get(&kind).ok_or_else(|| AgentError::UnknownAttestor(kind.clone()))?;
        let evidence = Evidence { payload, client_ip: client_ip(rpc.caller()) };
        let mut agent = RemoteAgent { requests, answers, challenges_left: MAX_CHALLENGES, broken: None };
        let outcome = tokio::time::timeout(PATIENCE_IN_ALL, attestor.attest(evidence, &mut agent)).await;
        let attributes = match (agent.broken, outcome) {
            (Some(broken), _) => return Err(broken),
            (None, Ok(outcome)) => {
                outcome.map_err(|error| AgentError::Attestor { name: kind.clone(), error })?
            }
            (None, Err(_)) => {
                return Err(AgentError::Slow {
                    what: "node attestation",
                    seconds: PATIENCE_IN_ALL.as_secs(),
                });
            }
        };
        (attributes, None)
    };
    learned.push("agent_id", attributes.spiffe_id.as_str());
    let admitted = admit(state, rpc, &kind, attributes, token.as_deref(), &csr).await;
    if let (Err(_), Some(token)) = (&admitted, token) {
        spend(state, &token).await?;
    }
    admitted
}

/// What an agent is to do within [`PATIENCE`].
async fn patiently<T>(what: &'static str, future: impl Future<Output = T>) -> Result<T, AgentError> {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.map_err(|_| AgentError::Slow { what, seconds: PATIENCE.as_secs() })
}

/// SPIRE's order of complaints.
fn pieces(first: pb::AttestAgentRequest) -> Result<(String, Vec<u8>, Vec<u8>), AgentError> {
    let Some(Asked::Params(Params { data, params })) = first.step else {
        return Err(AgentError::Params("missing params"));
    };
    let data = data.ok_or(AgentError::Params("missing attestation data"))?;
    let params = params.ok_or(AgentError::Params("missing X509-SVID parameters"))?;
    if params.csr.is_empty() {
        return Err(AgentError::Params("missing CSR"));
    }
    if data.r#type.is_empty() {
        return Err(AgentError::Params("missing attestation data type"));
    }
    if data.payload.is_empty() {
        return Err(AgentError::Params("missing attestation data payload"));
    }
    bounded("attestation data payload", &data.payload)?;
    bounded("CSR", &params.csr)?;
    Ok((data.r#type, data.payload, params.csr))
}

/// The token leaves the store with the write that admits the agent, so that one of any number of concurrent callers gets
/// in by it; or, as SPIRE's do, when anything is wrong from here on (see [`spend`]).
async fn join_token(state: &ServerState, payload: Vec<u8>) -> Result<(AgentAttributes, String), AgentError> {
    if !state.join_token {
        return Err(AgentError::UnknownAttestor("join_token".to_owned()));
    }
    let token = String::from_utf8(payload).map_err(|_| AgentError::TokenGone)?;
    let found = state.store.fetch_join_token(&token).await.map_err(AgentError::FetchToken)?;
    let found = found.ok_or(AgentError::TokenGone)?;
    if found.expires_at < state.clock.now() {
        spend(state, &token).await?;
        return Err(AgentError::TokenExpired);
    }
    match join_token_id(&state.trust_domain, &token) {
        Ok(spiffe_id) => {
            let attributes = AgentAttributes { spiffe_id, selector_values: Vec::new(), can_reattest: false };
            Ok((attributes, token))
        }
        Err(e) => {
            spend(state, &token).await?;
            Err(AgentError::TokenId(e))
        }
    }
}

/// SPIRE deletes a token before it looks at what else the agent brings.
async fn spend(state: &ServerState, token: &str) -> Result<(), AgentError> {
    state.store.take_join_token(token).await.map(drop).map_err(AgentError::TakeToken)
}

/// The agent at the other end of the stream.
struct RemoteAgent<'a> {
    requests: Streaming<pb::AttestAgentRequest>,
    answers: &'a mpsc::Sender<Answer>,
    challenges_left: usize,
    /// Why the stream is of no more use; this is what the call ends with then.
    broken: Option<AgentError>,
}

impl RemoteAgent<'_> {
    async fn exchange(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AgentError> {
        self.challenges_left = self.challenges_left.checked_sub(1).ok_or(AgentError::TooManyChallenges)?;
        let answer = pb::AttestAgentResponse { step: Some(Answered::Challenge(challenge)) };
        patiently("reading a challenge", self.answers.send(Ok(answer)))
            .await?
            .map_err(|_| AgentError::ReceiveChallenge("the agent has gone".to_owned()))?;
        match patiently("its answer to a challenge", self.requests.message()).await? {
            Ok(Some(pb::AttestAgentRequest { step: Some(Asked::ChallengeResponse(response)) })) => {
                bounded("challenge response", &response)?;
                Ok(response)
            }
            Ok(Some(_)) => Ok(Vec::new()),
            Ok(None) => Err(AgentError::ReceiveChallenge("EOF".to_owned())),
            Err(status) => Err(AgentError::ReceiveChallenge(status.message().to_owned())),
        }
    }
}

#[tonic::async_trait]
impl Challenged for RemoteAgent<'_> {
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        self.exchange(challenge).await.map_err(|broken| {
            let text = broken.to_string();
            self.broken = Some(broken);
            AttestError::Internal(text)
        })
    }
}

fn bounded(what: &'static str, bytes: &[u8]) -> Result<(), AgentError> {
    if bytes.len() <= MAX_EVIDENCE { Ok(()) } else { Err(AgentError::Oversized { what, most: MAX_EVIDENCE }) }
}

/// The peer of the connection, as SPIRE hands it to attestors. Behind a load balancer it is the balancer's.
fn client_ip(caller: &Caller) -> Option<IpAddr> {
    match caller {
        Caller::Remote { addr, .. } => Some(addr.ip().to_canonical()),
        Caller::Local(_) => None,
    }
}

/// The attestor is convinced: is the agent welcome, and what does it get?
async fn admit(
    state: &ServerState,
    rpc: &Rpc,
    kind: &str,
    attributes: AgentAttributes,
    token: Option<&str>,
    csr: &[u8],
) -> Result<Attested, AgentError> {
    let id = attributes.spiffe_id;
    rpc.audit_fields(|| Fields::default().with("agent_id", id.as_str()));
    let fields = || Fields::default().with("node_attestor_type", kind).with("agent_id", id.as_str());
    if id.path() == "/spire/server" {
        return Err(AgentError::ServerId);
    }
    if let Err(e) = check_agent_id_for_attestor(&state.trust_domain, &id, kind) {
        let text = "The node attestor produced an agent ID outside the namespace of agents it attests";
        rpc.log(Level::WARN, text, fields().with("error", e.to_string()));
    }
    // Saves the signature; a ban that the view does not know of yet stops the write.
    state.fresh().await;
    if state.view.agent(&id).is_some_and(|known| known.is_banned()) {
        return Err(AgentError::Banned);
    }
    let signed = sign(state, &id, csr).await?;
    let mut selectors = selectors(kind, attributes.selector_values);
    if state.agent_id_selector {
        selectors.push(Selector::new("spiffe_id", id.as_str()));
    }
    let agent = Agent {
        id: id.clone(),
        attestation_type: kind.to_owned(),
        serial_number: signed.serial.clone(),
        expires_at: signed.expires_at,
        new_serial_number: String::new(),
        new_expires_at: 0,
        can_reattest: attributes.can_reattest,
        // It keeps what it reported.
        agent_version: String::new(),
        selectors,
    };
    let now = state.clock.now();
    let put = match token {
        Some(token) => state.store.put_agent_for_token(token, agent, now).await,
        None => state.store.put_agent(agent, now).await.map(|()| true),
    };
    match put {
        Ok(true) => {}
        // Another agent came with the same token.
        Ok(false) => return Err(AgentError::TokenGone),
        // The ban came while the agent attested.
        Err(StoreError::AgentBanned) => return Err(AgentError::Banned),
        Err(e) => return Err(AgentError::Put(e)),
    }
    let address = match rpc.caller() {
        Caller::Remote { addr, .. } => addr.to_string(),
        Caller::Local(_) => "@".to_owned(),
    };
    // Scripts wait for this line (ecosystem.md §8).
    rpc.log(Level::INFO, "Agent attestation request completed", fields().with("address", address));
    Ok(Attested { svid: Some(x509_to_proto(&id, signed)), reattestable: attributes.can_reattest })
}

/// Each once, in the attestor's order.
fn selectors(kind: &str, values: Vec<String>) -> Vec<Selector> {
    let mut out: Vec<Selector> = Vec::with_capacity(values.len());
    for value in values {
        let selector = Selector::new(kind, value);
        if !out.contains(&selector) {
            out.push(selector);
        }
    }
    out
}
