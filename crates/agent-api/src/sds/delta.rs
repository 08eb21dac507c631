//! DeltaSecrets, the incremental protocol: a response holds what changed. A name that stands for nothing is told as
//! removed and sent once it stands for something; the stream goes on.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use futures::stream;
use steeple_agent_core::cache::Content;
use steeple_proto::envoy::service::discovery::v3 as xds;
use tonic::{Status, Streaming};

use super::secrets::Named;
use super::stream::{Complaints, heard, nonce};
use super::{Answers, Caller, Names, Node, SecretDiscovery, Secrets};
use crate::state::{AgentState, Subscribed};

struct Open {
    sds: SecretDiscovery,
    caller: Caller,
    subscribed: Subscribed,
    requests: Streaming<xds::DeltaDiscoveryRequest>,
    session: Session,
    complaints: Complaints,
}

/// The protocol's state.
#[derive(Default)]
struct Session {
    started: bool,
    node: Node,
    type_url: String,
    names: Names,
    /// Everything, also what is not named.
    wildcard: bool,
    /// Versions by name that the client holds.
    held: HashMap<String, String>,
    /// Names that the client knows to stand for nothing.
    missing: HashSet<String>,
}

pub(super) fn run(
    sds: SecretDiscovery,
    caller: Caller,
    requests: Streaming<xds::DeltaDiscoveryRequest>,
) -> Answers<xds::DeltaDiscoveryResponse> {
    let subscribed = sds.api.subscribe(&caller);
    let (session, complaints) = (Session::default(), Complaints::default());
    let open = Open { sds, caller, subscribed, requests, session, complaints };
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
    async fn next(&mut self) -> Result<Option<xds::DeltaDiscoveryResponse>, Status> {
        loop {
            self.caller.waits();
            let asked = tokio::select! {
                request = self.requests.message() => {
                    let Some(request) = heard(request)? else { return Ok(None) };
                    if let Some(error) = &request.error_detail {
                        self.complaints.log(self.sds.api.monotonic(), &self.caller, "", &error.message);
                    }
                    if !self.session.take(request) {
                        continue;
                    }
                    true
                }
                changed = self.subscribed.subscription.updates.changed() => {
                    changed.map_err(|_| AgentState::stopping())?;
                    if !self.session.started {
                        continue;
                    }
                    false
                }
            };
            let (sds, session) = (&self.sds, &mut self.session);
            let validator = session.node.validator(&sds.names);
            let content = if asked {
                let names = &session.names;
                let complete =
                    |content: &Content| Secrets::new(content, &sds.names, validator).has_all(names);
                sds.api.content(&mut self.subscribed, &self.caller, complete).await
            } else {
                self.subscribed.subscription.updates.borrow_and_update().content.clone()
            };
            self.caller.still_here()?;
            let secrets = Secrets::new(&content, &sds.names, validator);
            let mut now = secrets.some_of(&session.names)?;
            if session.wildcard && !session.names.is_everything() {
                now.extend(secrets.some_of(&Names::default())?);
            }
            if let Some(response) = session.response(now) {
                return Ok(Some(response));
            }
        }
    }
}

impl Session {
    /// Whether what it subscribes to changed.
    fn take(&mut self, request: xds::DeltaDiscoveryRequest) -> bool {
        let first = !std::mem::replace(&mut self.started, true);
        if request.node.is_some() {
            self.node = Node::of(request.node.as_ref());
        }
        self.type_url = request.type_url;
        if first {
            self.held = request.initial_resource_versions;
            self.wildcard = request.resource_names_subscribe.is_empty();
        }
        let changed = first || !request.resource_names_subscribe.is_empty();
        for name in request.resource_names_subscribe {
            if !first {
                // Whoever subscribes again wants it again.
                self.held.remove(&name);
            }
            self.missing.remove(&name);
            if name == "*" {
                self.wildcard = true;
            } else {
                self.names.insert(name);
            }
        }
        for name in request.resource_names_unsubscribe {
            if name == "*" {
                self.wildcard = false;
            }
            self.names.remove(&name);
            self.held.remove(&name);
            self.missing.remove(&name);
        }
        changed
    }

    /// What differs from what the client holds; `None` if nothing does.
    fn response(&mut self, now: Vec<Named>) -> Option<xds::DeltaDiscoveryResponse> {
        let nothing_asked = self.names.is_everything() && !self.wildcard;
        let mut gone: HashSet<String> = self.held.keys().cloned().collect();
        gone.extend(self.names.iter().filter(|name| !self.missing.contains(*name)).map(str::to_owned));
        let mut resources = Vec::new();
        for (name, resource) in now {
            if nothing_asked {
                break;
            }
            gone.remove(&name);
            self.missing.remove(&name);
            let version = version(&resource.value);
            if self.held.insert(name.clone(), version.clone()).as_ref() != Some(&version) {
                resources.push(xds::Resource { version, resource: Some(resource), name });
            }
        }
        for name in &gone {
            self.held.remove(name);
        }
        let mut removed_resources: Vec<String> = gone.into_iter().collect();
        removed_resources.sort();
        self.missing.extend(removed_resources.iter().cloned());
        if resources.is_empty() && removed_resources.is_empty() {
            return None;
        }
        Some(xds::DeltaDiscoveryResponse {
            resources,
            type_url: self.type_url.clone(),
            nonce: nonce(),
            removed_resources,
            ..xds::DeltaDiscoveryResponse::default()
        })
    }
}

/// The same for the same secret on every stream, so that a client that connects again is not told what it holds. 64 bits
/// of a hash tell nothing of the key within.
fn version(secret: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    secret.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    fn asks(subscribe: &[&str], unsubscribe: &[&str]) -> xds::DeltaDiscoveryRequest {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        xds::DeltaDiscoveryRequest {
            resource_names_subscribe: owned(subscribe),
            resource_names_unsubscribe: owned(unsubscribe),
            ..xds::DeltaDiscoveryRequest::default()
        }
    }

    fn named(name: &str, value: &str) -> Named {
        (name.into(), Any { type_url: String::new(), value: value.into() })
    }

    fn told(response: Option<xds::DeltaDiscoveryResponse>) -> (Vec<String>, Vec<String>) {
        let response = response.unwrap_or_default();
        (response.resources.into_iter().map(|one| one.name).collect(), response.removed_resources)
    }

    fn lists(changed: &[&str], removed: &[&str]) -> (Vec<String>, Vec<String>) {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        (owned(changed), owned(removed))
    }

    #[test]
    fn only_changes_are_told_and_what_is_missing_comes_later() {
        let mut session = Session::default();
        assert!(session.take(asks(&["a", "b"], &[])));
        assert_eq!(told(session.response(vec![named("a", "1")])), lists(&["a"], &["b"]));
        assert!(!session.take(asks(&[], &[])), "an acknowledgement");
        assert!(session.response(vec![named("a", "1")]).is_none(), "it is known to be missing");
        assert_eq!(told(session.response(vec![named("a", "1"), named("b", "1")])), lists(&["b"], &[]));
        assert_eq!(told(session.response(vec![named("a", "2"), named("b", "1")])), lists(&["a"], &[]));
        assert_eq!(told(session.response(vec![named("a", "2")])), lists(&[], &["b"]));
        assert!(session.take(asks(&["a"], &[])));
        assert_eq!(told(session.response(vec![named("a", "2")])), lists(&["a"], &[]), "wanted again");
        session.take(asks(&[], &["a", "b"]));
        assert!(session.response(vec![named("x", "1")]).is_none(), "nothing is asked for any more");
    }

    #[test]
    fn a_client_that_comes_back_is_told_what_changed_meanwhile() {
        let mut session = Session::default();
        let held = [("a".to_owned(), version(b"1")), ("b".to_owned(), version(b"1"))];
        let back = asks(&["a", "b"], &[]);
        let back = xds::DeltaDiscoveryRequest { initial_resource_versions: held.into(), ..back };
        assert!(session.take(back));
        assert_eq!(told(session.response(vec![named("a", "1"), named("b", "2")])), lists(&["b"], &[]));
    }

    #[test]
    fn a_first_request_without_names_asks_for_everything() {
        let mut session = Session::default();
        assert!(session.take(asks(&[], &[])));
        assert_eq!(told(session.response(vec![named("a", "1")])), lists(&["a"], &[]));
        assert_eq!(told(session.response(vec![])), lists(&[], &["a"]));
    }
}
