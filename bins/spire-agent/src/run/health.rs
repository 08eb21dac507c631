//! The HTTP health check `agent`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use steeple_runtime::health::{Check, Health, State};
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use tokio::sync::oneshot;

use crate::config::Config;

/// Checks begin when the sockets are served, or after eight seconds (SPIRE): an agent that is still attesting is not
/// ready, and need not say so every second. `serving` resolves once they are, or is dropped.
pub async fn listen(
    config: &Config,
    tasks: &TaskGroup,
    serving: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    let Some(wanted) = config.health.clone() else { return Ok(()) };
    let health = Health::new();
    health.add("agent", Arc::new(Agent(workload_socket(config))))?;
    let at = format!("{}:{}", wanted.bind_address, wanted.bind_port);
    let listener =
        health.listen(wanted).await.with_context(|| format!("cannot serve health checks on {at}"))?;
    tasks.spawn_until_shutdown("health checks", OnEnd::Log, async move {
        let _ = tokio::time::timeout(PATIENCE, serving).await;
        health.run().await;
    });
    tasks.spawn_until_shutdown("health listener", OnEnd::Shutdown, listener.serve());
    Ok(())
}

/// Where the Workload API is served; `None` if it is not.
pub fn workload_socket(config: &Config) -> Option<PathBuf> {
    config.socket_path.clone().filter(|_| config.apis.workload)
}

const PATIENCE: Duration = Duration::from_secs(8);

/// Asks the Workload API for bundles; only Unavailable is a failure (SPIRE).
struct Agent(Option<PathBuf>);

#[tonic::async_trait]
impl Check for Agent {
    async fn check(&self) -> State {
        let Some(socket) = &self.0 else { return State::ok() };
        match steeple_agent_api::health::probe(socket).await {
            Ok(()) => State::ok(),
            Err(status) => State {
                started: socket.exists(),
                ..State::failed(json!({ "make_new_x509_err": steeple_runtime::grpc::status_text(&status) }))
            },
        }
    }
}
