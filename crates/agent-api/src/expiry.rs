//! SVIDs that nobody replaced in time are taken from their workloads when they end, server or not.

use std::sync::Arc;
use std::time::Duration;

use crate::state::AgentState;

/// Looked at again at least this often: an SVID may come that ends sooner, and the clock may be turned.
const LOOK: Duration = Duration::from_secs(5);
const LEAST: Duration = Duration::from_millis(50);

/// Runs until it is dropped.
pub async fn run(state: Arc<AgentState>) {
    loop {
        let now = state.now();
        let before = state.cache().svid_count();
        let next = state.cache().expire(now);
        if state.cache().svid_count() < before {
            state.work.notify_one();
            state.changed.notify_one();
        }
        let left = next.map_or(LOOK, |next| Duration::from_millis(next.saturating_sub(now).max(0) as u64));
        tokio::time::sleep(left.clamp(LEAST, LOOK)).await;
    }
}
