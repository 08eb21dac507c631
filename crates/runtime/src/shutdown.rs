//! Two-level stop: the first request drains with a deadline, the second aborts. See [`crate::signals`] for who asks.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::watch;

/// How long a drain may take before it is cut short. SPIRE bounds its graceful stop the same.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long blocking work that nobody waits for any more (of a start cut short) may still hold the process:
/// for `Runtime::shutdown_timeout`.
pub const LEFTOVERS: Duration = Duration::from_secs(1);

/// Whether the program is to stop, and why. Clones are the same switch.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Sender<State>);

#[derive(Debug, Clone, Default)]
struct State {
    stage: Stage,
    reason: Option<Arc<str>>,
    failed: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    #[default]
    Running,
    Draining,
    Aborting,
}

impl Shutdown {
    pub fn new() -> Self {
        Self(watch::Sender::new(State::default()))
    }

    /// Asks for a drain. A later call changes nothing; see [`abort`](Self::abort).
    pub fn request(&self, reason: impl Into<String>) {
        self.advance(Stage::Draining, reason.into(), false);
    }

    /// Asks for a drain because something broke: the program exits non-zero.
    pub fn fail(&self, reason: impl Into<String>) {
        self.advance(Stage::Draining, reason.into(), true);
    }

    /// Gives up draining.
    pub fn abort(&self, reason: impl Into<String>) {
        self.advance(Stage::Aborting, reason.into(), false);
    }

    /// Resolves once a stop is asked for.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + 'static {
        self.reached(Stage::Draining)
    }

    /// Resolves once a drain is to be cut short.
    pub fn aborted(&self) -> impl Future<Output = ()> + Send + 'static {
        self.reached(Stage::Aborting)
    }

    pub fn is_requested(&self) -> bool {
        self.0.borrow().stage >= Stage::Draining
    }

    /// The first reason given.
    pub fn reason(&self) -> Option<Arc<str>> {
        self.0.borrow().reason.clone()
    }

    /// Whether the program stops because something broke.
    pub fn has_failed(&self) -> bool {
        self.0.borrow().failed
    }

    fn advance(&self, stage: Stage, reason: String, failed: bool) {
        self.0.send_if_modified(|state| {
            state.failed |= failed;
            if state.stage >= stage {
                return false;
            }
            state.stage = stage;
            state.reason.get_or_insert_with(|| reason.into());
            true
        });
    }

    fn reached(&self, stage: Stage) -> impl Future<Output = ()> + Send + 'static {
        // The future holds a sender too, so the channel outlives it.
        let this = self.clone();
        async move {
            let mut states = this.0.subscribe();
            let _ = states.wait_for(|state| state.stage >= stage).await;
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_levels() {
        let shutdown = Shutdown::new();
        assert!(!shutdown.is_requested());
        let waiting = shutdown.requested();
        shutdown.clone().request("first");
        waiting.await;
        shutdown.requested().await;
        shutdown.fail("second");
        assert_eq!(shutdown.reason().as_deref(), Some("first"));
        assert!(shutdown.has_failed());
        let aborted = shutdown.aborted();
        shutdown.abort("enough");
        aborted.await;
    }
}
