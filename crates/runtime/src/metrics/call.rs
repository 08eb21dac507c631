//! Counts and times calls, as SPIRE's call counters: a counter `key` and a sample `key.elapsed_time` in
//! milliseconds, both with the label `status`.

use std::{sync::OnceLock, time::Duration};

use metrics::{Counter, Histogram, Key, Label, Level, Metadata};
use tonic::{Code, Status};

use crate::{clock, grpc::code_name};

/// One call under way. Dropped without [`done`](Self::done), it counts as `Canceled`.
#[derive(Debug)]
#[must_use = "a call that is not kept counts as canceled at once"]
pub struct CallCounter {
    key: String,
    labels: Vec<Label>,
    start: Duration,
    finished: bool,
}

impl CallCounter {
    /// Starts the clock for the key with these parts.
    pub fn start(key: &[&str]) -> Self {
        Self::start_key(key.join("."))
    }

    /// The same for a key in its dotted form, such as [`rpc_key`] gives.
    pub fn start_key(key: impl Into<String>) -> Self {
        Self { key: key.into(), labels: Vec::new(), start: clock::monotonic(), finished: false }
    }

    /// Adds a label.
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.add_label(name, value);
        self
    }

    /// Adds a label found out on the way.
    pub fn add_label(&mut self, name: &'static str, value: impl Into<String>) {
        self.labels.push(Label::new(name, value.into()));
    }

    /// The call has ended: with a code, a `Result<_, Status>`, a `Status`, or anything else that tells an [`Outcome`].
    pub fn done(mut self, outcome: impl Outcome) {
        self.finish(outcome.code());
    }

    /// Not worth counting after all.
    pub fn discard(mut self) {
        self.finished = true;
    }

    fn finish(&mut self, code: Code) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        self.labels.push(Label::from_static_parts("status", code_name(code)));
        let labels = std::mem::take(&mut self.labels);
        let (counter, elapsed) = handles(&self.key, labels);
        counter.increment(1);
        elapsed.record(millis(self.start));
    }
}

impl Drop for CallCounter {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

/// A key whose handles are looked up once: for hot paths.
#[derive(Debug)]
pub struct CallMetric {
    key: String,
    labels: Vec<Label>,
    by_code: [OnceLock<(Counter, Histogram)>; CODES],
}

/// One call of a [`CallMetric`] under way. Dropped without [`done`](Self::done), it counts as `Canceled`.
#[derive(Debug)]
#[must_use = "a call that is not kept counts as canceled at once"]
pub struct Call<'a> {
    metric: &'a CallMetric,
    start: Duration,
    code: Code,
}

const CODES: usize = Code::Unauthenticated as usize + 1;

impl CallMetric {
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), labels: Vec::new(), by_code: Default::default() }
    }

    /// Adds a label to every call.
    #[must_use]
    pub fn label(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.labels.push(Label::new(name, value.into()));
        self
    }

    /// A call that counts however it ends.
    pub fn begin(&self) -> Call<'_> {
        Call { metric: self, start: self.start(), code: Code::Cancelled }
    }

    /// When a call starts; give it to [`done`](Self::done).
    pub fn start(&self) -> Duration {
        clock::monotonic()
    }

    pub fn done(&self, start: Duration, outcome: impl Outcome) {
        let code = outcome.code();
        let Some(slot) = self.by_code.get(code as usize) else { return };
        let (counter, elapsed) = slot.get_or_init(|| {
            let status = Label::from_static_parts("status", code_name(code));
            handles(&self.key, self.labels.iter().cloned().chain([status]).collect())
        });
        counter.increment(1);
        elapsed.record(millis(start));
    }
}

impl Call<'_> {
    /// The call has ended.
    pub fn done(mut self, outcome: impl Outcome) {
        self.code = outcome.code();
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.metric.done(self.start, self.code);
    }
}

/// How a call ended.
pub trait Outcome {
    fn code(&self) -> Code;
}

impl Outcome for Code {
    fn code(&self) -> Code {
        *self
    }
}

impl Outcome for &Status {
    fn code(&self) -> Code {
        Status::code(self)
    }
}

impl<T> Outcome for &Result<T, Status> {
    fn code(&self) -> Code {
        self.as_ref().err().map_or(Code::Ok, Status::code)
    }
}

/// The key of a gRPC method: `/spire.api.server.entry.v1.Entry/BatchCreateEntry` is
/// `rpc.entry.v1.entry.batch_create_entry`. Services have SPIRE's short names.
pub fn rpc_key(path: &str) -> String {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    let service = match service {
        "SpiffeWorkloadAPI" => "WorkloadAPI",
        "envoy.service.secret.v3.SecretDiscoveryService" => "SDS.v3",
        "grpc.health.v1.Health" => "Health",
        "spire.api.agent.logger.v1.Logger" | "spire.api.server.logger.v1.Logger" => "Logger",
        "spire.agent.debug.v1.Debug" => "Debug",
        "spire.api.agent.delegatedidentity.v1.DelegatedIdentity" => "DelegatedIdentity",
        other => other.strip_prefix("spire.api.server.").unwrap_or(other),
    };
    let mut key = String::from("rpc");
    for part in service.split('.').chain([method]) {
        key.push('.');
        push_snake_case(&mut key, part);
    }
    key
}

/// PascalCase to snake_case the way SPIRE does it: an upper-case letter starts a word where a lower-case one is next
/// to it (`FetchX509SVID` is `fetch_x509svid`).
fn push_snake_case(key: &mut String, name: &str) {
    if name == "SubscribeToX509SVIDs" {
        key.push_str("subscribe_to_x509_svids");
        return;
    }
    let chars: Vec<char> = name.chars().collect();
    let is_lower = |at: Option<usize>| at.and_then(|at| chars.get(at)).is_some_and(|c| c.is_lowercase());
    for (at, &c) in chars.iter().enumerate() {
        if !c.is_alphanumeric() {
            key.push('_');
            continue;
        }
        let starts_word = c.is_uppercase()
            && at > 0
            && at + 1 < chars.len()
            && (is_lower(Some(at + 1)) || is_lower(at.checked_sub(1)))
            && !key.ends_with('_');
        if starts_word {
            key.push('_');
        }
        key.extend(c.to_lowercase());
    }
}

fn handles(key: &str, labels: Vec<Label>) -> (Counter, Histogram) {
    static METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
    let elapsed = Key::from_parts(format!("{key}.elapsed_time"), labels.clone());
    let counter = Key::from_parts(key.to_owned(), labels);
    metrics::with_recorder(|recorder| {
        (recorder.register_counter(&counter, &METADATA), recorder.register_histogram(&elapsed, &METADATA))
    })
}

fn millis(start: Duration) -> f64 {
    clock::monotonic().saturating_sub(start).as_secs_f64() * 1_000.0
}
