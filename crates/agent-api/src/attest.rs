//! Who calls: a held process, its selectors found by every attestor at once.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use metrics::Histogram;
use steeple_agent_core::entry::{Selector, SelectorSet};
use steeple_plugin::{Caller, WorkloadAttestError, WorkloadAttestor};
use steeple_runtime::clock;
use steeple_runtime::metrics::CallMetric;
use steeple_runtime::peer::Peer;
use steeple_runtime::reason::Reason;
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

impl AttestFailure {
    pub fn reason(&self) -> Reason {
        match self {
            Self::Gone(_) => Reason::CallerGone,
            Self::AllFailed { .. } => Reason::AttestationFailed,
        }
    }
}

/// Runs the attestors. One that fails alone is logged and tolerated (SPIRE).
#[derive(Clone)]
pub struct WorkloadAttestation {
    attestors: Arc<[Named]>,
    meters: Arc<Meters>,
}

/// Handles, looked up once: every call of the Workload API comes by.
struct Meters {
    attestation: CallMetric,
    selectors: Histogram,
}

struct Named {
    name: Arc<str>,
    attestor: Arc<dyn WorkloadAttestor>,
    meter: CallMetric,
    /// When the log last heard that what the attestor asks is still silent.
    told_silent: Mutex<Option<Duration>>,
}

/// One that has not answered by then has failed: what the others found is not held back longer. Attestors that ask
/// something outside have deadlines of their own before it, with better reasons.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How often the log hears of what is still silent.
const TELL_SILENT_EVERY: Duration = Duration::from_secs(10);

impl WorkloadAttestation {
    pub fn new(attestors: Vec<Arc<dyn WorkloadAttestor>>) -> Self {
        let named = |attestor: Arc<dyn WorkloadAttestor>| Named {
            name: attestor.name().into(),
            meter: CallMetric::new("workload_api.workload_attestor").label("attestor", attestor.name()),
            attestor,
            told_silent: Mutex::default(),
        };
        let meters = Meters {
            attestation: CallMetric::new("workload_api.workload_attestation"),
            selectors: metrics::histogram!("workload_api.discovered_selectors"),
        };
        Self { attestors: attestors.into_iter().map(named).collect(), meters: Arc::new(meters) }
    }

    /// The selector types that can be found.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.attestors.iter().map(|attestor| &*attestor.name)
    }

    pub(crate) async fn attest(&self, peer: &Arc<Peer>) -> Result<Attested, AttestFailure> {
        let gone = |error: &dyn ToString| AttestFailure::Gone(error.to_string());
        peer.not_ended().map_err(|error| gone(&error))?;
        let caller = HeldCaller(peer.clone());
        let call = self.meters.attestation.begin();
        let reports = join_all(self.attestors.iter().map(|attestor| attestor.report(&caller))).await;
        // Whatever was read belongs to the caller only if it is still the one that connected: its number cannot have
        // been another's before.
        peer.still_here().map_err(|error| gone(&error))?;
        if !reports.is_empty() && reports.iter().all(|report| report.result.is_err()) {
            call.done(Code::Unknown);
            return Err(AttestFailure::AllFailed { pid: peer.pid, reports });
        }
        call.done(Code::Ok);
        let found = reports.iter().filter_map(|report| report.result.as_ref().ok());
        let selectors: Vec<Selector> = found.flatten().cloned().collect();
        self.meters.selectors.record(selectors.len() as f64);
        Ok(Attested { selectors: SelectorSet::new(selectors), reports })
    }
}

impl Named {
    async fn report(&self, caller: &HeldCaller) -> AttestorReport {
        let started = clock::monotonic();
        let call = self.meter.begin();
        let found = tokio::time::timeout(ANSWERS_WITHIN, self.attestor.attest(caller)).await;
        let found = found.unwrap_or_else(|_| {
            let within = ANSWERS_WITHIN.as_secs();
            Err(WorkloadAttestError::Other(format!("no answer within {within} s")))
        });
        call.done(if found.is_ok() { Code::Ok } else { Code::Unknown });
        if let Err(error) = &found
            && self.is_news(error, started)
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

impl Named {
    /// Whether the log is to hear of it.
    fn is_news(&self, error: &WorkloadAttestError, now: Duration) -> bool {
        match error {
            WorkloadAttestError::Gone { .. } => false,
            WorkloadAttestError::StillSilent(_) => {
                let mut told = self.told_silent.lock().unwrap_or_else(PoisonError::into_inner);
                let due = told.is_none_or(|told| now >= told + TELL_SILENT_EVERY);
                if due {
                    *told = Some(now);
                }
                due
            }
            _ => true,
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

    /// Says it, or nothing at all.
    struct Says(&'static str, Option<WorkloadAttestError>);

    #[tonic::async_trait]
    impl WorkloadAttestor for Says {
        fn name(&self) -> &str {
            self.0
        }

        async fn attest(&self, _: &dyn Caller) -> Result<Vec<String>, WorkloadAttestError> {
            match &self.1 {
                Some(WorkloadAttestError::Other(why)) => Err(WorkloadAttestError::Other(why.clone())),
                _ => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_and_one_that_fails_keep_their_reasons_and_do_not_hold_the_others() {
        let (mine, _other) = UnixStream::pair().unwrap();
        let peer = Arc::new(Peer::of_socket(mine.as_fd()).unwrap());
        let hangs = || Arc::new(Says("hangs", None));
        let fails = || Arc::new(Says("fails", Some(WorkloadAttestError::Other("no such thing".into()))));
        let attestation = WorkloadAttestation::new(vec![hangs(), fails(), Arc::new(Fake::default())]);
        let began = tokio::time::Instant::now();
        let attested = attestation.attest(&peer).await.unwrap();
        assert_eq!(began.elapsed(), ANSWERS_WITHIN, "all at once, none for ever");
        assert_eq!(attested.selectors, SelectorSet::new(vec![Selector::new("fake", "found")]));
        let said: Vec<_> =
            attested.reports.iter().map(|report| report.result.as_ref().err().map(|why| &**why)).collect();
        assert_eq!(said, [Some("no answer within 5 s"), Some("no such thing"), None]);

        let refused = WorkloadAttestation::new(vec![hangs(), fails()]).attest(&peer).await;
        let Err(AttestFailure::AllFailed { reports, .. }) = &refused else { panic!("{refused:?}") };
        assert_eq!(reports.len(), 2);
    }

    #[test]
    fn the_log_hears_of_what_is_still_silent_now_and_then() {
        let named = Named {
            name: "docker".into(),
            meter: CallMetric::new("workload_api.workload_attestor"),
            attestor: Arc::new(Fake::default()),
            told_silent: Mutex::default(),
        };
        let silent = WorkloadAttestError::StillSilent("no answer for 7 s".into());
        let at = Duration::from_secs;
        assert!(named.is_news(&silent, at(100)));
        assert!(!named.is_news(&silent, at(101)));
        assert!(named.is_news(&WorkloadAttestError::Other("x".into()), at(101)));
        assert!(!named.is_news(&WorkloadAttestError::Gone { pid: 1 }, at(101)));
        assert!(named.is_news(&silent, at(110)));
    }
}
