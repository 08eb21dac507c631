//! SPIRE's metrics of the Workload API and of SDS. The agent's own calls do not count.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use steeple_runtime::metrics::{CallMetric, rpc_key};
use tonic::{Code, Status};

use super::Called;

/// Handles, looked up once.
pub(super) struct Meters {
    calls: HashMap<&'static str, Arc<CallMetric>>,
    workload: Connections,
    sds: Connections,
}

struct Connections {
    total: Counter,
    open: Gauge,
}

impl Meters {
    pub fn new() -> Self {
        let workload = [
            "FetchX509SVID",
            "FetchX509Bundles",
            "FetchJWTSVID",
            "FetchJWTBundles",
            "ValidateJWTSVID",
            "FetchWITSVID",
            "FetchWITBundles",
        ];
        let sds = ["StreamSecrets", "DeltaSecrets", "FetchSecrets"];
        let metric = |called: Called| Arc::new(CallMetric::new(rpc_key(&called.path())));
        let called = workload.map(Called::Workload).into_iter().chain(sds.map(Called::Sds));
        Self {
            calls: called.map(|called| (called.method(), metric(called))).collect(),
            workload: Connections {
                total: metrics::counter!("workload_api.connection"),
                open: metrics::gauge!("workload_api.connections"),
            },
            sds: Connections {
                total: metrics::counter!("sds_api.connections"),
                open: metrics::gauge!("sds_api.connections"),
            },
        }
    }

    /// A call begins; it ends when the answer is dropped.
    pub fn start(&self, called: Called) -> Option<Meter> {
        let metric = self.calls.get(called.method())?.clone();
        let connections = match called {
            Called::Workload(_) => &self.workload,
            Called::Sds(_) => &self.sds,
        };
        connections.total.increment(1);
        let connections = connections.open.clone();
        connections.increment(1.0);
        let start = metric.start();
        Some(Meter { metric, connections, start, code: Code::Ok, counts: true })
    }
}

/// One call under way. A stream that the client ends has gone well (SPIRE).
pub(super) struct Meter {
    metric: Arc<CallMetric>,
    connections: Gauge,
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
        self.connections.decrement(1.0);
        if self.counts {
            self.metric.done(self.start, self.code);
        }
    }
}
