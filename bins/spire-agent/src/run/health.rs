//! The HTTP health check `agent`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use steeple_agent_api::identity::{Stand, advice};
use steeple_agent_core::node::Standing;
use steeple_runtime::health::{Check, Health, State};
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use tokio::sync::{oneshot, watch};

use crate::config::Config;

/// Checks begin when the sockets are served, or after eight seconds (SPIRE): an agent that is still attesting is not
/// ready, and need not say so every second. `serving` resolves once they are, or is dropped.
pub async fn listen(
    config: &Config,
    tasks: &TaskGroup,
    serving: oneshot::Receiver<()>,
    standings: watch::Receiver<Stand>,
) -> anyhow::Result<()> {
    let Some(wanted) = config.health.clone() else { return Ok(()) };
    let (health, changes) = (Health::new(), standings.clone());
    health.add("agent", Arc::new(Agent { socket: workload_socket(config), standings }))?;
    let at = format!("{}:{}", wanted.bind_address, wanted.bind_port);
    let listener =
        health.listen(wanted).await.with_context(|| format!("cannot serve health checks on {at}"))?;
    tasks.spawn_until_shutdown("health checks", OnEnd::Log, async move {
        let _ = tokio::time::timeout(PATIENCE, serving).await;
        tokio::join!(health.clone().run(), keep_up(&health, changes));
    });
    tasks.spawn_until_shutdown("health listener", OnEnd::Shutdown, listener.serve());
    Ok(())
}

/// Has everything checked whenever the agent's state changes: nobody waits for the next minute to hear of a ban.
async fn keep_up(health: &Health, mut standings: watch::Receiver<Stand>) {
    let mut last = standings.borrow_and_update().standing;
    while standings.changed().await.is_ok() {
        let now = standings.borrow_and_update().standing;
        if std::mem::replace(&mut last, now) != now {
            health.check_now().await;
        }
    }
}

/// Where the Workload API is served; `None` if it is not.
pub fn workload_socket(config: &Config) -> Option<PathBuf> {
    config.socket_path.clone().filter(|_| config.apis.workload)
}

const PATIENCE: Duration = Duration::from_secs(8);

/// Asks the Workload API for bundles; only Unavailable is a failure (SPIRE). Where SPIRE's agent would have exited, ours
/// is not ready, and says what it waits for; it is live, for restarting it would not help.
struct Agent {
    socket: Option<PathBuf>,
    standings: watch::Receiver<Stand>,
}

#[tonic::async_trait]
impl Check for Agent {
    async fn check(&self) -> State {
        let stand = self.standings.borrow().clone();
        let state = match &self.socket {
            None => State::ok(),
            Some(socket) => match steeple_agent_api::health::probe(socket).await {
                Ok(()) => State::ok(),
                Err(status) => State {
                    started: socket.exists(),
                    ..State::failed(
                        json!({ "make_new_x509_err": steeple_runtime::grpc::status_text(&status) }),
                    )
                },
            },
        };
        with_standing(state, &stand)
    }
}

fn with_standing(mut state: State, stand: &Stand) -> State {
    if stand.standing == Standing::Ready {
        return state;
    }
    state.ready &= !stand.standing.is_cut_off();
    // Its sockets are not there yet, and a restart would not bring them.
    state.live |= !state.started;
    let since = jiff::Timestamp::from_second(stand.since).unwrap_or_default().to_string();
    for details in [&mut state.live_details, &mut state.ready_details] {
        if let Some(details) = details.as_object_mut() {
            details.insert("state".to_owned(), stand.standing.name().into());
            details.insert("since".to_owned(), since.clone().into());
            details.insert("advice".to_owned(), advice(stand.standing).into());
            if !stand.reason.is_empty() {
                details.insert("reason".to_owned(), stand.reason.clone().into());
            }
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_cut_off_is_live_and_not_ready_and_says_why() {
        let stand =
            |standing, reason: &str| Stand { standing, reason: reason.into(), since: 0, may_talk: false };
        let well = with_standing(State::ok(), &stand(Standing::Ready, ""));
        assert_eq!(well, State::ok());
        let banned = with_standing(State::ok(), &stand(Standing::Banned, "agent is banned"));
        assert!(banned.live && !banned.ready);
        assert_eq!(banned.ready_details["state"], "banned");
        assert_eq!(banned.ready_details["reason"], "agent is banned");
        assert_eq!(banned.ready_details["since"], "1970-01-01T00:00:00Z");
        assert!(with_standing(State::ok(), &stand(Standing::Reattesting, "")).ready);
    }
}
