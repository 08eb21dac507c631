//! `steeple.agent.v1.Sync`: what an agent may have, pushed as it changes (docs/ARCHITECTURE.md, "The push").

mod wire;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, Stream};
use steeple_datastore::Revision;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use steeple_proto::steeple::agent::v1 as pb;
use steeple_server_core::view::{Delta, Subscription};
use steeple_spiffe::{Certificate, SpiffeId};
use tokio::time::{Sleep, timeout};
use tonic::{Code, Request, Response, Status};

use crate::convert::{EntryEncoder, bundle_to_proto};
use crate::error::{ApiError, to_status};
use crate::rpc::Rpc;
use crate::state::ServerState;

use wire::{ENTRIES, Encoded};

/// Entries in one message.
const MAX_ENTRIES: usize = 500;
/// Encoded entries in one message, in bytes: well under the 4 MiB a gRPC client takes.
const MAX_BYTES: usize = 1024 * 1024;
/// How long a server that is behind an agent may take to catch up before it sends the agent away.
const CATCH_UP: Duration = Duration::from_secs(2);
/// A stream lives this long, and up to half of it more: agents spread over servers that come later.
const LIFETIME: Duration = Duration::from_mins(30);

/// The service.
#[derive(Clone, Debug)]
pub struct PushService {
    state: Arc<ServerState>,
}

/// Why a stream does not start, or ends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    #[error("caller ID missing from request context")]
    NoCaller,
    /// Another server of the trust domain has shown the agent more than this one knows.
    #[error("this server is at revision {ours} and the agent at {theirs}; ask another server or try again")]
    Behind { ours: u64, theirs: u64 },
    #[error("agent \"{0}\" is banned")]
    Banned(SpiffeId),
    #[error("agent \"{0}\" is not attested")]
    Evicted(SpiffeId),
    #[error("this server does not see agent \"{0}\" yet; ask another server or try again")]
    Unseen(SpiffeId),
    #[error("the server closes long-lived streams so that agents spread over servers; open a new one")]
    Rebalance,
    #[error("the agent's X509-SVID has expired; open a new stream with a new one")]
    Expired,
    #[error("the server is stopping")]
    Stopping,
}

impl ApiError for PushError {
    fn code(&self) -> Code {
        match self {
            Self::NoCaller => Code::Internal,
            Self::Behind { .. } | Self::Unseen(_) => Code::FailedPrecondition,
            Self::Banned(_) | Self::Evicted(_) => Code::PermissionDenied,
            Self::Rebalance | Self::Expired | Self::Stopping => Code::Unavailable,
        }
    }

    fn reason(&self) -> Option<Reason> {
        match self {
            Self::Banned(_) => Some(Reason::AgentBanned),
            Self::Evicted(_) => Some(Reason::AgentNotAttested),
            _ => None,
        }
    }
}

impl From<PushError> for Status {
    fn from(error: PushError) -> Self {
        to_status(&error)
    }
}

impl PushService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }

    /// An agent never goes back to an older view (DESIGN §3.4).
    async fn catch_up(&self, asked: &pb::WatchRequest) -> Result<(), PushError> {
        let view = &self.state.view;
        self.state.fresh().await;
        if *view.log_id() != *asked.log_id {
            return Ok(());
        }
        let theirs = Revision(asked.last_revision);
        if view.revision() < theirs {
            // Another server's writes may arrive any moment.
            let _ = timeout(CATCH_UP, view.wait_for(theirs)).await;
        }
        let ours = view.revision();
        if ours < theirs && *view.log_id() == *asked.log_id {
            return Err(PushError::Behind { ours: ours.0, theirs: theirs.0 });
        }
        Ok(())
    }

    /// Waits for an agent that another server attested a moment ago: its first stream must not tell it that it is not known.
    async fn known(&self, agent: &SpiffeId) -> Result<(), PushError> {
        let view = &self.state.view;
        let seen = || view.agent(agent).is_some_and(|agent| !agent.is_banned());
        let waiting = async {
            while !seen() {
                view.wait_for(Revision(view.revision().0 + 1)).await;
            }
        };
        if timeout(CATCH_UP, waiting).await.is_ok() {
            return Ok(());
        }
        match self.state.store.fetch_agent(agent).await {
            Ok(None) => Err(PushError::Evicted(agent.clone())),
            Ok(Some(agent)) if agent.is_banned() => Err(PushError::Banned(agent.id.clone())),
            _ if seen() => Ok(()),
            _ => Err(PushError::Unseen(agent.clone())),
        }
    }

    /// How long the stream may live: bounded for balance, and by the SVID the agent came with.
    fn lifetime(&self, rpc: &Rpc) -> (Duration, PushError) {
        let balance = LIFETIME + LIFETIME.mul_f64(fastrand::f64() / 2.0);
        let expires = rpc.caller().svid().and_then(|svid| svid.leaf()).map_or(0, Certificate::not_after);
        let left = u64::try_from(expires.saturating_sub(self.state.clock.now())).unwrap_or(0);
        if Duration::from_secs(left) < balance {
            (Duration::from_secs(left), PushError::Expired)
        } else {
            (balance, PushError::Rebalance)
        }
    }
}

type Answer = Result<Encoded, Status>;

impl PushService {
    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<Answers>, Status> {
        let rpc = Rpc::of(&request)?;
        let agent = rpc.caller_id()?.clone();
        self.catch_up(request.get_ref()).await.map_err(|e| rpc.refuse(e))?;
        self.known(&agent).await.map_err(|e| rpc.refuse(e))?;
        let subscription = self.state.view.subscribe(&agent);
        if self.state.view.agent(&agent).is_none() {
            // Evicted between its authorization and the subscription: no change would tell.
            return Err(rpc.refuse(PushError::Evicted(agent)));
        }
        let (lifetime, at_its_end) = self.lifetime(&rpc);
        let watch = Watch {
            subscription,
            lifetime: Box::pin(tokio::time::sleep(lifetime)),
            at_its_end: Some(at_its_end),
            stopping: Box::pin(self.state.tasks.shutdown().requested()),
            left: None,
            state: self.state.clone(),
            rpc,
            agent,
        };
        Ok(Response::new(watch.answers()))
    }
}

type Answers = Pin<Box<dyn Stream<Item = Answer> + Send>>;

/// One agent's stream. No task and no channel stand between it and the connection: thousands wait for most of their
/// life, and each of the two would be kilobytes.
struct Watch {
    subscription: Subscription,
    lifetime: Pin<Box<Sleep>>,
    /// `None` once the end has been told.
    at_its_end: Option<PushError>,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Of the last change, as long as there are any.
    left: Option<Box<dyn Iterator<Item = Encoded> + Send>>,
    state: Arc<ServerState>,
    rpc: Rpc,
    agent: SpiffeId,
}

impl Watch {
    fn answers(self) -> Answers {
        Box::pin(stream::unfold(Box::new(self), |mut watch| async move {
            let answer = watch.next().await?;
            Some((answer, watch))
        }))
    }

    /// Sends changes until the agent is denied, the server stops, or the stream has lived long enough.
    async fn next(&mut self) -> Option<Answer> {
        loop {
            self.at_its_end.as_ref()?;
            if let Some(message) = self.left.as_mut().and_then(Iterator::next) {
                return Some(Ok(message));
            }
            self.left = None;
            let end = tokio::select! {
                delta = self.subscription.next() => self.begin(delta).err(),
                () = &mut self.lifetime => self.at_its_end.take(),
                () = &mut self.stopping => Some(PushError::Stopping),
            };
            if let Some(end) = end {
                self.at_its_end = None;
                let denied = end.code() == Code::PermissionDenied;
                return Some(Err(if denied { self.rpc.refuse(end) } else { end.into() }));
            }
        }
    }

    fn begin(&mut self, mut delta: Delta) -> Result<(), PushError> {
        if delta.denied {
            return Err(match self.state.view.agent(&self.agent) {
                Some(known) if known.is_banned() => PushError::Banned(self.agent.clone()),
                _ => PushError::Evicted(self.agent.clone()),
            });
        }
        if delta.snapshot {
            // It may have been away when the order came.
            let order = self.state.view.rotation_order(&self.agent);
            delta.rotate_agent |= order.is_some_and(|at| at > self.issued_at());
        }
        self.left = Some(Box::new(messages(delta)));
        Ok(())
    }

    /// When the agent got the SVID it came with.
    fn issued_at(&self) -> i64 {
        let leaf = self.rpc.caller().svid().and_then(|svid| svid.leaf());
        leaf.map_or(0, Certificate::not_before) + steeple_server_core::ca::BACKDATE
    }
}

/// Cuts a delta into messages of bounded size; `more` is set on all but the last.
fn messages(delta: Delta) -> impl Iterator<Item = Encoded> {
    let first = pb::WatchResponse {
        bundles: delta.bundles.iter().map(|bundle| bundle_to_proto(bundle)).collect(),
        removed_bundles: delta.removed_bundles.iter().map(|td| td.name().to_owned()).collect(),
        removed_entry_ids: delta.removed,
        rotate_entry_ids: delta.rotated,
        rotate_agent: delta.rotate_agent,
        ..pb::WatchResponse::default()
    };
    let mut head = pb::WatchResponse {
        revision: delta.revision.0,
        log_id: delta.log_id,
        snapshot: delta.snapshot,
        ..pb::WatchResponse::default()
    };
    let mut entries = delta.entries.into_iter().peekable();
    let (mut encoder, mut rest) = (EntryEncoder::default(), Some(first));
    std::iter::from_fn(move || {
        let rest = if entries.peek().is_some() { rest.take().unwrap_or_default() } else { rest.take()? };
        let mut listed = Vec::new();
        for _ in 0..MAX_ENTRIES {
            if listed.len() >= MAX_BYTES {
                break;
            }
            let Some(entry) = entries.next() else { break };
            encoder.encode(ENTRIES, &entry, &mut listed);
        }
        head.more = entries.peek().is_some();
        Some(Encoded::new(&head, &listed, &rest))
    })
}

#[cfg(test)]
mod tests;
