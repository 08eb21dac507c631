//! What the services share.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use steeple_datastore::Datastore;
use steeple_plugin::ServerNodeAttestor;
use steeple_runtime::clock::Clock;
use steeple_runtime::logs::LogHandle;
use steeple_runtime::tasks::TaskGroup;
use steeple_server_core::ca::CaManager;
use steeple_server_core::federation::Federation;
use steeple_server_core::view::View;
use steeple_spiffe::{Certificate, SpiffeId, TrustDomain};

use crate::limits::Limits;

/// The chain the TCP endpoint serves now, leaf first.
pub type ServerChain = Arc<dyn Fn() -> Arc<Vec<Certificate>> + Send + Sync>;

/// Built once by the binary, shared by every service as an `Arc`.
pub struct ServerState {
    pub trust_domain: TrustDomain,
    pub store: Arc<dyn Datastore>,
    pub view: Arc<View>,
    pub ca: Arc<CaManager>,
    /// Relationships with other trust domains.
    pub federation: Federation,
    pub clock: Arc<dyn Clock>,
    /// Where streams run.
    pub tasks: TaskGroup,
    /// What the Logger service turns.
    pub logs: LogHandle,
    /// For Debug's SVID chain.
    pub server_chain: ServerChain,
    /// `admin_ids`; may be of foreign trust domains.
    pub admin_ids: HashSet<SpiffeId>,
    /// By name. join_token needs none: the service does it itself, as in SPIRE, if `join_token` is set.
    pub attestors: HashMap<String, Arc<dyn ServerNodeAttestor>>,
    /// Whether the join_token attestor is configured.
    pub join_token: bool,
    /// `experimental.agent_spiffe_id_as_selector`: agents have the selector `spiffe_id:<their ID>` too.
    pub agent_id_selector: bool,
    pub limits: Limits,
    /// `audit_log_enabled`
    pub audit: bool,
    /// `disable_jwt_svids`
    pub jwt_disabled: bool,
    /// `experimental.explain_to_agents`
    pub explain_to_agents: bool,
    /// `clock.monotonic()` at start, for Debug's uptime.
    pub started: Duration,
}

/// How long a read waits for the view to catch up with what this server wrote. It follows within microseconds; a
/// view that is this late is broken, and a slightly old answer is better than none.
const CATCH_UP: Duration = Duration::from_secs(2);

impl ServerState {
    /// Waits until the view holds every write this server has acknowledged.
    pub async fn fresh(&self) {
        let head = *self.store.watch_head().borrow();
        if self.view.revision() >= head {
            return;
        }
        if tokio::time::timeout(CATCH_UP, self.view.wait_for(head)).await.is_err() {
            tracing::warn!(
                subsystem_name = "endpoints",
                revision = head.0,
                "The view of entries and agents lags behind"
            );
        }
    }
}

impl fmt::Debug for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerState").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}
