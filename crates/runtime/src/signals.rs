//! What the operator's signals do, the same in every program here.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{logs::LogHandle, shutdown::Shutdown};

/// SIGINT and SIGTERM stop the program, SIGUSR1 would reload plugins, SIGUSR2 reopens the log file (spire.md §1). From
/// [`install`](Self::install) on none of them ends the process by itself.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reload: Signal,
    reopen: Signal,
}

impl Signals {
    /// Installs the handlers. Call it before anything that takes time: the default of all four is to kill. What comes
    /// before [`run`](Self::run) is answered there.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            reload: signal(SignalKind::user_defined1())?,
            reopen: signal(SignalKind::user_defined2())?,
        })
    }

    /// Answers signals until the second that asks for a stop: the first drains, the second aborts. It has to run while
    /// the program starts and while it drains: [`TaskGroup::spawn_through_drain`](crate::tasks::TaskGroup::spawn_through_drain).
    pub async fn run(mut self, shutdown: Shutdown, logs: LogHandle) {
        loop {
            let stop = tokio::select! {
                _ = self.interrupt.recv() => "interrupt",
                _ = self.terminate.recv() => "terminated",
                _ = self.reload.recv() => {
                    nothing_to_reload();
                    continue;
                }
                _ = self.reopen.recv() => {
                    reopen(&logs);
                    continue;
                }
            };
            if shutdown.is_requested() {
                shutdown.abort(format!("received signal {stop} again"));
                return;
            }
            shutdown.request(format!("received signal {stop}"));
        }
    }
}

// SPIRE reads each plugin_data_file again; no plugin of ours takes one.
fn nothing_to_reload() {
    tracing::warn!(
        subsystem_name = "reconfigurer",
        "SIGUSR1: nothing to reload, no plugin has a plugin_data_file; restart to change the configuration"
    );
}

fn reopen(logs: &LogHandle) {
    if !logs.has_file() {
        tracing::debug!("SIGUSR2: nothing to reopen, log_file is not set");
        return;
    }
    match logs.reopen() {
        Ok(()) => tracing::info!("Reopened log file"),
        Err(e) => tracing::error!(error = %e, "Failed to rotate log after signal"),
    }
}

#[cfg(test)]
mod tests;
