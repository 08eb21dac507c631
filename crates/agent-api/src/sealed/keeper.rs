//! When what is written. One task; the disk is waited for off the runtime's threads.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use steeple_agent_core::snapshot::{Increment, Tracker};
use steeple_runtime::clock;
use steeple_spiffe::SpiffeId;

use super::file::Writer;
use super::{Sealed, record, remove_all, temporary};
use crate::state::AgentState;

/// What changes within this time is written at once.
const GATHER: Duration = Duration::from_millis(100);
/// After a write, at least: with [`GATHER`], a change is on disk within a second.
const PAUSE: Duration = Duration::from_millis(400);
/// And this many times as long as the write took.
const SHARE: u32 = 20;
/// After a write that failed, doubled up to [`MAX_RETRY`].
const RETRY: Duration = Duration::from_secs(2);
const MAX_RETRY: Duration = Duration::from_mins(1);
/// Keyrings forget what nobody asks for.
const REFRESH: Duration = Duration::from_hours(1);
/// A file is not written anew for less than this.
const SMALL: u64 = 256 * 1024;

/// What is on disk.
#[derive(Default)]
pub(super) struct Keeper {
    tracker: Tracker,
    output: Option<Output>,
    failures: u32,
}

struct Output {
    writer: Writer,
    /// Whose state it is.
    agent: SpiffeId,
    /// Bytes when it was written anew.
    base: u64,
}

impl Output {
    /// What was appended outgrew the rest: written anew, it would be half the size at least.
    fn is_overgrown(&self) -> bool {
        self.writer.written - self.base > self.base.max(SMALL)
    }
}

impl Sealed {
    /// Keeps the file up with `state`, for whoever `agent` says it is, until `stop`; then once more. An agent that has no
    /// SVID of its own keeps what is there as it is.
    pub async fn run(
        self: Arc<Self>,
        state: Arc<AgentState>,
        agent: impl Fn() -> Option<SpiffeId>,
        stop: impl Future<Output = ()>,
    ) {
        let mut refresh = tokio::time::interval(REFRESH);
        let mut pause = Duration::ZERO;
        let work = async {
            loop {
                tokio::select! {
                    _ = refresh.tick() => {
                        self.clone().refresh().await;
                        continue;
                    }
                    () = state.changed.notified() => {}
                }
                tokio::time::sleep(GATHER).await;
                if !self.clone().keep(&state, agent(), &mut pause).await {
                    state.changed.notify_one();
                }
                tokio::time::sleep(pause).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop => {}
        }
        self.clone().keep(&state, agent(), &mut pause).await;
    }

    /// Writes what changed. False if that failed; `pause` is how long to leave the disk alone.
    async fn keep(
        self: Arc<Self>,
        state: &Arc<AgentState>,
        agent: Option<SpiffeId>,
        pause: &mut Duration,
    ) -> bool {
        *pause = PAUSE;
        let Some(agent) = agent else { return true };
        let state = state.clone();
        let write = tokio::task::spawn_blocking(move || self.write(&state, &agent));
        match write.await {
            Ok(Ok(took)) => {
                *pause = PAUSE.max(took * SHARE);
                true
            }
            Ok(Err(retry)) => {
                *pause = retry;
                false
            }
            // It is stopping.
            Err(_) => true,
        }
    }

    /// How long it took, or how long to wait before the next try.
    pub(super) fn write(&self, state: &AgentState, agent: &SpiffeId) -> Result<Duration, Duration> {
        let started = clock::monotonic();
        let mut keeper = self.keeper();
        let failures = keeper.failures;
        match self.write_changes(&mut keeper, state, agent) {
            Ok(None) => Ok(Duration::ZERO),
            Ok(Some(bytes)) => {
                if failures > 0 {
                    tracing::info!(subsystem_name = "sealed_state", failures, "Agent state is written again");
                }
                keeper.failures = 0;
                metrics::counter!("sealed_state_writes", "status" => "OK").increment(1);
                metrics::gauge!("sealed_state_bytes").set(bytes as f64);
                let (x509_svids, jwt_svids) = keeper.tracker.svid_counts();
                tracing::debug!(
                    subsystem_name = "sealed_state",
                    bytes,
                    x509_svids,
                    jwt_svids,
                    "Agent state written"
                );
                Ok(clock::monotonic().saturating_sub(started))
            }
            Err(error) => {
                // Neither the file nor what is known to be in it can be relied on.
                *keeper = Keeper { failures: failures.saturating_add(1), ..Keeper::default() };
                let _ = std::fs::remove_file(temporary(&self.path));
                metrics::counter!("sealed_state_writes", "status" => "failed").increment(1);
                let retry = (RETRY * (1 << failures.min(8))).min(MAX_RETRY);
                if failures == 0 {
                    tracing::error!(
                        subsystem_name = "sealed_state",
                        path = %self.path.display(),
                        error = %error,
                        "Agent state cannot be written: workloads are served, but would have to wait for the server after a restart; tried again until it can"
                    );
                }
                Err(retry)
            }
        }
    }

    /// The size of the file, or `None` if nothing changed.
    fn write_changes(
        &self,
        keeper: &mut Keeper,
        state: &AgentState,
        agent: &SpiffeId,
    ) -> io::Result<Option<u64>> {
        if state.view().entry_count() == 0 {
            if keeper.output.is_some() || self.path.exists() {
                *keeper = Keeper::default();
                remove_all(&self.path);
            }
            return Ok(None);
        }
        if keeper.output.as_ref().is_some_and(|output| output.agent != *agent || output.is_overgrown()) {
            keeper.output = None;
            keeper.tracker = Tracker::default();
        }
        let mut increment = Increment::default();
        keeper.tracker.view(&state.view(), &mut increment);
        keeper.tracker.cache(&state.cache(), &mut increment);
        keeper.tracker.jwt(&state.jwt(), &mut increment);
        if let Some(output) = &mut keeper.output {
            if increment.is_empty() {
                return Ok(None);
            }
            record::encode(&increment, false, |frame| output.writer.append(frame))?;
            output.writer.sync()?;
            return Ok(Some(output.writer.written));
        }
        let temporary = temporary(&self.path);
        let mut writer = {
            let key = self.key();
            Writer::create(&temporary, key.secret(), &self.header(&key, agent))?
        };
        record::encode(&increment, true, |frame| writer.append(frame))?;
        writer.publish(&temporary, &self.path)?;
        let base = writer.written;
        keeper.output = Some(Output { writer, agent: agent.clone(), base });
        Ok(Some(base))
    }

    async fn refresh(self: Arc<Self>) {
        let refreshed = tokio::task::spawn_blocking(move || self.key().refresh()).await;
        if let Ok(Err(error)) = refreshed {
            tracing::warn!(subsystem_name = "sealed_state", error = %error, "The sealing key could not be kept alive");
        }
    }
}
