//! StreamSecrets, the state-of-the-world protocol: each response holds everything that was asked for.

use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use prost_types::Any;
use steeple_agent_core::cache::Content;
use steeple_proto::envoy::service::discovery::v3 as xds;
use tonic::{Code, Status, Streaming};

use super::{Answers, Caller, Names, Node, SecretDiscovery, Secrets};
use crate::state::{AgentState, Subscribed};

struct Open {
    sds: SecretDiscovery,
    caller: Caller,
    subscribed: Subscribed,
    requests: Streaming<xds::DiscoveryRequest>,
    session: Session,
    complaints: Complaints,
    content: Arc<Content>,
}

/// The protocol's state.
#[derive(Default)]
struct Session {
    /// What was asked for last; `None` before the first request.
    names: Option<Names>,
    node: Node,
    type_url: String,
    version: u64,
    nonce: Option<String>,
    sent: Vec<Any>,
}

/// What a request calls for.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It answers something older than the last response.
    Ignore,
    /// An acknowledgement, or a rejection: whoever sent it keeps what it has until something changes.
    Wait,
    Respond,
}

pub(super) fn run(
    sds: SecretDiscovery,
    caller: Caller,
    requests: Streaming<xds::DiscoveryRequest>,
) -> Answers<xds::DiscoveryResponse> {
    let subscribed = sds.api.subscribe(&caller);
    let (session, complaints) = (Session::default(), Complaints::default());
    let content = Arc::default();
    let open = Open { sds, caller, subscribed, requests, session, complaints, content };
    Box::pin(stream::unfold(Some(open), |open| async move {
        let mut open = open?;
        match open.next().await {
            Ok(Some(response)) => Some((Ok(response), Some(open))),
            Ok(None) => None,
            Err(status) => Some((open.caller.ended(Err(status)), None)),
        }
    }))
}

impl Open {
    /// The next response; `None` once the client has gone.
    async fn next(&mut self) -> Result<Option<xds::DiscoveryResponse>, Status> {
        loop {
            self.caller.waits();
            let asked = tokio::select! {
                request = self.requests.message() => {
                    let Some(request) = heard(request)? else { return Ok(None) };
                    self.complain(&request);
                    match self.session.take(request) {
                        Step::Ignore | Step::Wait => continue,
                        Step::Respond => true,
                    }
                }
                changed = self.subscribed.subscription.updates.changed() => {
                    changed.map_err(|_| AgentState::stopping())?;
                    false
                }
            };
            if let Some(response) = self.respond(asked).await? {
                return Ok(Some(response));
            }
        }
    }

    async fn respond(&mut self, asked: bool) -> Result<Option<xds::DiscoveryResponse>, Status> {
        let Some(names) = &self.session.names else { return Ok(None) };
        let sds = &self.sds;
        let validator = self.session.node.validator(&sds.names);
        let content = if asked {
            let complete = |content: &Content| Secrets::new(content, &sds.names, validator).has_all(names);
            sds.api.content(&mut self.subscribed, &self.caller, complete).await
        } else {
            self.subscribed.subscription.updates.borrow_and_update().content.clone()
        };
        if !asked && Arc::ptr_eq(&content, &self.content) {
            return Ok(None);
        }
        self.caller.still_here()?;
        let resources = Secrets::new(&content, &sds.names, validator).all_of(names).inspect_err(|error| {
            tracing::error!(
                subsystem_name = "endpoints",
                service = "SDS.v3",
                method = self.caller.method,
                pid = self.caller.peer.pid,
                error = error.message(),
                "Error building stream secrets response"
            );
        })?;
        self.content = content;
        let resources: Vec<Any> = resources.into_iter().map(|(_, resource)| resource).collect();
        if !asked && resources == self.session.sent {
            return Ok(None);
        }
        let response = self.session.response(resources);
        tracing::debug!(
            subsystem_name = "endpoints",
            service = "SDS.v3",
            method = self.caller.method,
            pid = self.caller.peer.pid,
            version_info = response.version_info,
            nonce = response.nonce,
            count = response.resources.len(),
            "Sending StreamSecrets response"
        );
        Ok(Some(response))
    }

    fn complain(&mut self, request: &xds::DiscoveryRequest) {
        if let Some(error) = &request.error_detail {
            self.complaints.log(
                self.sds.api.monotonic(),
                &self.caller,
                &request.resource_names.join(","),
                &error.message,
            );
        }
    }
}

impl Session {
    fn take(&mut self, request: xds::DiscoveryRequest) -> Step {
        if self.nonce.as_ref().is_some_and(|nonce| *nonce != request.response_nonce) {
            return Step::Ignore;
        }
        if request.node.is_some() {
            self.node = Node::of(request.node.as_ref());
        }
        self.type_url = request.type_url;
        let names = Names::new(&request.resource_names);
        if self.names.replace(names.clone()).as_ref() == Some(&names) { Step::Wait } else { Step::Respond }
    }

    fn response(&mut self, resources: Vec<Any>) -> xds::DiscoveryResponse {
        self.version += 1;
        let nonce = nonce();
        self.nonce = Some(nonce.clone());
        self.sent.clone_from(&resources);
        xds::DiscoveryResponse {
            version_info: self.version.to_string(),
            resources,
            type_url: self.type_url.clone(),
            nonce,
            ..xds::DiscoveryResponse::default()
        }
    }
}

/// A client that breaks off has gone, no more; one that sends what is no request is told so.
pub(super) fn heard<T>(request: Result<Option<T>, Status>) -> Result<Option<T>, Status> {
    match request {
        Err(status) if !matches!(status.code(), Code::Internal | Code::OutOfRange | Code::Unimplemented) => {
            Ok(None)
        }
        heard => heard,
    }
}

/// Tells responses apart, no secret: four bytes, in hex.
pub(super) fn nonce() -> String {
    format!("{:08x}", fastrand::u32(..))
}

/// An Envoy that rejects everything must not fill the disk.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    logged: Option<Duration>,
    held_back: u64,
}

const QUIET: Duration = Duration::from_secs(10);

impl Complaints {
    pub fn log(&mut self, now: Duration, caller: &Caller, resource_names: &str, error: &str) {
        if self.logged.is_some_and(|logged| now.saturating_sub(logged) < QUIET) {
            self.held_back += 1;
            return;
        }
        self.logged = Some(now);
        let held_back = std::mem::take(&mut self.held_back);
        tracing::error!(
            subsystem_name = "endpoints",
            service = "SDS.v3",
            method = caller.method,
            pid = caller.peer.pid,
            resource_names,
            error,
            held_back,
            "Envoy reported errors applying secrets"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(names: &[&str], nonce: &str) -> xds::DiscoveryRequest {
        xds::DiscoveryRequest {
            resource_names: names.iter().map(ToString::to_string).collect(),
            response_nonce: nonce.into(),
            type_url: "t".into(),
            ..xds::DiscoveryRequest::default()
        }
    }

    #[test]
    fn only_a_first_or_a_changed_list_is_answered_and_stale_ones_are_not_heard() {
        let mut session = Session::default();
        assert_eq!(session.take(asks(&["a"], "")), Step::Respond);
        let first = session.response(vec![]);
        assert_eq!((&*first.version_info, first.nonce.len(), &*first.type_url), ("1", 8, "t"));
        assert_eq!(session.take(asks(&["a"], &first.nonce)), Step::Wait, "an acknowledgement");
        assert_eq!(session.take(asks(&["a", "b"], "old")), Step::Ignore);
        assert_eq!(session.take(asks(&["b", "a"], &first.nonce)), Step::Respond);
        let second = session.response(vec![]);
        assert_eq!(session.take(asks(&["a", "b", "c"], &first.nonce)), Step::Ignore, "of before");
        assert_eq!(session.take(asks(&["a", "b", ""], &second.nonce)), Step::Wait, "the same names");
        assert_eq!(session.take(asks(&["a"], &second.nonce)), Step::Respond);
    }

    #[test]
    fn what_is_no_request_is_told_and_a_client_that_has_gone_is_not() {
        for (code, told) in [
            (Code::Internal, true),
            (Code::OutOfRange, true),
            (Code::Unimplemented, true),
            (Code::Cancelled, false),
            (Code::Unknown, false),
            (Code::Unavailable, false),
        ] {
            let outcome = heard::<()>(Err(Status::new(code, "")));
            assert_eq!(outcome.is_err(), told, "{code:?}");
        }
        assert!(heard::<()>(Ok(None)).is_ok_and(|gone| gone.is_none()));
    }
}
