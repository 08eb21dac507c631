//! Agents by number.

use std::sync::Arc;

use steeple_datastore::model::Agent;

use super::Few;

#[derive(Debug)]
pub(super) struct AgentSlot {
    pub node: u32,
    /// `None` while somebody tracks an agent that has not attested.
    pub model: Option<Arc<Agent>>,
    /// Sorted.
    pub selectors: Box<[u32]>,
    /// Somebody wants to hear of its changes.
    pub tracked: bool,
    /// Aliases that it matches; only while tracked.
    pub aliases: Few,
}

impl AgentSlot {
    pub fn new(node: u32) -> Self {
        Self { node, model: None, selectors: Box::default(), tracked: false, aliases: Few::None }
    }
}
