//! Why a caller has no identity, in the code that the log, the metric and the status share with `explain`.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message;
use steeple_agent_core::SelectorSet;
use steeple_agent_core::explain::{Cause, Depth, Question, look};
use steeple_agent_core::node::Standing;
use steeple_proto::google::rpc::{ErrorInfo, Status as RpcStatus};
use steeple_runtime::reason::Reason;
use tonic::{Code, Status};

use crate::attest::WorkloadAttestation;
use crate::state::AgentState;

const DOMAIN: &str = "steeple";

/// A status that carries the reason as `google.rpc.ErrorInfo`. No selectors: the caller's log is not the operator's.
pub(crate) fn status(code: Code, message: &str, reason: Reason) -> Status {
    let metadata = [("what_to_do".to_owned(), reason.advice().to_owned())];
    let metadata = metadata.into_iter().filter(|(_, advice)| !advice.is_empty()).collect();
    let info = ErrorInfo { reason: reason.code().to_owned(), domain: DOMAIN.to_owned(), metadata };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
        value: info.encode_to_vec(),
    };
    let details = RpcStatus { code: code as i32, message: message.to_owned(), details: vec![any] };
    Status::with_details(code, message, details.encode_to_vec().into())
}

/// Counts a refusal.
pub(crate) fn count(service: &'static str, method: &'static str, reason: Reason) {
    metrics::counter!("workload_api.refused", "service" => service, "method" => method, "reason" => reason.code())
        .increment(1);
}

/// SPIRE's refusal of who has no identity.
pub(crate) fn no_identity(service: &'static str, method: &'static str, reason: Reason) -> Status {
    count(service, method, reason);
    status(Code::PermissionDenied, "no identity issued", reason)
}

/// Finds reasons, and remembers them while the view stays as it is: callers that are refused come again and again.
#[derive(Debug, Default)]
pub(crate) struct Reasons(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of the view that they were found in.
    changes: u64,
    reasons: HashMap<(SelectorSet, BTreeSet<Arc<str>>), Reason>,
}

/// A node runs few different workloads.
const MOST_KNOWN: usize = 256;

impl Reasons {
    /// As far as the agent knows by itself: `explain` asks the server too.
    pub fn find(
        &self,
        state: &AgentState,
        attestation: &WorkloadAttestation,
        selectors: &SelectorSet,
        failed: &BTreeSet<Arc<str>>,
    ) -> Reason {
        if let Some(reason) = state.stand().and_then(|stand| of_standing(stand.standing)) {
            return reason;
        }
        let changes = state.view_changes();
        let asked = (selectors.clone(), failed.clone());
        {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.changes != changes || known.reasons.len() >= MOST_KNOWN {
                *known = Known { changes, reasons: HashMap::new() };
            } else if let Some(reason) = known.reasons.get(&asked) {
                return *reason;
            }
        }
        let reason = reason(state, attestation, selectors, failed);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reasons.insert(asked, reason);
        reason
    }
}

fn reason(
    state: &AgentState,
    attestation: &WorkloadAttestation,
    selectors: &SelectorSet,
    failed: &BTreeSet<Arc<str>>,
) -> Reason {
    let failed = failed.iter().map(|name| &**name).collect();
    let attestors = attestation.names().collect();
    let question =
        Question { workload: selectors, attestors: &attestors, failed: &failed, depth: Depth::Near };
    let entries: Vec<_> = state.view().entries().cloned().collect();
    let found = look(entries.iter(), question);
    if !found.stored.is_empty() {
        return Reason::EntryForStore;
    }
    if state.expired().iter().any(|entry| entry.matches(selectors)) {
        return Reason::EntryExpired;
    }
    found.near.first().map_or(Reason::NoEntry, |near| of_cause(&near.cause))
}

/// What an agent that is not ready means to its workloads.
pub(crate) fn of_standing(standing: Standing) -> Option<Reason> {
    match standing {
        Standing::Ready => None,
        Standing::Banned => Some(Reason::AgentBanned),
        Standing::Expired => Some(Reason::AgentExpired),
        Standing::Untrusted => Some(Reason::ServerUntrusted),
        Standing::Attesting
        | Standing::Reattesting
        | Standing::Rebootstrapping
        | Standing::Evicted
        | Standing::Refused => Some(Reason::AgentNotAttested),
    }
}

pub(crate) fn of_cause(cause: &Cause) -> Reason {
    match cause {
        Cause::Typo(_) => Reason::SelectorTypo,
        Cause::AttestorFailed(_) => Reason::AttestorFailed,
        Cause::AttestorDisabled(_) => Reason::AttestorDisabled,
        Cause::Missing => Reason::SelectorMissing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_in_the_details_beside_spires_code_and_message() {
        let status = no_identity("WorkloadAPI", "FetchX509SVID", Reason::SelectorTypo);
        assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
        let details = RpcStatus::decode(status.details()).unwrap();
        assert_eq!((details.code, &*details.message), (7, "no identity issued"));
        let info = ErrorInfo::decode(&*details.details[0].value).unwrap();
        assert_eq!((&*info.reason, &*info.domain), ("SELECTOR_TYPO", "steeple"));
        assert_eq!(info.metadata["what_to_do"], Reason::SelectorTypo.advice());
    }
}
