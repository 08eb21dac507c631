//! SPIRE's metrics of the Workload API. The agent's own calls do not count.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use steeple_runtime::metrics::{CallMetric, rpc_key};
use tonic::{Code, Status};

/// Handles, looked up once.
pub(super) struct Meters {
    calls: HashMap<&'static str, Arc<CallMetric>>,
}

impl Meters {
    pub fn new() -> Self {
        let methods =
            ["FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"];
        let metric = |method| Arc::new(CallMetric::new(rpc_key(&format!("/SpiffeWorkloadAPI/{method}"))));
        Self { calls: methods.into_iter().map(|method| (method, metric(method))).collect() }
    }

    /// A call begins; it ends when the answer is dropped.
    pub fn start(&self, method: &'static str) -> Option<Meter> {
        let metric = self.calls.get(method)?.clone();
        metrics::counter!("workload_api.connection").increment(1);
        metrics::gauge!("workload_api.connections").increment(1.0);
        let start = metric.start();
        Some(Meter { metric, start, code: Code::Ok, counts: true })
    }
}

/// One call under way. A stream that the client ends has gone well (SPIRE).
pub(super) struct Meter {
    metric: Arc<CallMetric>,
    start: Duration,
    code: Code,
    counts: bool,
}

impl Meter {
    pub fn failed(&mut self, status: &Status) {
        self.code = status.code();
    }

    /// The agent asks itself.
    pub fn discard(&mut self) {
        self.counts = false;
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        metrics::gauge!("workload_api.connections").decrement(1.0);
        if self.counts {
            self.metric.done(self.start, self.code);
        }
    }
}
