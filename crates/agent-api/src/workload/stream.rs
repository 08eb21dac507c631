//! An open stream: no task of its own, only a future that waits for its group.

use std::sync::Arc;

use futures::stream;
use steeple_agent_core::cache::Content;
use tonic::Status;

use super::encode::Framed;
use super::service::Answers;
use super::{Caller, WorkloadApi, encode};
use crate::state::{AgentState, Subscribed};

/// What a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    X509Svid,
    X509Bundles,
    JwtBundles,
    WitBundles,
}

struct Open {
    api: WorkloadApi,
    caller: Caller,
    subscribed: Subscribed,
    kind: Kind,
    last: Option<(Arc<Content>, Framed)>,
}

/// The newest state now and at each change, until the caller is no longer entitled to it (WA-73).
pub(super) fn run(api: WorkloadApi, caller: Caller, subscribed: Subscribed, kind: Kind) -> Answers {
    let open = Open { api, caller, subscribed, kind, last: None };
    Box::pin(stream::unfold(Some(open), |open| async move {
        let mut open = open?;
        match open.next().await {
            Ok(bytes) => Some((Ok(bytes), Some(open))),
            Err(status) => Some((open.caller.ended(Err(status)), None)),
        }
    }))
}

impl Open {
    async fn next(&mut self) -> Result<Framed, Status> {
        loop {
            match self.newest() {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    self.caller.still_here()?;
                    return Ok(bytes);
                }
                Err(status) => return Err(status),
            }
            self.caller.waits();
            if self.subscribed.subscription.updates.changed().await.is_err() {
                return Err(AgentState::stopping());
            }
        }
    }

    /// What has to be sent now, if anything.
    fn newest(&mut self) -> Result<Option<Framed>, Status> {
        let update = self.subscribed.subscription.updates.borrow_and_update().clone();
        let verifier = self.kind != Kind::X509Svid && self.api.0.config.allow_unauthenticated_verifiers;
        if update.matched.is_empty() && !verifier {
            return Err(self.api.no_identity(&self.caller));
        }
        let content = update.content;
        if self.last.as_ref().is_some_and(|(last, _)| Arc::ptr_eq(last, &content)) {
            return Ok(None);
        }
        // Encoded by whoever is first; the content keeps the bytes for all others.
        let federated = &content.federated;
        let bytes = match (self.kind, &content.bundle) {
            // Its SVIDs are being replaced or cannot be had now: it keeps what it has.
            (Kind::X509Svid, _) if content.identities.is_empty() => return Ok(None),
            (_, None) => return Ok(None),
            (Kind::X509Svid, Some(_)) => content.x509_svid(|content| encode::x509_svid(content).0),
            (Kind::X509Bundles, Some(own)) => {
                content.x509_bundles(|_| encode::x509_bundles(own, federated).0)
            }
            (Kind::WitBundles, Some(own)) => content.wit_bundles(|_| encode::wit_bundles(own, federated).0),
            (Kind::JwtBundles, Some(own)) => content.jwt_bundles(|_| encode::jwt_bundles(own, federated).0),
        };
        let bytes = Framed(bytes.clone());
        let same = self.last.as_ref().is_some_and(|(_, last)| *last == bytes);
        self.last = Some((content.clone(), bytes.clone()));
        if same {
            return Ok(None);
        }
        if self.kind == Kind::X509Svid && !self.caller.is_agent {
            self.log(&content);
        }
        Ok(Some(bytes))
    }

    fn log(&self, content: &Content) {
        let now = self.api.0.state.clock.now();
        let count = content.identities.len();
        for identity in &content.identities {
            let ttl = identity.svid.not_after - now;
            tracing::debug!(subsystem_name = "endpoints", service = "WorkloadAPI", method = self.caller.method, pid = self.caller.peer.pid, registered = true, count, spiffe_id = %identity.entry.spiffe_id, ttl, "Fetched X.509 SVID");
        }
    }
}
