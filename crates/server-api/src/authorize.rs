//! May this caller call this method? The order is SPIRE's (spire.md §1.7): cheapest first.

use std::sync::Arc;

use steeple_datastore::Error as StoreError;
use steeple_datastore::model::{Agent, Entry};
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_spiffe::SpiffeId;
use tonic::{Code, Status};

use crate::access::Access;
use crate::caller::{Caller, CallerSvid};
use crate::error::ApiError;
use crate::state::ServerState;

/// On what ground a caller was let in; ends in each log line of the call.
#[derive(Clone, Debug)]
pub enum Authorized {
    /// The method is open to anyone.
    Anyone,
    Local,
    AdminByConfig,
    AdminByEntry,
    Downstream(Arc<Entry>),
    Agent,
}

impl Authorized {
    /// `authorized_as`, `authorized_via`
    pub fn log_fields(&self) -> (&'static str, &'static str) {
        match self {
            Self::Anyone => ("nobody", ""),
            Self::Local => ("local", "transport"),
            Self::AdminByConfig => ("admin", "config"),
            Self::AdminByEntry => ("admin", "entries"),
            Self::Downstream(_) => ("downstream", "entries"),
            Self::Agent => ("agent", "datastore"),
        }
    }
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error("authorization denied")]
    NotAllowed,
    #[error(transparent)]
    Agent(#[from] AgentDenied),
    /// The question could not be answered.
    #[error("{0}")]
    Failed(String),
}

/// Why a caller is no agent that may act now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentDenied {
    #[error("caller does not have an X509-SVID")]
    NoSvid,
    #[error("agent \"{0}\" SVID is expired")]
    Expired(SpiffeId),
    #[error("agent \"{0}\" is not attested")]
    NotAttested(SpiffeId),
    #[error("agent \"{0}\" is banned")]
    Banned(SpiffeId),
    #[error("agent \"{id}\" expected to have serial number \"{expected}\"; has \"{has}\"")]
    NotActive { id: SpiffeId, expected: String, has: String },
}

impl ApiError for AgentDenied {
    fn code(&self) -> Code {
        Code::PermissionDenied
    }

    fn reason(&self) -> Option<Reason> {
        Some(match self {
            Self::NoSvid => return None,
            Self::Expired(_) => Reason::AgentExpired,
            Self::NotAttested(_) => Reason::AgentNotAttested,
            Self::Banned(_) => Reason::AgentBanned,
            Self::NotActive { .. } => Reason::AgentNotActive,
        })
    }
}

impl Denied {
    /// What the client reads: never why, but for the reason an agent acts on.
    pub fn to_status(&self, path: &str) -> Status {
        let message = || format!("authorization denied for method {path}");
        match self {
            Self::Failed(error) => Status::internal(error.clone()),
            Self::NotAllowed => Status::permission_denied(message()),
            Self::Agent(denied) => match denied.reason() {
                Some(reason) => crate::error::denied(Code::PermissionDenied, message(), reason),
                None => Status::permission_denied(message()),
            },
        }
    }
}

/// Decides.
pub async fn authorize(state: &ServerState, access: Access, caller: &Caller) -> Result<Authorized, Denied> {
    if access.anyone {
        return Ok(Authorized::Anyone);
    }
    if access.local && caller.is_local() {
        return Ok(Authorized::Local);
    }
    if let Some(svid) = caller.svid() {
        if access.admin && state.admin_ids.contains(&svid.id) {
            return Ok(Authorized::AdminByConfig);
        }
        if access.admin || access.downstream {
            state.fresh().await;
            let entries = state.view.entries_by_spiffe_id(&svid.id);
            if access.admin && entries.iter().any(|entry| entry.admin) {
                return Ok(Authorized::AdminByEntry);
            }
            if access.downstream
                && let Some(entry) = entries.iter().find(|entry| entry.downstream)
            {
                return Ok(Authorized::Downstream(entry.clone()));
            }
        }
    }
    if access.agent && !caller.is_local() {
        let svid = caller.svid().ok_or(AgentDenied::NoSvid)?;
        authorize_agent(state, svid).await?;
        return Ok(Authorized::Agent);
    }
    Err(Denied::NotAllowed)
}

/// An agent may act with its current serial, or with the one its last renewal gave it: the first use makes that
/// one current.
pub async fn authorize_agent(state: &ServerState, svid: &CallerSvid) -> Result<(), Denied> {
    let id = &svid.id;
    let leaf = svid.leaf().ok_or(AgentDenied::NoSvid)?;
    if state.clock.now() > leaf.not_after() {
        return Err(AgentDenied::Expired(id.clone()).into());
    }
    state.fresh().await;
    let serial = leaf.serial_decimal();
    let seen = state.view.agent(id);
    if seen.is_some_and(|agent| agent.serial_number == serial && !agent.is_banned()) {
        return Ok(());
    }
    // The view may be behind: another server may have attested or renewed the agent a moment ago. An agent that is
    // refused gives up, so the store has the last word.
    let mut agent = state.store.fetch_agent(id).await.map_err(lookup_failed)?;
    if agent.as_ref().is_some_and(|agent| agent.new_serial_number == serial) {
        let promoted = state.store.promote_agent_serial(id, &serial, state.clock.now()).await;
        if promoted.map_err(activation_failed)?.is_some() {
            return Ok(());
        }
        // It was banned, deleted or renewed again, or another of its calls did it.
        agent = state.store.fetch_agent(id).await.map_err(lookup_failed)?;
    }
    match agent {
        None => Err(AgentDenied::NotAttested(id.clone()).into()),
        Some(agent) if agent.is_banned() => Err(AgentDenied::Banned(id.clone()).into()),
        Some(agent) if agent.serial_number == serial => Ok(()),
        Some(agent) => Err(not_active(&agent, serial).into()),
    }
}

fn not_active(agent: &Agent, has: String) -> AgentDenied {
    AgentDenied::NotActive { id: agent.id.clone(), expected: agent.serial_number.clone(), has }
}

fn lookup_failed(error: StoreError) -> Denied {
    Denied::Failed(format!("unable to look up agent information: {error}"))
}

fn activation_failed(error: StoreError) -> Denied {
    Denied::Failed(format!("unable to activate the new agent SVID: {error}"))
}
