//! WIT-SVIDs and the bundles that validate them (Workload API §7), behind the feature flag `wit-svid`.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use steeple_agent_core::wit_cache::Held;
use steeple_agent_core::{Entry, Millis};
use steeple_proto::workload;
use steeple_spiffe::SpiffeId;
use tonic::{Code, Request, Status};

use super::encode::Framed;
use super::service::Answers;
use super::stream::Kind;
use super::{Called, Caller, SIGNING_WAIT, WorkloadApi, check_header, encode};
use crate::failure::ServerError;
use crate::state::{AgentState, Subscribed};
use crate::wit::Wits;

/// Tokens of one caller that are signed at the same time.
const AT_ONCE: usize = 16;
/// After a failure the server is asked again after a growing pause.
const RETRY_FIRST: Millis = 1_000;
const RETRY_MAX: Millis = 60_000;
/// A clock that is set is noticed after this at the latest.
const LOOK: Millis = 60_000;

impl WorkloadApi {
    pub(super) async fn fetch_wit_svid(
        self,
        request: Request<workload::WitsvidRequest>,
    ) -> Result<Answers, Status> {
        // Profiles that are not served answer so only to callers that speak the protocol (WE-07, WA-60).
        check_header(&request)?;
        let Some(wits) = self.0.wits.clone() else {
            return Err(Status::unimplemented("fetching WIT-SVIDs is not implemented"));
        };
        let wanted = match request.get_ref().spiffe_id.as_str() {
            "" => None,
            id => Some(SpiffeId::parse(id).map_err(|error| {
                Status::invalid_argument(format!("invalid requested SPIFFE ID: {error}"))
            })?),
        };
        let mut caller = self.admit(&request, Called::Workload("FetchWITSVID")).await?;
        let mut subscribed = self.0.state.watch(&caller.selectors);
        let fits = |entry: &Entry| wanted.as_ref().is_none_or(|id| *id == entry.spiffe_id);
        let entry = self.wait_for_entry(&mut subscribed, &caller, fits).await;
        caller.ended(entry)?;
        let patience = caller.patience(SIGNING_WAIT);
        let mut open = Open { api: self, wits, caller, subscribed, wanted, last: None, pause: 0 };
        let first = tokio::time::timeout(patience, open.next(true)).await;
        let late = || Err(Status::unavailable("could not fetch WIT-SVID: the server has not signed it yet"));
        let first = open.caller.ended(first.unwrap_or_else(|_| late()))?;
        let rest = stream::unfold(Some(open), |open| async move {
            let mut open = open?;
            match open.next(false).await {
                Ok(bytes) => Some((Ok(bytes), Some(open))),
                Err(status) => Some((open.caller.ended(Err(status)), None)),
            }
        });
        Ok(Box::pin(stream::iter([Ok(first)]).chain(rest)))
    }

    pub(super) async fn fetch_wit_bundles(
        self,
        request: Request<workload::WitBundlesRequest>,
    ) -> Result<Answers, Status> {
        check_header(&request)?;
        if self.0.wits.is_none() {
            return Err(Status::unimplemented("fetching WIT bundles is not implemented"));
        }
        let caller = self.admit(&request, Called::Workload("FetchWITBundles")).await?;
        self.stream_bundles(caller, Kind::WitBundles).await
    }
}

/// An open stream of WIT-SVIDs.
struct Open {
    api: WorkloadApi,
    wits: Arc<Wits>,
    caller: Caller,
    subscribed: Subscribed,
    wanted: Option<SpiffeId>,
    /// What was sent.
    last: Option<Framed>,
    /// After the last failure, 0 if there was none.
    pause: Millis,
}

impl Open {
    /// The next message: what there is first, then whatever differs from what was sent. Only a `first` message that
    /// cannot be had is a failure; later ones come when they can.
    async fn next(&mut self, first: bool) -> Result<Framed, Status> {
        loop {
            let entries = self.entries()?;
            let state = self.api.0.state.clone();
            let (wits, of) = (self.wits.clone(), entries.clone());
            let fetched = stream::iter(of).map(move |entry: Arc<Entry>| {
                let wits = wits.clone();
                async move { (wits.of(&entry).await, entry) }
            });
            let fetched = async { Ok(fetched.buffered(AT_ONCE).collect::<Vec<_>>().await) };
            self.caller.waits();
            let fetched = state.unless_closed(fetched).await?;
            if self.subscribed.subscription.updates.has_changed().unwrap_or(false) {
                // What it is entitled to may be less by now. What was fetched is held.
                continue;
            }
            let mut identities = Vec::with_capacity(fetched.len());
            let mut failure = None;
            for (wit, entry) in fetched {
                match wit {
                    Ok(held) => identities.push((entry, held)),
                    Err(error) => failure = Some((entry, error)),
                }
            }
            if let Some((entry, error)) = &failure {
                self.failed(entry, error);
                if first && identities.is_empty() {
                    return Err(refusal(error));
                }
            } else {
                self.pause = 0;
            }
            let bytes = encode::wit_svid(&identities);
            if !identities.is_empty() && self.last.as_ref() != Some(&bytes) {
                self.caller.still_here()?;
                self.log(&identities);
                self.last = Some(bytes.clone());
                return Ok(bytes);
            }
            self.until_next(&identities).await?;
        }
    }

    /// What the caller may have now, in entry id order.
    fn entries(&mut self) -> Result<Vec<Arc<Entry>>, Status> {
        let update = self.subscribed.subscription.updates.borrow_and_update();
        let fits = |entry: &&Arc<Entry>| self.wanted.as_ref().is_none_or(|id| *id == entry.spiffe_id);
        let entries: Vec<_> = update.matched.iter().filter(fits).cloned().collect();
        drop(update);
        if entries.is_empty() { Err(self.api.no_identity(&self.caller)) } else { Ok(entries) }
    }

    /// Returns when there may be something new: the entries changed, or one falls due.
    async fn until_next(&mut self, identities: &[(Arc<Entry>, Held)]) -> Result<(), Status> {
        let now = self.api.0.state.now();
        let due = identities.iter().map(|(_, held)| held.due - now).min().unwrap_or(LOOK);
        let pause = if self.pause > 0 { self.pause } else { due.max(RETRY_FIRST) }.min(LOOK);
        let pause = Duration::from_millis(pause.unsigned_abs());
        match tokio::time::timeout(pause, self.subscribed.subscription.updates.changed()).await {
            Ok(Err(_)) => Err(AgentState::stopping()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    fn failed(&mut self, entry: &Entry, error: &ServerError) {
        let (pid, method) = (self.caller.peer.pid, self.caller.method);
        tracing::error!(subsystem_name = "endpoints", service = "WorkloadAPI", method, pid, spiffe_id = %entry.spiffe_id, error = %error, "Could not fetch WIT-SVID");
        self.pause = (self.pause * 2).clamp(RETRY_FIRST, RETRY_MAX);
    }

    fn log(&self, identities: &[(Arc<Entry>, Held)]) {
        let (pid, method) = (self.caller.peer.pid, self.caller.method);
        let now = self.api.0.state.now();
        for (entry, held) in identities {
            let ttl = (held.wit.expires_at - now) / 1000;
            tracing::debug!(subsystem_name = "endpoints", service = "WorkloadAPI", method, pid, registered = true, spiffe_id = %entry.spiffe_id, ttl, "Fetched WIT-SVID");
        }
    }
}

fn refusal(error: &ServerError) -> Status {
    let text = format!("could not fetch WIT-SVID: {error}");
    match error.code {
        // The profile is served neither here nor there (WA-60).
        Code::Unimplemented => Status::unimplemented(text),
        _ => Status::unavailable(text),
    }
}
