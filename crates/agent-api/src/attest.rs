//! Who calls: a held process, its selectors found by every attestor at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use steeple_agent_core::entry::{Selector, SelectorSet};
use steeple_plugin::{Caller, WorkloadAttestError, WorkloadAttestor};
use steeple_runtime::clock;
use steeple_runtime::metrics::CallCounter;
use steeple_runtime::peer::Peer;
use tonic::Code;

/// What attesting one caller brought.
#[derive(Clone, Debug)]
pub(crate) struct Attested {
    pub selectors: SelectorSet,
    /// One for each attestor, in the configured order.
    pub reports: Vec<AttestorReport>,
}

/// What one attestor said, and how long it took.
#[derive(Clone, Debug)]
pub(crate) struct AttestorReport {
    pub name: Arc<str>,
    pub duration: Duration,
    /// The selectors it found, or why it could not look.
    pub result: Result<Vec<Selector>, Arc<str>>,
}

/// Why a caller has no selectors.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttestFailure {
    #[error("the caller is gone: {0}")]
    Gone(String),
    #[error("no workload attestor could look at process {pid}: {}", reasons(reports))]
    AllFailed { pid: i32, reports: Vec<AttestorReport> },
}

/// Runs the attestors. One that fails alone is logged and tolerated (SPIRE).
#[derive(Clone)]
pub struct WorkloadAttestation {
    attestors: Arc<[Named]>,
}

struct Named {
    name: Arc<str>,
    attestor: Arc<dyn WorkloadAttestor>,
}

impl WorkloadAttestation {
    pub fn new(attestors: Vec<Arc<dyn WorkloadAttestor>>) -> Self {
        let named = |attestor: Arc<dyn WorkloadAttestor>| Named { name: attestor.name().into(), attestor };
        Self { attestors: attestors.into_iter().map(named).collect() }
    }

    pub(crate) async fn attest(&self, peer: &Arc<Peer>) -> Result<Attested, AttestFailure> {
        let gone = |error: &dyn ToString| AttestFailure::Gone(error.to_string());
        peer.still_here().map_err(|error| gone(&error))?;
        let caller = HeldCaller(peer.clone());
        let call = CallCounter::start(&["workload_api", "workload_attestation"]);
        let reports = join_all(self.attestors.iter().map(|attestor| attestor.report(&caller))).await;
        // Whatever was read belongs to the caller only if it is still the one that connected.
        peer.still_here().map_err(|error| gone(&error))?;
        if !reports.is_empty() && reports.iter().all(|report| report.result.is_err()) {
            call.done(Code::Unknown);
            return Err(AttestFailure::AllFailed { pid: peer.pid, reports });
        }
        call.done(Code::Ok);
        let found = reports.iter().filter_map(|report| report.result.as_ref().ok());
        let selectors: Vec<Selector> = found.flatten().cloned().collect();
        metrics::histogram!("workload_api.discovered_selectors").record(selectors.len() as f64);
        Ok(Attested { selectors: SelectorSet::new(selectors), reports })
    }
}

impl Named {
    async fn report(&self, caller: &HeldCaller) -> AttestorReport {
        let started = clock::monotonic();
        let call = CallCounter::start(&["workload_api", "workload_attestor"]).label("attestor", &*self.name);
        let found = self.attestor.attest(caller).await;
        call.done(if found.is_ok() { Code::Ok } else { Code::Unknown });
        if let Err(error) = &found
            && !matches!(error, WorkloadAttestError::Gone { .. })
        {
            tracing::error!(subsystem_name = "workload_attestor", plugin_name = &*self.name, pid = caller.pid(), error = %error, "Failed to collect all selectors for PID");
        }
        let result = match found {
            Ok(values) => Ok(values.iter().map(|value| Selector::new(&self.name, value)).collect()),
            Err(error) => Err(error.to_string().into()),
        };
        AttestorReport {
            name: self.name.clone(),
            duration: clock::monotonic().saturating_sub(started),
            result,
        }
    }
}

fn reasons(reports: &[AttestorReport]) -> String {
    let failed = reports.iter().filter_map(|report| Some((&report.name, report.result.as_ref().err()?)));
    let reasons: Vec<String> = failed.map(|(name, error)| format!("{name}: {error}")).collect();
    reasons.join("; ")
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Child, Command};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SOCKET: &str = "STEEPLE_TEST_CALLER_SOCKET";

    /// Not a test by itself: the other one runs this program again, as a caller.
    #[test]
    fn caller() {
        let Some(path) = std::env::var_os(SOCKET) else { return };
        let connection = UnixStream::connect(path).unwrap();
        // Until it is killed, or the test is gone.
        let _ = std::io::Read::read(&mut &connection, &mut [0]);
    }

    /// A connection and the process that made it.
    fn called(dir: &std::path::Path) -> (UnixStream, Child) {
        let path = dir.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "attest::tests::caller"])
            .env(SOCKET, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        (listener.accept().unwrap().0, child)
    }

    fn end(child: &Mutex<Child>) {
        let mut child = child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Finds selectors whatever becomes of the caller, as one does that has read them a moment ago.
    #[derive(Default)]
    struct Fake {
        asked: AtomicUsize,
        ends: Option<Arc<Mutex<Child>>>,
    }

    #[tonic::async_trait]
    impl WorkloadAttestor for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        async fn attest(&self, _: &dyn Caller) -> Result<Vec<String>, WorkloadAttestError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if let Some(child) = &self.ends {
                end(child);
            }
            Ok(vec!["found".to_owned()])
        }
    }

    #[tokio::test]
    async fn a_caller_that_dies_before_or_during_attestation_has_no_selectors() {
        let dir = tempfile::tempdir().unwrap();
        let (connection, child) = called(dir.path());
        let child = Arc::new(Mutex::new(child));
        let peer = Arc::new(Peer::of_socket(connection.as_fd()).unwrap());
        assert_eq!(peer.pid, child.lock().unwrap().id() as i32);

        let alive = Arc::new(Fake::default());
        let found = WorkloadAttestation::new(vec![alive]).attest(&peer).await.unwrap();
        let found_selector = Selector::new("fake", "found");
        assert_eq!(found.selectors, SelectorSet::new(vec![found_selector.clone()]));
        let [report] = &*found.reports else { panic!("{:?}", found.reports) };
        assert_eq!((&*report.name, &report.result), ("fake", &Ok(vec![found_selector])));

        let during = Arc::new(Fake { ends: Some(child), ..Fake::default() });
        let refused = WorkloadAttestation::new(vec![during.clone()]).attest(&peer).await;
        assert!(matches!(refused, Err(AttestFailure::Gone(_))), "{refused:?}");
        assert_eq!(during.asked.load(Ordering::SeqCst), 1);

        let after = Arc::new(Fake::default());
        let refused = WorkloadAttestation::new(vec![after.clone()]).attest(&peer).await;
        assert!(matches!(refused, Err(AttestFailure::Gone(_))), "{refused:?}");
        assert_eq!(
            after.asked.load(Ordering::SeqCst),
            0,
            "nothing is looked up about a process that is no more"
        );
    }
}
