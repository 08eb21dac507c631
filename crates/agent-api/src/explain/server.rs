//! What the server says of entries that this agent does not hold.

use std::time::Duration;

use steeple_agent_core::entry::SelectorSet;
use steeple_agent_core::node::Denial;
use steeple_proto::spire::api::types;
use steeple_proto::steeple::server::v1 as pb;
use tonic::Code;

use super::{About, Asked, Inner};
use crate::failure::ServerError;

/// See the [module](self).
pub(super) enum Answer {
    /// There was no need, or no time.
    NotAsked,
    Told(Box<pb::ForAgentResponse>),
    /// It does not serve the question: SPIRE's, or switched off.
    Cannot,
    /// This agent is refused.
    Denied(Denial, String),
    Failed(String),
}

/// Longer than this nobody waits at a terminal.
const PATIENCE: Duration = Duration::from_secs(4);
/// The server takes no more.
const MOST_SELECTORS: usize = 1000;

pub(super) async fn ask(inner: &Inner, asked: &Asked, workload: &SelectorSet) -> Answer {
    let named = match asked.about {
        About::Identity => true,
        _ => !workload.is_empty() && workload.len() <= MOST_SELECTORS,
    };
    let away = inner.state.stand().is_some_and(|stand| !stand.may_talk);
    if !named || away {
        return Answer::NotAsked;
    }
    // Root waits for its turn; others must not make it wait long.
    let _turn = if asked.by_root {
        inner.asking.lock().await
    } else {
        match inner.asking.try_lock() {
            Ok(turn) => turn,
            Err(_) => return Answer::NotAsked,
        }
    };
    let selectors = workload.iter().filter_map(|selector| selector.as_str().split_once(':'));
    let selectors = selectors
        .map(|(kind, value)| types::Selector { r#type: kind.to_owned(), value: value.to_owned() })
        .collect();
    let spiffe_id = asked.wanted.as_ref().map(ToString::to_string).unwrap_or_default();
    let request = pb::ForAgentRequest { selectors, spiffe_id };
    let mut client = inner.link.explain();
    let status = match tokio::time::timeout(PATIENCE, client.for_agent(request)).await {
        Ok(Ok(response)) => return Answer::Told(Box::new(response.into_inner())),
        Ok(Err(status)) => status,
        Err(_) => return Answer::Failed("the server did not answer in time".to_owned()),
    };
    let error = ServerError::new("asking the server", &status);
    let unlisted = status.code() == Code::PermissionDenied
        && error.denial.is_none()
        && status.message().contains("authorization denied for method");
    match error.denial {
        Some(denial) => Answer::Denied(denial, error.to_string()),
        None if unlisted || status.code() == Code::Unimplemented => Answer::Cannot,
        None => Answer::Failed(error.to_string()),
    }
}
