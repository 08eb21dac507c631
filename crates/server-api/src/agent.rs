//! `spire.api.server.agent.v1.Agent`: agents, their attestation and renewal, join tokens.

mod attest;
mod error;
mod filter;

use std::sync::Arc;

use steeple_datastore::model::{Agent, Entry, JoinToken, Selector};
use steeple_datastore::{AgentUpdate, Created};
use steeple_proto::spire::api::server::agent::v1 as pb;
use steeple_proto::spire::api::types;
use steeple_server_core::ca::{AgentX509Params, SignedX509};
use steeple_spiffe::x509::CertificateRequest;
use steeple_spiffe::{IdError, SpiffeId, TrustDomain};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Level;

pub use error::AgentError;

use crate::convert::{agent_id_from_proto, agent_to_proto, apply_agent_mask, workload_id_from_proto};
use crate::entry::page_request;
use crate::hash::sha256_hex;
use crate::open_calls::OpenCalls;
use crate::rpc::{Fields, Rpc};
use crate::state::ServerState;
use crate::svid::x509_to_proto;

/// Longest version an agent may report, in bytes (SPIRE).
const MAX_VERSION_LEN: usize = 255;

/// Attestations that one address may have open, waiting for their turn or for an answer: anybody may begin one.
/// Agents behind one address get past the rate limit one a second, so more would not be served in time anyway.
const MAX_ATTESTING: u32 = 256;

/// The service.
#[derive(Clone, Debug)]
pub struct AgentService {
    state: Arc<ServerState>,
    attesting: OpenCalls,
}

impl AgentService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state, attesting: OpenCalls::new(MAX_ATTESTING) }
    }

    fn agent_id(&self, rpc: &Rpc, id: Option<&types::Spiffeid>) -> Result<SpiffeId, Status> {
        let id =
            agent_id_from_proto(&self.state.trust_domain, id).map_err(|e| rpc.refuse(AgentError::Id(e)))?;
        rpc.audit_fields(|| Fields::default().with("spiffe_id", id.as_str()));
        Ok(id)
    }

    async fn renew(
        &self,
        rpc: &Rpc,
        params: Option<pb::AgentX509svidParams>,
    ) -> Result<types::X509svid, AgentError> {
        let state = &*self.state;
        let id = rpc.caller_id().map_err(|_| AgentError::NoCaller)?;
        let agent =
            state.store.fetch_agent(id).await.map_err(AgentError::Fetch)?.ok_or(AgentError::NotFound)?;
        if agent.can_reattest {
            return Err(AgentError::MustReattest);
        }
        rpc.log(Level::INFO, "Renewing agent SVID", Fields::default());
        let csr = params.ok_or(AgentError::NilParams)?.csr;
        if csr.is_empty() {
            return Err(AgentError::MissingCsr);
        }
        let signed = sign(state, id, &csr).await?;
        // The old serial stays good until the agent first uses the new one.
        let update = AgentUpdate {
            new_serial_number: Some(signed.serial.clone()),
            new_expires_at: Some(signed.expires_at),
            ..AgentUpdate::default()
        };
        let updated =
            state.store.update_agent(id, update, state.clock.now()).await.map_err(AgentError::Update)?;
        updated.ok_or(AgentError::NotFound)?;
        Ok(x509_to_proto(id, signed))
    }

    async fn post_status(&self, rpc: &Rpc, version: String) -> Result<(), AgentError> {
        let state = &*self.state;
        let id = rpc.caller_id().map_err(|_| AgentError::NoCaller)?;
        rpc.audit_fields(|| Fields::default().with("spiffe_id", id.as_str()));
        if version.is_empty() {
            return Ok(());
        }
        if version.len() > MAX_VERSION_LEN {
            return Err(AgentError::VersionTooLong);
        }
        rpc.audit_fields(|| Fields::default().with("agent_version", &version));
        let fields = Fields::default().with("spiffe_id", id.as_str()).with("agent_version", &version);
        let update = AgentUpdate { agent_version: Some(version), ..AgentUpdate::default() };
        let updated =
            state.store.update_agent(id, update, state.clock.now()).await.map_err(AgentError::Update)?;
        updated.ok_or(AgentError::NotFound)?;
        rpc.log(Level::DEBUG, "Agent status updated", fields);
        Ok(())
    }

    async fn create_token(
        &self,
        rpc: &Rpc,
        request: pb::CreateJoinTokenRequest,
    ) -> Result<types::JoinToken, AgentError> {
        let state = &*self.state;
        if request.ttl < 1 {
            return Err(AgentError::MissingTtl);
        }
        // Checked first, so that no token is left over from a bad request.
        let alias = match &request.agent_id {
            None => None,
            Some(id) => Some(workload_id_from_proto(&state.trust_domain, Some(id)).map_err(AgentError::Id)?),
        };
        rpc.audit_fields(|| Fields::default().with_some("spiffe_id", alias.as_ref().map(SpiffeId::as_str)));
        let value = if request.token.is_empty() { uuid::Uuid::new_v4().to_string() } else { request.token };
        let now = state.clock.now();
        let expires_at = now.saturating_add(request.ttl.into());
        let parent = match alias {
            None => None,
            Some(alias) => {
                Some((alias, join_token_id(&state.trust_domain, &value).map_err(AgentError::TokenEntryId)?))
            }
        };
        let token = JoinToken { token: value.clone(), expires_at };
        state.store.create_join_token(token, now).await.map_err(AgentError::CreateToken)?;
        if let Some((alias, parent)) = parent {
            let created = state.store.create_entries(vec![alias_entry(alias, parent)], now).await;
            match created.map(|mut results| results.pop()) {
                Ok(Some(Ok(Created::New(_) | Created::Existing(_))) | None) => {}
                Ok(Some(Err(e))) | Err(e) => return Err(AgentError::TokenEntry(e)),
            }
        }
        Ok(types::JoinToken { value, expires_at })
    }
}

/// `/spire/agent/join_token/<token>`
fn join_token_id(td: &TrustDomain, token: &str) -> Result<SpiffeId, IdError> {
    SpiffeId::from_segments(td, &["spire", "agent", "join_token", token])
}

/// Gives the agent a name of the operator's choice. The store finds it by this form when the agent goes.
fn alias_entry(alias: SpiffeId, parent: SpiffeId) -> Entry {
    Entry {
        id: String::new(),
        spiffe_id: alias,
        selectors: vec![Selector::new("spiffe_id", parent.as_str())],
        parent_id: parent,
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: 0,
        dns_names: Vec::new(),
        revision_number: 0,
        store_svid: false,
        hint: String::new(),
        created_at: 0,
        additional: None,
    }
}

/// SPIRE takes only the public key out of an agent's CSR: neither its signature nor its names count, because the
/// attestation or the TLS session vouches for the agent.
async fn sign(state: &ServerState, id: &SpiffeId, csr: &[u8]) -> Result<SignedX509, AgentError> {
    let csr = CertificateRequest::from_der(csr).map_err(AgentError::ParseCsr)?;
    let params = AgentX509Params { spiffe_id: id.clone(), public_key: csr.public_key() };
    let signed = state.ca.sign_agent_x509(params, state.clock.now()).await.map_err(AgentError::Sign)?;
    metrics::counter!("server_ca.sign.x509_svid").increment(1);
    Ok(signed)
}

#[tonic::async_trait]
impl pb::agent_server::Agent for AgentService {
    async fn count_agents(
        &self,
        request: Request<pb::CountAgentsRequest>,
    ) -> Result<Response<pb::CountAgentsResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let asked = request.into_inner().filter.map(filter::from_count).unwrap_or_default();
        rpc.audit_fields(|| filter::fields(&asked));
        let filter = filter::from_proto(&asked, "count").map_err(|e| rpc.refuse(e))?;
        let count =
            self.state.store.count_agents(&filter).await.map_err(|e| rpc.refuse(AgentError::Count(e)))?;
        rpc.audit();
        Ok(Response::new(pb::CountAgentsResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn list_agents(
        &self,
        request: Request<pb::ListAgentsRequest>,
    ) -> Result<Response<pb::ListAgentsResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let asked = request.filter.unwrap_or_default();
        rpc.audit_fields(|| filter::fields(&asked));
        let filter = filter::from_proto(&asked, "list").map_err(|e| rpc.refuse(e))?;
        let page = page_request(request.page_size, request.page_token);
        let page = self
            .state
            .store
            .list_agents(&filter, &page)
            .await
            .map_err(|e| rpc.refuse(AgentError::List(e)))?;
        rpc.audit();
        Ok(Response::new(pb::ListAgentsResponse {
            agents: page.items.iter().map(|agent| masked(agent, request.output_mask.as_ref())).collect(),
            next_page_token: page.next_token,
        }))
    }

    async fn get_agent(
        &self,
        request: Request<pb::GetAgentRequest>,
    ) -> Result<Response<types::Agent>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let id = self.agent_id(&rpc, request.id.as_ref())?;
        let found = self.state.store.fetch_agent(&id).await.map_err(|e| rpc.refuse(AgentError::Fetch(e)))?;
        let agent = found.ok_or_else(|| rpc.refuse(AgentError::NotFound))?;
        rpc.audit();
        Ok(Response::new(masked(&agent, request.output_mask.as_ref())))
    }

    async fn delete_agent(&self, request: Request<pb::DeleteAgentRequest>) -> Result<Response<()>, Status> {
        let rpc = Rpc::of(&request)?;
        let id = self.agent_id(&rpc, request.get_ref().id.as_ref())?;
        let deleted =
            self.state.store.delete_agent(&id).await.map_err(|e| rpc.refuse(AgentError::Remove(e)))?;
        deleted.ok_or_else(|| rpc.refuse(AgentError::NotFound))?;
        rpc.log(Level::INFO, "Agent deleted", Fields::default().with("spiffe_id", id.as_str()));
        rpc.audit();
        Ok(Response::new(()))
    }

    async fn ban_agent(&self, request: Request<pb::BanAgentRequest>) -> Result<Response<()>, Status> {
        let rpc = Rpc::of(&request)?;
        let id = self.agent_id(&rpc, request.get_ref().id.as_ref())?;
        // A banned agent has no serial; its row stays so that it cannot attest again.
        let update = AgentUpdate {
            serial_number: Some(String::new()),
            new_serial_number: Some(String::new()),
            ..AgentUpdate::default()
        };
        let banned = self.state.store.update_agent(&id, update, self.state.clock.now()).await;
        banned
            .map_err(|e| rpc.refuse(AgentError::Ban(e)))?
            .ok_or_else(|| rpc.refuse(AgentError::NotFound))?;
        rpc.log(Level::INFO, "Agent banned", Fields::default().with("spiffe_id", id.as_str()));
        rpc.audit();
        Ok(Response::new(()))
    }

    type AttestAgentStream = ReceiverStream<Result<pb::AttestAgentResponse, Status>>;

    async fn attest_agent(
        &self,
        request: Request<tonic::Streaming<pb::AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        let rpc = Rpc::of(&request)?;
        let open = self.attesting.begin(rpc.caller());
        let open = open.ok_or_else(|| rpc.refuse(AgentError::TooManyOpen(MAX_ATTESTING)))?;
        rpc.limit("rejecting request due to attest agent rate limiting", 1).await?;
        Ok(Response::new(attest::serve(&self.state, rpc, open, request.into_inner())))
    }

    async fn renew_agent(
        &self,
        request: Request<pb::RenewAgentRequest>,
    ) -> Result<Response<pb::RenewAgentResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let params = request.into_inner().params;
        rpc.audit_fields(|| {
            let csr = params.as_ref().map(|p| p.csr.as_slice()).filter(|csr| !csr.is_empty());
            Fields::default().with_some("csr", csr.map(sha256_hex))
        });
        rpc.limit("rejecting request due to renew agent rate limiting", 1).await?;
        let svid = self.renew(&rpc, params).await.map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        Ok(Response::new(pb::RenewAgentResponse { svid: Some(svid) }))
    }

    async fn create_join_token(
        &self,
        request: Request<pb::CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        rpc.audit_fields(|| Fields::default().with_some("ttl", (request.ttl > 0).then_some(request.ttl)));
        let token = self.create_token(&rpc, request).await.map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        Ok(Response::new(token))
    }

    async fn post_status(
        &self,
        request: Request<pb::PostStatusRequest>,
    ) -> Result<Response<pb::PostStatusResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        rpc.limit("rejecting request due to post status rate limiting", 1).await?;
        AgentService::post_status(self, &rpc, request.into_inner().agent_version)
            .await
            .map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        Ok(Response::new(pb::PostStatusResponse {}))
    }
}

fn masked(agent: &Agent, mask: Option<&types::AgentMask>) -> types::Agent {
    let mut out = agent_to_proto(agent);
    apply_agent_mask(&mut out, mask);
    out
}
