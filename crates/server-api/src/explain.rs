//! `steeple.server.v1.Explain`: why a workload gets an identity or not, as far as the server knows. For people all of
//! it, for agents what concerns them (ADR 0022).

mod entry;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use steeple_datastore::model::Entry;
use steeple_proto::spire::api::types;
use steeple_proto::steeple::server::v1 as pb;
use steeple_runtime::reason::Reason;
use steeple_server_core::index::EntryIndex;
use steeple_spiffe::{IdError, SpiffeId};
use tonic::{Code, Request, Response, Status};

use crate::error::{ApiError, to_status};
use crate::rpc::Rpc;
use crate::state::ServerState;
use entry::{Has, Setting, finding};

/// The service.
#[derive(Clone, Debug)]
pub struct ExplainService {
    state: Arc<ServerState>,
}

/// Why a question is not answered.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    #[error("an entry ID, a SPIFFE ID, an agent ID or selectors are required")]
    NoQuestion,
    #[error("{field}: {source}")]
    Id { field: &'static str, source: IdError },
    #[error("no more than {MOST_SELECTORS} selectors can be asked about")]
    TooManySelectors,
    #[error("the server does not explain entries to agents (experimental.explain_to_agents)")]
    NotForAgents,
}

impl ApiError for ExplainError {
    fn code(&self) -> Code {
        match self {
            Self::NotForAgents => Code::Unimplemented,
            _ => Code::InvalidArgument,
        }
    }
}

impl From<ExplainError> for Status {
    fn from(error: ExplainError) -> Self {
        to_status(&error)
    }
}

const MOST_SELECTORS: usize = 1000;
/// Entries in one answer.
const MOST_ENTRIES: usize = 20;

impl ExplainService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }

    fn setting(&self) -> Setting {
        let (default_ttl, authority_expires_at) = self.state.ca.x509_limits();
        let bundles = self.state.view.watch_bundles().borrow().clone();
        let (trust_domain, now) = (self.state.trust_domain.clone(), self.state.clock.now());
        Setting { default_ttl, authority_expires_at, bundles, trust_domain, now }
    }

    fn registrations(&self, asked: &Asked) -> pb::RegistrationsResponse {
        let setting = self.setting();
        self.state.view.look(|index, position| {
            let agent = asked.agent.as_ref().map(|id| agent_finding(index, id));
            let candidates = asked.candidates(index);
            let mut entries: Vec<pb::EntryFinding> = candidates
                .iter()
                .map(|entry| finding(index, entry, asked.agent.as_ref(), asked.has.as_ref(), &setting))
                .collect();
            // What is nearest first; `sort_by_key` keeps the order of equals.
            entries.sort_by_key(|entry| (entry.missing_selectors.len(), !entry.reached));
            entries.truncate(MOST_ENTRIES);
            let reasons = asked.verdict(agent.as_ref(), &entries, &setting);
            let (revision, log_id) = (position.revision.0, position.log_id.to_string());
            pb::RegistrationsResponse { reasons, revision, log_id, agent, entries }
        })
    }

    /// Nothing of entries elsewhere but what an operator needs to find them.
    fn for_agent(&self, agent: &SpiffeId, has: &Has, wanted: Option<&SpiffeId>) -> pb::ForAgentResponse {
        let setting = self.setting();
        self.state.view.look(|index, position| {
            let named: Vec<Arc<Entry>> = match wanted {
                // A workload that names an identity must have what its entry asks for all the same.
                Some(id) => {
                    let mut named = index.entries_by_spiffe_id(id);
                    named.retain(|entry| has.is_empty() || has.all_of(entry));
                    named
                }
                None => index.entries().filter(|entry| has.all_of(entry)).cloned().collect(),
            };
            let told = |entry: &Arc<Entry>| {
                let chain = index.lineage(agent, &entry.id);
                let mut finding = pb::EntryFinding {
                    entry_id: entry.id.clone(),
                    spiffe_id: entry.spiffe_id.to_string(),
                    parent_id: entry.parent_id.to_string(),
                    ..pb::EntryFinding::default()
                };
                if let Some(chain) = chain {
                    finding.reached = true;
                    finding.chain = chain.iter().map(ToString::to_string).collect();
                }
                finding
            };
            let workloads = named.iter().filter(|entry| !index.is_alias(&entry.id));
            let mut entries: Vec<pb::EntryFinding> = workloads.map(told).collect();
            // What it should have and may lack counts most.
            entries.sort_by_key(|entry| !entry.reached);
            entries.truncate(MOST_ENTRIES);
            pb::ForAgentResponse {
                revision: position.revision.0,
                log_id: position.log_id.to_string(),
                agent: Some(agent_finding(index, agent)),
                entries,
                default_ttl: setting.default_ttl,
                authority_expires_at: setting.authority_expires_at,
            }
        })
    }
}

/// What people asked.
#[derive(Debug)]
struct Asked {
    entry_id: String,
    spiffe_id: Option<SpiffeId>,
    agent: Option<SpiffeId>,
    /// What the workload has; `None` if that was not said.
    has: Option<Has>,
}

impl TryFrom<pb::RegistrationsRequest> for Asked {
    type Error = ExplainError;

    fn try_from(request: pb::RegistrationsRequest) -> Result<Self, ExplainError> {
        let asked = Self {
            entry_id: request.entry_id,
            spiffe_id: spiffe_id("spiffe_id", &request.spiffe_id)?,
            agent: spiffe_id("agent_id", &request.agent_id)?,
            has: (!request.selectors.is_empty()).then(|| has(&request.selectors)).transpose()?,
        };
        let nothing = asked.spiffe_id.is_none() && asked.agent.is_none() && asked.has.is_none();
        if asked.entry_id.is_empty() && nothing {
            return Err(ExplainError::NoQuestion);
        }
        Ok(asked)
    }
}

impl Asked {
    fn candidates(&self, index: &EntryIndex) -> Vec<Arc<Entry>> {
        let fits = |entry: &Arc<Entry>| self.spiffe_id.as_ref().is_none_or(|id| entry.spiffe_id == *id);
        if !self.entry_id.is_empty() {
            return index.entry(&self.entry_id).into_iter().filter(fits).collect();
        }
        if let Some(id) = &self.spiffe_id {
            return index.entries_by_spiffe_id(id);
        }
        let Some(has) = &self.has else { return Vec::new() };
        let mut found: Vec<(usize, Arc<Entry>)> = index
            .entries()
            .filter(|entry| !index.is_alias(&entry.id))
            .filter_map(|entry| Some((has.nearly(entry)?, entry.clone())))
            .collect();
        found.sort_by(|a, b| (a.0, &a.1.id).cmp(&(b.0, &b.1.id)));
        // Whether the agent reaches them is looked up for these only.
        found.truncate(10 * MOST_ENTRIES);
        found.into_iter().map(|(_, entry)| entry).collect()
    }

    fn verdict(
        &self,
        agent: Option<&pb::AgentFinding>,
        entries: &[pb::EntryFinding],
        setting: &Setting,
    ) -> Vec<pb::Reason> {
        let mut reasons: Vec<pb::Reason> =
            agent.and_then(|agent| wrong_with(agent, setting.now)).into_iter().collect();
        let about_entries = !self.entry_id.is_empty() || self.spiffe_id.is_some() || self.has.is_some();
        if !about_entries {
            return reasons;
        }
        let serves =
            |entry: &&pb::EntryFinding| entry.reasons.iter().all(|reason| !entry::blocks(&reason.code));
        if let Some(entry) = entries.iter().find(serves)
            && reasons.is_empty()
        {
            let text = format!("Entry {} gives {}.", entry.entry_id, entry.spiffe_id);
            reasons.push(told(Reason::Issued, text));
            reasons.extend(entry.reasons.iter().cloned());
            return reasons;
        }
        let Some(nearest) = entries.first() else {
            reasons.push(self.nothing(setting));
            return reasons;
        };
        reasons.extend(nearest.reasons.iter().cloned());
        reasons
    }

    fn nothing(&self, setting: &Setting) -> pb::Reason {
        match &self.spiffe_id {
            Some(id) if id.trust_domain() != setting.trust_domain => told(
                Reason::ForeignTrustDomain,
                format!(
                    "{id} is of trust domain {}, this server of {}.",
                    id.trust_domain(),
                    setting.trust_domain
                ),
            ),
            Some(id) => told(Reason::NoEntry, format!("No entry gives {id}.")),
            None if !self.entry_id.is_empty() => {
                told(Reason::NoEntry, format!("There is no entry {:?}.", self.entry_id))
            }
            None => told(Reason::NoEntry, "No entry matches or nearly matches these selectors."),
        }
    }
}

fn wrong_with(agent: &pb::AgentFinding, now: i64) -> Option<pb::Reason> {
    let id = &agent.spiffe_id;
    if !agent.known {
        return Some(told(Reason::AgentNotAttested, format!("No agent {id} has attested.")));
    }
    if agent.banned {
        return Some(told(Reason::AgentBanned, format!("Agent {id} is banned.")));
    }
    (agent.svid_expires_at <= now).then(|| {
        told(Reason::AgentExpired, format!("The SVID of agent {id} ran out: it no longer renews it."))
    })
}

fn agent_finding(index: &EntryIndex, id: &SpiffeId) -> pb::AgentFinding {
    let Some(agent) = index.agent(id) else {
        return pb::AgentFinding { spiffe_id: id.to_string(), ..pb::AgentFinding::default() };
    };
    pb::AgentFinding {
        spiffe_id: id.to_string(),
        known: true,
        banned: agent.is_banned(),
        svid_expires_at: agent.expires_at.max(agent.new_expires_at),
        attestation_type: agent.attestation_type.clone(),
        version: agent.agent_version.clone(),
        aliases: index.aliases_of(id).iter().map(ToString::to_string).collect(),
        entry_count: i64::try_from(index.authorized_entries(id).len()).unwrap_or(i64::MAX),
    }
}

fn spiffe_id(field: &'static str, text: &str) -> Result<Option<SpiffeId>, ExplainError> {
    if text.is_empty() {
        return Ok(None);
    }
    SpiffeId::parse(text).map(Some).map_err(|source| ExplainError::Id { field, source })
}

fn has(selectors: &[types::Selector]) -> Result<Has, ExplainError> {
    if selectors.len() > MOST_SELECTORS {
        return Err(ExplainError::TooManySelectors);
    }
    let mut values: HashMap<String, HashSet<String>> = HashMap::new();
    for one in selectors {
        values.entry(one.r#type.clone()).or_default().insert(one.value.clone());
    }
    Ok(Has(values))
}

fn told(reason: Reason, text: impl Into<String>) -> pb::Reason {
    pb::Reason { code: reason.code().to_owned(), text: text.into(), what_to_do: reason.advice().to_owned() }
}

#[tonic::async_trait]
impl pb::explain_server::Explain for ExplainService {
    async fn registrations(
        &self,
        request: Request<pb::RegistrationsRequest>,
    ) -> Result<Response<pb::RegistrationsResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let asked = Asked::try_from(request.into_inner()).map_err(|e| rpc.refuse(e))?;
        self.state.fresh().await;
        let answer = self.registrations(&asked);
        rpc.audit();
        Ok(Response::new(answer))
    }

    async fn for_agent(
        &self,
        request: Request<pb::ForAgentRequest>,
    ) -> Result<Response<pb::ForAgentResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let agent = rpc.caller_id()?.clone();
        if !self.state.explain_to_agents {
            return Err(rpc.refuse(ExplainError::NotForAgents));
        }
        rpc.limit("questions", 1).await?;
        let request = request.into_inner();
        let has = has(&request.selectors).map_err(|e| rpc.refuse(e))?;
        let wanted = spiffe_id("spiffe_id", &request.spiffe_id).map_err(|e| rpc.refuse(e))?;
        self.state.fresh().await;
        let answer = self.for_agent(&agent, &has, wanted.as_ref());
        rpc.audit();
        Ok(Response::new(answer))
    }
}
