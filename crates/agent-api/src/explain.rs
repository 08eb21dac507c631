//! `steeple.agent.v1.Explain` on the workload socket and the admin socket: why a workload has an identity or not.
//!
//! Anyone may ask about themselves, root of the agent's PID namespace about everyone. Who may hear what is ADR 0022.

mod server;
mod verdict;

use std::collections::BTreeSet;
use std::sync::Arc;

use steeple_agent_core::entry::{Entry, SelectorSet};
use steeple_agent_core::explain::{Depth, Findings, Question, look};
use steeple_proto::steeple::agent::v1 as pb;
use steeple_runtime::peer::{Peer, PeerInfo};
use steeple_spiffe::SpiffeId;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use crate::attest::{AttestFailure, AttestorReport, WorkloadAttestation};
use crate::convert;
use crate::identity::AgentIdentity;
use crate::link::ServerLink;
use crate::state::AgentState;
use server::Answer;

pub use pb::explain_server::ExplainServer;

/// The service. Clones are the same.
#[derive(Clone)]
pub struct Explain(Arc<Inner>);

struct Inner {
    state: Arc<AgentState>,
    attestation: WorkloadAttestation,
    identity: Arc<AgentIdentity>,
    link: Arc<ServerLink>,
    /// Of those who are not root: each question looks at every entry.
    places: Semaphore,
    /// The server is asked one question at a time.
    asking: tokio::sync::Mutex<()>,
}

const PLACES: usize = 2;

/// A question that may be answered.
#[derive(Debug)]
struct Asked {
    about: About,
    /// Which identity is meant.
    wanted: Option<SpiffeId>,
    by_root: bool,
}

#[derive(Debug)]
enum About {
    Process(i32, Result<Arc<Peer>, String>),
    Selectors(SelectorSet),
    /// An identity, whoever has it.
    Identity,
}

/// What is known of the workload.
#[derive(Debug, Default)]
struct Workload {
    pid: i32,
    selectors: SelectorSet,
    reports: Vec<AttestorReport>,
    gone: Option<String>,
    all_failed: bool,
}

/// Everything an answer is made of.
struct Facts<'a> {
    state: &'a AgentState,
    asked: &'a Asked,
    workload: &'a Workload,
    findings: &'a Findings,
    /// Entries that would match, had they not expired.
    expired: Vec<Arc<Entry>>,
    revision: u64,
    log_id: String,
    entry_count: usize,
    answer: Answer,
    now: i64,
}

impl Explain {
    pub fn new(
        state: Arc<AgentState>,
        attestation: WorkloadAttestation,
        identity: Arc<AgentIdentity>,
        link: Arc<ServerLink>,
    ) -> Self {
        let (places, asking) = (Semaphore::new(PLACES), tokio::sync::Mutex::default());
        Self(Arc::new(Inner { state, attestation, identity, link, places, asking }))
    }

    async fn workload(&self, about: &About) -> Workload {
        match about {
            About::Identity => Workload::default(),
            About::Selectors(selectors) => Workload { selectors: selectors.clone(), ..Workload::default() },
            About::Process(pid, Err(gone)) => {
                Workload { pid: *pid, gone: Some(gone.clone()), ..Workload::default() }
            }
            About::Process(pid, Ok(peer)) => {
                let blank = Workload { pid: *pid, ..Workload::default() };
                match self.0.attestation.attest(peer).await {
                    Ok(attested) => {
                        Workload { selectors: attested.selectors, reports: attested.reports, ..blank }
                    }
                    Err(AttestFailure::Gone(gone)) => Workload { gone: Some(gone), ..blank },
                    Err(AttestFailure::AllFailed { reports, .. }) => {
                        Workload { reports, all_failed: true, ..blank }
                    }
                }
            }
        }
    }

    fn look(&self, asked: &Asked, workload: &Workload) -> (Findings, u64, String) {
        let (entries, revision, log_id) = {
            let view = self.0.state.view();
            let meant = |entry: &&Arc<Entry>| asked.wanted.as_ref().is_none_or(|id| entry.spiffe_id == *id);
            let entries: Vec<_> = view.entries().filter(meant).cloned().collect();
            (entries, view.revision(), view.log_id().to_owned())
        };
        if let About::Identity = asked.about {
            let mut matched = entries;
            matched.sort_by(|a, b| a.id.cmp(&b.id));
            return (Findings { matched, ..Findings::default() }, revision, log_id);
        }
        let attestors: BTreeSet<&str> = self.0.attestation.names().collect();
        let failed = workload.reports.iter().filter(|report| report.result.is_err());
        let failed = failed.map(|report| &*report.name).collect();
        let depth = if asked.by_root { Depth::Near } else { Depth::OneMissing };
        let question =
            Question { workload: &workload.selectors, attestors: &attestors, failed: &failed, depth };
        (look(entries.iter(), question), revision, log_id)
    }

    async fn answer(&self, asked: &Asked) -> pb::WhyResponse {
        let inner = &*self.0;
        let workload = self.workload(&asked.about).await;
        let (findings, revision, log_id) = self.look(asked, &workload);
        let entry_count = inner.state.view().entry_count();
        let answer = if workload.gone.is_some() {
            Answer::NotAsked
        } else {
            server::ask(inner, asked, &workload.selectors).await
        };
        let expired = inner.state.expired();
        let expired = expired.into_iter().filter(|entry| {
            asked.wanted.as_ref().is_none_or(|id| entry.spiffe_id == *id)
                && (matches!(asked.about, About::Identity) || entry.matches(&workload.selectors))
        });
        let facts = Facts {
            state: &inner.state,
            asked,
            workload: &workload,
            findings: &findings,
            expired: expired.collect(),
            revision,
            log_id,
            entry_count,
            answer,
            now: inner.state.clock.now(),
        };
        let mut response = verdict::response(&facts);
        let chain = inner.identity.chain();
        if let Some(view) = &mut response.agent {
            view.spiffe_id = inner.identity.spiffe_id().map(|id| id.to_string()).unwrap_or_default();
            view.svid_expires_at = chain.first().map_or(0, steeple_spiffe::Certificate::not_after);
            view.attestors = inner.attestation.names().map(str::to_owned).collect();
        }
        response
    }
}

/// What is asked, and whether this caller may.
fn asked(caller: &Arc<Peer>, request: pb::WhyRequest) -> Result<Asked, Status> {
    let pb::WhyRequest { pid, selectors, spiffe_id } = request;
    if pid != 0 && !selectors.is_empty() {
        return Err(Status::invalid_argument("ask about a process or about selectors, not both"));
    }
    if pid < 0 {
        return Err(Status::invalid_argument("pid must not be negative"));
    }
    let wanted = if spiffe_id.is_empty() { None } else { Some(SpiffeId::parse(&spiffe_id)) };
    let wanted =
        wanted.transpose().map_err(|error| Status::invalid_argument(format!("spiffe_id: {error}")))?;
    let by_root = caller.is_root_here();
    let itself = pid == caller.pid || (pid == 0 && selectors.is_empty() && !(by_root && wanted.is_some()));
    if !itself && !by_root {
        return Err(Status::permission_denied(
            "only root of the agent's PID namespace may ask about others; without -pid and -selector the caller \
             itself is explained",
        ));
    }
    let about = if itself {
        About::Process(caller.pid, Ok(caller.clone()))
    } else if pid != 0 {
        About::Process(pid, Peer::of_process(pid).map(Arc::new).map_err(|error| error.to_string()))
    } else if selectors.is_empty() {
        About::Identity
    } else {
        let parsed: Option<SelectorSet> = selectors.iter().map(convert::selector).collect();
        About::Selectors(parsed.ok_or_else(|| {
            Status::invalid_argument("selectors: each needs a type without colon, and a value")
        })?)
    };
    Ok(Asked { about, wanted, by_root })
}

#[tonic::async_trait]
impl pb::explain_server::Explain for Explain {
    async fn why(&self, request: Request<pb::WhyRequest>) -> Result<Response<pb::WhyResponse>, Status> {
        crate::workload::check_header(&request)?;
        let peer = request.extensions().get::<PeerInfo>().map(|info| info.peer.clone());
        let peer = peer.ok_or_else(|| {
            Status::internal("the caller is not known: Explain is served on Unix sockets only")
        })?;
        let asked = asked(&peer, request.into_inner())?;
        tracing::debug!(
            subsystem_name = "endpoints",
            service = "Explain",
            method = "Why",
            pid = peer.pid,
            "Explaining"
        );
        let _place = if asked.by_root {
            None
        } else {
            Some(
                self.0
                    .places
                    .try_acquire()
                    .map_err(|_| Status::resource_exhausted("others are asking; ask again in a moment"))?,
            )
        };
        let answer = self.answer(&asked).await;
        peer.still_here().map_err(|_| Status::unavailable("workload attestation failed"))?;
        Ok(Response::new(answer))
    }
}
