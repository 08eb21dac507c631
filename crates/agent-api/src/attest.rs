//! Who calls: a held process, its selectors found by every attestor at once.

use std::io;
use std::sync::Arc;

use futures::future::join_all;
use steeple_agent_core::entry::{Selector, SelectorSet};
use steeple_plugin::{Caller, WorkloadAttestError, WorkloadAttestor};
use steeple_runtime::metrics::CallCounter;
use steeple_runtime::peer::Peer;
use tonic::Code;

/// Why a caller has no selectors.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttestFailure {
    #[error("the caller is gone: {0}")]
    Gone(String),
    #[error("no workload attestor could look at process {pid}: {reasons}")]
    AllFailed { pid: i32, reasons: String },
}

/// Runs the attestors. One that fails alone is logged and tolerated (SPIRE).
#[derive(Clone)]
pub struct WorkloadAttestation {
    attestors: Arc<[Arc<dyn WorkloadAttestor>]>,
}

impl WorkloadAttestation {
    pub fn new(attestors: Vec<Arc<dyn WorkloadAttestor>>) -> Self {
        Self { attestors: attestors.into() }
    }

    pub(crate) async fn attest(&self, peer: &Arc<Peer>) -> Result<SelectorSet, AttestFailure> {
        let gone = |error: &dyn ToString| AttestFailure::Gone(error.to_string());
        peer.still_here().map_err(|error| gone(&error))?;
        let caller = HeldCaller(peer.clone());
        let call = CallCounter::start(&["workload_api", "workload_attestation"]);
        let found = join_all(self.attestors.iter().map(|attestor| counted(attestor.as_ref(), &caller))).await;
        let mut selectors = Vec::new();
        let mut reasons = Vec::new();
        for (attestor, result) in self.attestors.iter().zip(found) {
            match result {
                Ok(values) => {
                    selectors.extend(values.iter().map(|value| Selector::new(attestor.name(), value)));
                }
                Err(error) => {
                    if !matches!(error, WorkloadAttestError::Gone { .. }) {
                        tracing::error!(subsystem_name = "workload_attestor", plugin_name = attestor.name(), pid = peer.pid, error = %error, "Failed to collect all selectors for PID");
                    }
                    reasons.push(format!("{}: {error}", attestor.name()));
                }
            }
        }
        // Whatever was read belongs to the caller only if it is still the one that connected.
        peer.still_here().map_err(|error| gone(&error))?;
        if !reasons.is_empty() && reasons.len() == self.attestors.len() {
            call.done(Code::Unknown);
            return Err(AttestFailure::AllFailed { pid: peer.pid, reasons: reasons.join("; ") });
        }
        call.done(Code::Ok);
        metrics::histogram!("workload_api.discovered_selectors").record(selectors.len() as f64);
        Ok(SelectorSet::new(selectors))
    }
}

async fn counted(
    attestor: &dyn WorkloadAttestor,
    caller: &HeldCaller,
) -> Result<Vec<String>, WorkloadAttestError> {
    let call = CallCounter::start(&["workload_api", "workload_attestor"]).label("attestor", attestor.name());
    let found = attestor.attest(caller).await;
    call.done(if found.is_ok() { Code::Ok } else { Code::Unknown });
    found
}

/// The peer as attestors see it.
#[derive(Debug)]
struct HeldCaller(Arc<Peer>);

impl Caller for HeldCaller {
    fn pid(&self) -> i32 {
        self.0.pid
    }

    fn uid(&self) -> u32 {
        self.0.uid
    }

    fn gid(&self) -> u32 {
        self.0.gid
    }

    fn still_here(&self) -> io::Result<()> {
        self.0.still_here().map_err(io::Error::other)
    }
}
