//! What the agent goes on with after a restart, before its server has answered.

use std::path::PathBuf;
use std::sync::Arc;

use steeple_agent_api::sealed::{Sealed, SealedConfig, SealingKeyConfig};
use steeple_agent_api::storage::Storage;
use steeple_agent_api::{AgentIdentity, AgentState};
use steeple_runtime::clock::Clock;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_spiffe::SpiffeId;

use crate::config::{Config, KeyManagerConfig};

/// Where state is kept sealed, `None` if it is not, and whose state was taken up.
pub struct Restart {
    sealed: Option<Arc<Sealed>>,
    /// The agent that the state was kept for, if there was any.
    pub restored: Option<SpiffeId>,
}

/// Takes up what was kept for the agent whose SVID `storage` has, also one that expired: it says which agent this is. An
/// agent that keeps its key in memory alone has to attest anew, and its workloads go on meanwhile.
pub async fn restore(
    config: &Config,
    storage: &Storage,
    state: &Arc<AgentState>,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Restart> {
    let config = SealedConfig {
        data_dir: config.data_dir.clone(),
        trust_domain: config.trust_domain.clone(),
        key: SealingKeyConfig {
            mode: config.sealed_state,
            path: config.sealed_state_key_path.clone(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            file_allowed: !matches!(config.key_manager, KeyManagerConfig::Memory),
        },
    };
    let (storage, state, clock) = (storage.clone(), state.clone(), clock.clone());
    let restored = tokio::task::spawn_blocking(move || -> anyhow::Result<Restart> {
        let Some(sealed) = Sealed::open(config, clock)? else {
            return Ok(Restart { sealed: None, restored: None });
        };
        // A damaged file is reported by the attestation, which reads it again.
        let stored = storage.load().ok();
        let agent = stored.and_then(|data| data.svid.first()?.spiffe_id().ok());
        let restored = sealed.restore(&state, agent.as_ref());
        Ok(Restart { sealed: Some(sealed), restored: agent.filter(|_| restored.is_some()) })
    });
    restored.await?
}

impl Restart {
    /// Keeps the state from now on.
    pub fn keep(&self, tasks: &TaskGroup, state: &Arc<AgentState>, identity: &Arc<AgentIdentity>) {
        let Some(sealed) = self.sealed.clone() else { return };
        let forget = (sealed.clone(), tasks.clone());
        identity.when_forfeited(Box::new(move || {
            let (sealed, tasks) = forget.clone();
            tasks.spawn("forgetting sealed state", OnEnd::Log, async move {
                tokio::task::spawn_blocking(move || sealed.forget()).await
            });
        }));
        let (state, identity) = (state.clone(), identity.clone());
        let agent = move || identity.spiffe_id();
        tasks.spawn("sealed state", OnEnd::Log, sealed.run(state, agent, tasks.shutdown().requested()));
    }
}
