//! `run`: from the configuration to the exit code. What stands between is the same for server and agent: the log, the
//! runtime, signals, the drain.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use steeple_runtime::logs::{self, LogConfig, LogHandle};
use steeple_runtime::shutdown::{LEFTOVERS, Shutdown};
use steeple_runtime::signals::Signals;
use steeple_runtime::tasks::{Drained, OnEnd, TaskGroup};

use crate::settings::LoadError;
use crate::{Failure, Io};

/// What tells one daemon from the other.
pub struct Daemon {
    /// `server`
    pub name: &'static str,
    /// The same at the beginning of a line: `Server`.
    pub title: &'static str,
    /// As many threads as cores if not given.
    pub workers: Option<usize>,
    /// How long tasks may take to end.
    pub drain: Duration,
}

impl Daemon {
    /// Runs until a signal, or until something that it cannot do without breaks. `prepare` stands before there is a
    /// log on disk to look at: what fails there is printed. `build` binds and spawns. Answers the exit code.
    pub fn run<C, B, E, F>(
        &self,
        config: Result<C, LoadError>,
        log: impl FnOnce(&C) -> LogConfig,
        prepare: impl FnOnce(&C) -> Result<(), E>,
        build: impl FnOnce(C, LogHandle, TaskGroup) -> F,
    ) -> u8
    where
        E: fmt::Display,
        F: Future<Output = Result<B, E>>,
    {
        steeple_runtime::keep_memory_private();
        let (config, logs) = match Self::start(config, log, prepare) {
            Ok(started) => started,
            Err(why) => {
                Io::process().eprint(&why);
                return 1;
            }
        };
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(workers) = self.workers {
            runtime.worker_threads(workers);
        }
        let runtime = runtime.enable_all().thread_name(format!("spire-{}", self.name)).build();
        let outcome = match runtime {
            Ok(runtime) => {
                let outcome = runtime.block_on(self.serve(config, logs, build));
                runtime.shutdown_timeout(LEFTOVERS);
                outcome
            }
            Err(e) => Err(e.into()),
        };
        match outcome {
            Ok(()) => {
                tracing::info!(subsystem_name = "catalog", "Catalog closed");
                tracing::info!("{} stopped gracefully", self.title);
                0
            }
            Err(e) => {
                tracing::error!(error = %e, "{} crashed", self.title);
                1
            }
        }
    }

    fn start<C, E: fmt::Display>(
        config: Result<C, LoadError>,
        log: impl FnOnce(&C) -> LogConfig,
        prepare: impl FnOnce(&C) -> Result<(), E>,
    ) -> Result<(C, LogHandle), String> {
        let config = config.map_err(|e| match e {
            LoadError::Flags(e) => e.output(),
            e => format!("{e}\n"),
        })?;
        let logs = logs::init(log(&config)).map_err(|e| format!("could not start logger: {e}\n"))?;
        prepare(&config).map_err(|e| format!("{e:#}\n"))?;
        steeple_runtime::tighten_umask();
        steeple_runtime::install_crypto_provider();
        Ok((config, logs))
    }

    async fn serve<C, B, E, F>(
        &self,
        config: C,
        logs: LogHandle,
        build: impl FnOnce(C, LogHandle, TaskGroup) -> F,
    ) -> Result<(), Failure>
    where
        E: fmt::Display,
        F: Future<Output = Result<B, E>>,
    {
        let shutdown = Shutdown::new();
        let signals =
            Signals::install().map_err(|e| Failure::new(format!("cannot listen for signals: {e}")))?;
        let tasks = TaskGroup::new(shutdown.clone());
        tasks.spawn_through_drain("signals", OnEnd::Log, signals.run(shutdown.clone(), logs.clone()));
        // Held until the end: what it holds is what the tasks work on.
        let _bound = tokio::select! {
            biased;
            // Stopped while it starts.
            () = shutdown.requested() => return outcome(&shutdown),
            bound = build(config, logs, tasks.clone()) => {
                bound.map_err(|e| Failure::new(format!("{e:#}")))?
            }
        };
        self.until_stopped(&tasks).await
    }

    /// Until a stop is asked for; then drains.
    pub async fn until_stopped(&self, tasks: &TaskGroup) -> Result<(), Failure> {
        let shutdown = tasks.shutdown();
        shutdown.requested().await;
        tracing::info!(reason = shutdown.reason().as_deref().unwrap_or_default(), "Stopping {}", self.name);
        if let Drained::Aborted(names) = tasks.clone().drain(self.drain).await {
            tracing::warn!(tasks = names.join(","), "Some tasks did not end in time");
        }
        outcome(shutdown)
    }
}

/// A stop because something broke is a failure.
fn outcome(shutdown: &Shutdown) -> Result<(), Failure> {
    if shutdown.has_failed() {
        return Err(Failure::new(shutdown.reason().as_deref().unwrap_or("a task failed")));
    }
    Ok(())
}
