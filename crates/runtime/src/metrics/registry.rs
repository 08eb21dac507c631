//! All series of the process.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

use super::push::{Lines, PushTarget, Pushed, Pusher, Told};
use super::{render, summary::Summary};
use crate::clock;

/// Labels come from callers: what grows beyond this is not recorded, so that nobody can fill our memory.
const MAX_SERIES: usize = 10_000;

/// What SPIRE's `telemetry` block says of all sinks.
#[derive(Debug, Clone, Default)]
pub struct MetricsConfig {
    /// `spire_server`, or `MetricPrefix`.
    pub prefix: String,
    /// `EnableTrustDomainLabel`: adds `trust_domain`.
    pub trust_domain_label: Option<String>,
    /// `EnableHostnameLabel`, on by default: adds `host`.
    pub hostname_label: bool,
    /// Keys with the prefix and dots: `spire_server.rpc`. The longest match of allowed and blocked decides; without a
    /// match a key is allowed.
    pub allowed_prefixes: Vec<String>,
    pub blocked_prefixes: Vec<String>,
    /// `None` allows all.
    pub allowed_labels: Option<Vec<String>>,
    pub blocked_labels: Vec<String>,
}

/// Records what the `metrics` macros say. Clones are the same.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    config: MetricsConfig,
    host: String,
    started: Duration,
    state: Mutex<State>,
    push: Vec<Lines>,
}

#[derive(Default)]
struct State {
    by_key: HashMap<(Kind, Key), Option<Series>>,
    families: Families,
}

/// Name, then labels, to series: in the order they are rendered.
pub(super) type Families = BTreeMap<String, BTreeMap<String, Series>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Counter,
    Gauge,
    Summary,
}

#[derive(Clone)]
pub(super) enum Series {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<GaugeValue>),
    Summary(Arc<Summary>),
}

impl Registry {
    pub fn new(config: MetricsConfig) -> Self {
        Self::with_push(config, Vec::new()).0
    }

    /// A registry that also tells daemons of every change; run each pusher.
    pub fn with_push(config: MetricsConfig, targets: Vec<PushTarget>) -> (Self, Vec<Pusher>) {
        let (push, pushers) = targets.into_iter().map(Pusher::new).unzip();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        let started = clock::monotonic();
        (Self(Arc::new(Inner { config, host, started, state: Mutex::default(), push })), pushers)
    }

    /// Makes it the process's recorder. `false` if there is one already.
    pub fn install(&self) -> bool {
        metrics::set_global_recorder(self.clone()).is_ok()
    }

    /// The gauge `started`, with version and trust domain.
    pub fn started(&self, version: &str, trust_domain: &str) {
        let key = Key::from_parts(
            "started",
            vec![
                metrics::Label::new("version", version.to_owned()),
                metrics::Label::new("trust_domain_id", trust_domain.to_owned()),
            ],
        );
        self.gauge(&key).set(1.0);
    }

    /// The text Prometheus reads.
    pub fn render(&self) -> String {
        self.note_process();
        let families = self.state().families.clone();
        render::render(&families)
    }

    /// What is looked up only when somebody asks. Go's runtime has no counterpart here; the gauges of that name which
    /// dashboards show are filled with what comes nearest.
    pub(super) fn note_process(&self) {
        let uptime = clock::monotonic().saturating_sub(self.0.started);
        self.gauge(&Key::from_name("uptime_in_ms")).set(uptime.as_millis() as f64);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (gauge, line) in [("runtime.sys_bytes", "VmRSS:"), ("runtime.alloc_bytes", "RssAnon:")] {
            if let Some(bytes) = bytes_in(&status, line) {
                self.gauge(&Key::from_static_name(gauge)).set(bytes);
            }
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let tasks = runtime.metrics().num_alive_tasks();
            self.gauge(&Key::from_name("runtime.num_goroutines")).set(tasks as f64);
        }
    }

    fn gauge(&self, key: &Key) -> Gauge {
        match self.series(Kind::Gauge, key) {
            Some(Series::Gauge(gauge)) if self.0.push.is_empty() => Gauge::from_arc(gauge),
            Some(Series::Gauge(gauge)) => Gauge::from_arc(Arc::new(self.told(gauge, key))),
            _ => Gauge::noop(),
        }
    }

    fn told<T>(&self, series: Arc<T>, key: &Key) -> Told<T> {
        if self.0.push.is_empty() {
            return Told { series, pushed: Vec::new() };
        }
        let prefix = &self.0.config.prefix;
        let name = if prefix.is_empty() { key.name().to_owned() } else { format!("{prefix}.{}", key.name()) };
        let labels: Vec<(String, String)> = self.label_pairs(key).into_iter().collect();
        let pushed = self.0.push.iter().map(|lines| Pushed::new(lines, &name, &labels)).collect();
        Told { series, pushed }
    }

    fn series(&self, kind: Kind, key: &Key) -> Option<Series> {
        let mut state = self.state();
        if let Some(known) = state.by_key.get(&(kind, key.clone())) {
            return known.clone();
        }
        if state.by_key.len() >= MAX_SERIES {
            return None;
        }
        let allowed = self.0.config.allows(key.name());
        let series = if allowed { state.add(kind, self.name(key), self.labels(key)) } else { None };
        state.by_key.insert((kind, key.to_retained()), series.clone());
        series
    }

    fn name(&self, key: &Key) -> String {
        let prefix = &self.0.config.prefix;
        let full = if prefix.is_empty() { key.name().to_owned() } else { format!("{prefix}_{}", key.name()) };
        full.replace([' ', '.', '=', '-', '/'], "_")
    }

    /// Rendered labels, sorted by name, without braces.
    fn labels(&self, key: &Key) -> String {
        render::labels(&self.label_pairs(key))
    }

    fn label_pairs(&self, key: &Key) -> BTreeMap<String, String> {
        let config = &self.0.config;
        let mut labels = BTreeMap::new();
        for label in key.labels() {
            labels.insert(sanitized(label.key()), sanitized(label.value()));
        }
        if let Some(trust_domain) = &config.trust_domain_label {
            labels.insert("trust_domain".to_owned(), sanitized(trust_domain));
        }
        if config.hostname_label && !self.0.host.is_empty() {
            labels.insert("host".to_owned(), self.0.host.clone());
        }
        labels.retain(|name, _| config.allows_label(name));
        labels
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Two keys may render alike (`a.b`, `a_b`): they share a series. `None` if they are not of one kind.
    fn add(&mut self, kind: Kind, name: String, labels: String) -> Option<Series> {
        let family = self.families.entry(name).or_default();
        let same_kind = family.values().next().is_none_or(|series| series.kind() == kind);
        same_kind.then(|| family.entry(labels).or_insert_with(|| Series::new(kind)).clone())
    }
}

impl Series {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Counter => Self::Counter(Arc::default()),
            Kind::Gauge => Self::Gauge(Arc::default()),
            Kind::Summary => Self::Summary(Arc::default()),
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) => Kind::Counter,
            Self::Gauge(_) => Kind::Gauge,
            Self::Summary(_) => Kind::Summary,
        }
    }
}

impl Recorder for Registry {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.series(Kind::Counter, key) {
            Some(Series::Counter(value)) => Counter::from_arc(Arc::new(CounterValue(self.told(value, key)))),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.gauge(key)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        match self.series(Kind::Summary, key) {
            Some(Series::Summary(summary)) if self.0.push.is_empty() => Histogram::from_arc(summary),
            Some(Series::Summary(summary)) => Histogram::from_arc(Arc::new(self.told(summary, key))),
            _ => Histogram::noop(),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl MetricsConfig {
    fn allows(&self, key: &str) -> bool {
        let key = if self.prefix.is_empty() { key.to_owned() } else { format!("{}.{key}", self.prefix) };
        let longest = |prefixes: &[String]| {
            prefixes.iter().filter(|prefix| key.starts_with(prefix.as_str())).map(String::len).max()
        };
        match (longest(&self.allowed_prefixes), longest(&self.blocked_prefixes)) {
            (allowed, Some(blocked)) => allowed.is_some_and(|allowed| allowed > blocked),
            (_, None) => true,
        }
    }

    fn allows_label(&self, name: &str) -> bool {
        let allowed =
            self.allowed_labels.as_ref().is_none_or(|allowed| allowed.iter().any(|label| label == name));
        allowed && !self.blocked_labels.iter().any(|label| label == name)
    }
}

struct CounterValue(Told<AtomicU64>);

impl CounterFn for CounterValue {
    fn increment(&self, value: u64) {
        self.0.series.fetch_add(value, Ordering::Relaxed);
        self.0.tell(value as f64, "c");
    }

    fn absolute(&self, value: u64) {
        let before = self.0.series.fetch_max(value, Ordering::Relaxed);
        self.0.tell(value.saturating_sub(before) as f64, "c");
    }
}

impl GaugeFn for Told<GaugeValue> {
    fn increment(&self, value: f64) {
        self.series.increment(value);
        self.tell(self.series.load(), "g");
    }

    fn decrement(&self, value: f64) {
        self.series.decrement(value);
        self.tell(self.series.load(), "g");
    }

    fn set(&self, value: f64) {
        self.series.set(value);
        self.tell(value, "g");
    }
}

impl HistogramFn for Told<Summary> {
    fn record(&self, value: f64) {
        self.series.record(value);
        self.tell(value, "ms");
    }
}

/// The bits of an f64.
#[derive(Default)]
pub(super) struct GaugeValue(AtomicU64);

impl GaugeValue {
    pub fn load(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, value: f64) {
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl GaugeFn for GaugeValue {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// SPIRE's rule for label names and values: a run of other characters than letters, digits and `_` becomes one `_`,
/// which swallows a `_` that follows.
fn sanitized(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_alphanumeric() || c == '_' {
            out.push(c);
            continue;
        }
        while chars.next_if(|c| !c.is_ascii_alphanumeric() && *c != '_').is_some() {}
        let _ = chars.next_if_eq(&'_');
        out.push('_');
    }
    out
}

/// A line of /proc/self/status that counts in kB.
fn bytes_in(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024.0)
}
