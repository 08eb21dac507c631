//! Health of named subsystems, and `/live` and `/ready` over HTTP (spire.md §1.5).

use std::{
    collections::BTreeMap,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http::StatusCode;
use serde_json::{Map, Value};
use tokio::net::TcpListener;

use crate::{clock, http as web};

/// Until everything is live and ready, and from then on.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_mins(1);
/// A check that hangs is a check that fails.
const CHECK_DEADLINE: Duration = Duration::from_secs(30);

/// How a subsystem is.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// `false` while it starts: failures are then only warnings.
    pub started: bool,
    pub live: bool,
    pub ready: bool,
    /// What `/live` and `/ready` say about it: a JSON object, empty when all is well.
    pub live_details: Value,
    pub ready_details: Value,
}

impl State {
    /// Live and ready, with nothing to tell.
    pub fn ok() -> Self {
        Self { started: true, live: true, ready: true, live_details: empty(), ready_details: empty() }
    }

    /// Neither, with the same details for both.
    pub fn failed(details: Value) -> Self {
        Self {
            started: true,
            live: false,
            ready: false,
            live_details: details.clone(),
            ready_details: details,
        }
    }

    fn error(&self) -> Option<&'static str> {
        match (self.live, self.ready) {
            (true, true) => None,
            (false, true) => Some("subsystem is not live"),
            (true, false) => Some("subsystem is not ready"),
            (false, false) => Some("subsystem is not live or ready"),
        }
    }
}

/// A subsystem that can tell how it is.
#[async_trait]
pub trait Check: Send + Sync + 'static {
    async fn check(&self) -> State;
}

/// A check that always passes, for what is healthy by being there.
#[derive(Debug, Clone, Copy)]
pub struct Always;

#[async_trait]
impl Check for Always {
    async fn check(&self) -> State {
        State::ok()
    }
}

/// SPIRE's `health_checks` block, with its defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    pub bind_address: String,
    pub bind_port: u16,
    pub live_path: String,
    pub ready_path: String,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            bind_address: "localhost".to_owned(),
            bind_port: 80,
            live_path: "/live".to_owned(),
            ready_path: "/ready".to_owned(),
        }
    }
}

/// The checks and what they last said. Clones are the same.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Subsystem>>>);

struct Subsystem {
    check: Arc<dyn Check>,
    /// `None` until checked: neither live nor ready, as in SPIRE.
    state: Option<State>,
    failing: Option<Failing>,
}

struct Failing {
    since: Duration,
    times: u64,
}

/// A name that was added before.
#[derive(Debug, thiserror::Error)]
#[error("check {0:?} has already been added")]
pub struct DuplicateCheck(pub String);

impl Health {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add(&self, name: &str, check: Arc<dyn Check>) -> Result<(), DuplicateCheck> {
        let mut subsystems = self.subsystems();
        if subsystems.contains_key(name) {
            return Err(DuplicateCheck(name.to_owned()));
        }
        subsystems.insert(name.to_owned(), Subsystem { check, state: None, failing: None });
        Ok(())
    }

    /// Whether everything is live, and the details as `/live` gives them.
    pub fn live(&self) -> (bool, Value) {
        self.summary(|state| (state.live, state.live_details.clone()))
    }

    pub fn ready(&self) -> (bool, Value) {
        self.summary(|state| (state.ready, state.ready_details.clone()))
    }

    /// Asks everybody once.
    pub async fn check_now(&self) {
        let checks: Vec<_> = self
            .subsystems()
            .iter()
            .map(|(name, subsystem)| (name.clone(), subsystem.check.clone()))
            .collect();
        for (name, check) in checks {
            let state = tokio::time::timeout(CHECK_DEADLINE, check.check()).await.unwrap_or_else(|_| {
                State::failed(serde_json::json!({ "check_err": "the check did not answer in time" }))
            });
            if let Some(subsystem) = self.subsystems().get_mut(&name) {
                subsystem.note(&name, state);
            }
        }
    }

    /// Asks every second until all is well once, then every minute. Runs until dropped.
    pub async fn run(self) {
        loop {
            self.check_now().await;
            if self.live().0 && self.ready().0 {
                break;
            }
            tokio::time::sleep(FIRST_INTERVAL).await;
        }
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.check_now().await;
        }
    }

    /// Binds the listener.
    pub async fn listen(&self, config: HealthConfig) -> io::Result<HealthListener> {
        let (listener, address) = web::bind(&config.bind_address, config.bind_port).await?;
        Ok(HealthListener { health: self.clone(), config, listener, address })
    }

    fn summary(&self, of: impl Fn(&State) -> (bool, Value)) -> (bool, Value) {
        let mut all = true;
        let mut details = Map::new();
        for (name, subsystem) in &*self.subsystems() {
            let (good, detail) = subsystem.state.as_ref().map_or((false, Value::Null), &of);
            all &= good;
            details.insert(name.clone(), detail);
        }
        (all, Value::Object(details))
    }

    fn subsystems(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Subsystem>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.subsystems().keys()).finish()
    }
}

impl Subsystem {
    fn note(&mut self, check: &str, state: State) {
        let now = clock::monotonic();
        match (state.error(), &mut self.failing) {
            (Some(error), failing @ None) => {
                tracing::warn!(subsystem_name = "health", check, error, details = %state.ready_details, "Health check failed");
                *failing = Some(Failing { since: now, times: 1 });
            }
            (Some(error), Some(failing)) => {
                failing.times += 1;
                if state.started {
                    tracing::error!(subsystem_name = "health", check, error, "Health check has failed");
                }
            }
            (None, Some(failing)) => {
                let duration = now.saturating_sub(failing.since).as_secs_f64();
                tracing::info!(
                    subsystem_name = "health",
                    check,
                    duration,
                    failures = failing.times,
                    "Health check recovered"
                );
                self.failing = None;
            }
            (None, None) => {}
        }
        self.state = Some(state);
    }
}

/// A bound health endpoint.
#[derive(Debug)]
pub struct HealthListener {
    health: Health,
    config: HealthConfig,
    listener: TcpListener,
    address: SocketAddr,
}

impl HealthListener {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until dropped.
    pub async fn serve(self) {
        let Self { health, config, listener, address } = self;
        tracing::info!(subsystem_name = "health", %address, "Serving health checks");
        let handler = move |path: &str| {
            let (good, details) = if path == config.live_path {
                health.live()
            } else if path == config.ready_path {
                health.ready()
            } else {
                return None;
            };
            let status = if good { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            Some(web::Answer { status, content_type: "application/json", body: format!("{details}\n") })
        };
        web::serve(listener, Arc::new(handler)).await;
    }
}

fn empty() -> Value {
    Value::Object(Map::new())
}

#[cfg(test)]
mod tests;
