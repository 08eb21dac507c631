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

#[derive(Debug, Default)]
pub(super) struct Agents {
    slots: Vec<Option<AgentSlot>>,
    free: Vec<u32>,
}

impl Agents {
    pub fn add(&mut self, node: u32) -> u32 {
        let slot =
            AgentSlot { node, model: None, selectors: Box::default(), tracked: false, aliases: Few::None };
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = Some(slot);
            return at;
        }
        self.slots.push(Some(slot));
        (self.slots.len() - 1) as u32
    }

    /// Numbers come from this table and stay valid until [`Self::remove`].
    pub fn get(&self, at: u32) -> &AgentSlot {
        match &self.slots[at as usize] {
            Some(agent) => agent,
            None => unreachable!("agent {at} was removed"),
        }
    }

    pub fn get_mut(&mut self, at: u32) -> &mut AgentSlot {
        match &mut self.slots[at as usize] {
            Some(agent) => agent,
            None => unreachable!("agent {at} was removed"),
        }
    }

    pub fn remove(&mut self, at: u32) {
        self.slots[at as usize] = None;
        self.free.push(at);
    }

    pub fn iter(&self) -> impl Iterator<Item = &AgentSlot> {
        self.slots.iter().flatten()
    }
}
