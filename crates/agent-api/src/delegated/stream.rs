//! Streams without tasks of their own: each is a future that waits for a change. What the caller may have is looked at
//! before each message, and the stream ends with SPIRE's refusal once that is nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use steeple_agent_core::cache::{Content, Update};
use steeple_proto::spire::api::agent::delegatedidentity::v1 as api;
use steeple_spiffe::Bundle;
use tokio::sync::watch;
use tonic::Status;

use super::{Answers, Delegate, SIGNING_WAIT, Wanted, answer};
use crate::state::{AgentState, Subscribed};

const SVIDS: &str = "SubscribeToX509SVIDs";
/// A delegate takes what its first message lacks for gone (Cilium deletes it): after a start from sealed state that
/// message waits so long for the server.
const FIRST_SYNC_WAIT: Duration = Duration::from_secs(2);

struct Svids {
    caller: Delegate,
    /// Tells when the caller's own entries change.
    own: Subscribed,
    wanted: Wanted,
    subscribed: Subscribed,
    last: Option<Arc<Content>>,
    started: Duration,
    measured: bool,
}

/// The SVIDs of the wanted workload, first and at each change.
pub(super) fn svids(caller: Delegate, wanted: Wanted) -> Answers<api::SubscribeToX509sviDsResponse> {
    let own = caller.state.watch(&caller.selectors);
    let subscribed = caller.state.subscribe(&wanted.selectors);
    let started = caller.state.clock.monotonic();
    let open = Svids { caller, own, wanted, subscribed, last: None, started, measured: false };
    Box::pin(stream::unfold(Some(open), |open| async move {
        let mut open = open?;
        match open.next().await {
            Ok(message) => Some((Ok(message), Some(open))),
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl Svids {
    async fn next(&mut self) -> Result<api::SubscribeToX509sviDsResponse, Status> {
        if self.last.is_none() {
            self.caller.state.heard(FIRST_SYNC_WAIT).await;
            let updates = &mut self.subscribed.subscription.updates;
            let complete = updates.wait_for(|update| !update.pending);
            // After that a part is better than nothing: the server may be down for long.
            if let Ok(Err(_)) = tokio::time::timeout(SIGNING_WAIT, complete).await {
                return Err(AgentState::stopping());
            }
        }
        loop {
            self.caller.authorize(SVIDS)?;
            self.wanted.still_here()?;
            let update: Update = self.subscribed.subscription.updates.borrow_and_update().clone();
            let seen = self.last.as_ref().is_some_and(|last| Arc::ptr_eq(last, &update.content));
            if !seen {
                self.last = Some(update.content.clone());
                let message = answer::svids(&update.content)?;
                self.measure(&message);
                return Ok(message);
            }
            tokio::select! {
                changed = self.subscribed.subscription.updates.changed() => {
                    changed.map_err(|_| AgentState::stopping())?;
                }
                changed = self.own.subscription.updates.changed() => {
                    changed.map_err(|_| AgentState::stopping())?;
                }
                () = self.wanted.ended() => {}
            }
        }
    }

    /// Until the first message with an SVID, as SPIRE measures it.
    fn measure(&mut self, message: &api::SubscribeToX509sviDsResponse) {
        if !self.measured && !message.x509_svids.is_empty() {
            self.measured = true;
            let elapsed = self.caller.state.clock.monotonic().saturating_sub(self.started);
            metrics::histogram!("delegated_identity_api.subscribe_x509_svid.first_x509_svid_update")
                .record(elapsed.as_secs_f64() * 1000.0);
        }
        tracing::debug!(
            subsystem_name = "endpoints",
            service = "DelegatedIdentity",
            method = SVIDS,
            pid = self.caller.peer.pid,
            count = message.x509_svids.len(),
            "Fetched X.509 SVID for delegated identity"
        );
    }
}

struct Bundles<T> {
    caller: Delegate,
    own: Subscribed,
    method: &'static str,
    encode: fn(&[Arc<Bundle>]) -> T,
    changes: watch::Receiver<u64>,
    sent: Option<T>,
}

/// Every bundle the agent has, first and at each change.
pub(super) fn bundles<T: Clone + PartialEq + Send + 'static>(
    caller: Delegate,
    method: &'static str,
    encode: fn(&[Arc<Bundle>]) -> T,
) -> Answers<T> {
    let (own, changes) = (caller.state.watch(&caller.selectors), caller.state.bundle_changes());
    let open = Bundles { caller, own, method, encode, changes, sent: None };
    Box::pin(stream::unfold(Some(open), |open| async move {
        let mut open = open?;
        match open.next().await {
            Ok(message) => Some((Ok(message), Some(open))),
            Err(status) => Some((Err(status), None)),
        }
    }))
}

impl<T: Clone + PartialEq> Bundles<T> {
    async fn next(&mut self) -> Result<T, Status> {
        if self.sent.is_none() {
            self.caller.state.heard(FIRST_SYNC_WAIT).await;
        }
        loop {
            self.caller.authorize(self.method)?;
            self.changes.borrow_and_update();
            let message = (self.encode)(&self.caller.state.cache().bundles());
            if self.sent.as_ref() != Some(&message) {
                self.sent = Some(message.clone());
                return Ok(message);
            }
            tokio::select! {
                changed = self.changes.changed() => changed.map_err(|_| AgentState::stopping())?,
                changed = self.own.subscription.updates.changed() => {
                    changed.map_err(|_| AgentState::stopping())?;
                }
            }
        }
    }
}
