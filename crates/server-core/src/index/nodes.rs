//! SPIFFE IDs, each once, and what hangs on them.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use steeple_spiffe::SpiffeId;

use super::Few;

#[derive(Debug)]
pub(super) struct Node {
    pub id: SpiffeId,
    /// Workload entries whose parent this is.
    pub children: Few,
    /// Entries of any role whose SPIFFE ID this is.
    pub identities: Few,
    pub agent: Option<u32>,
    /// Entries of any role whose parent this is.
    pub uses: u32,
}

#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: Vec<Option<Node>>,
    free: Vec<u32>,
    by_id: HashTable<u32>,
    hasher: RandomState,
}

impl Nodes {
    pub fn find(&self, id: &SpiffeId) -> Option<u32> {
        let same = |at: &u32| self.nodes[*at as usize].as_ref().is_some_and(|node| node.id == *id);
        self.by_id.find(self.hasher.hash_one(id), same).copied()
    }

    /// The node of an ID, made if need be. It stays while something hangs on it.
    pub fn intern(&mut self, id: &SpiffeId) -> u32 {
        if let Some(at) = self.find(id) {
            return at;
        }
        let node = Node { id: id.clone(), children: Few::None, identities: Few::None, agent: None, uses: 0 };
        let at = if let Some(at) = self.free.pop() {
            self.nodes[at as usize] = Some(node);
            at
        } else {
            self.nodes.push(Some(node));
            (self.nodes.len() - 1) as u32
        };
        let (nodes, hasher) = (&self.nodes, &self.hasher);
        self.by_id.insert_unique(hasher.hash_one(id), at, |at| {
            nodes[*at as usize].as_ref().map_or(0, |node| hasher.hash_one(&node.id))
        });
        at
    }

    /// Numbers come from this table and stay valid while something hangs on the node.
    pub fn get(&self, at: u32) -> &Node {
        match &self.nodes[at as usize] {
            Some(node) => node,
            None => unreachable!("node {at} is used and was dropped"),
        }
    }

    pub fn get_mut(&mut self, at: u32) -> &mut Node {
        match &mut self.nodes[at as usize] {
            Some(node) => node,
            None => unreachable!("node {at} is used and was dropped"),
        }
    }

    pub fn has_children(&self, at: u32) -> bool {
        !self.get(at).children.is_empty()
    }

    pub fn drop_if_unused(&mut self, at: u32) {
        let Some(node) = &self.nodes[at as usize] else { return };
        let used =
            node.uses > 0 || node.agent.is_some() || !node.identities.is_empty() || !node.children.is_empty();
        if used {
            return;
        }
        let hash = self.hasher.hash_one(&node.id);
        if let Ok(found) = self.by_id.find_entry(hash, |other| *other == at) {
            found.remove();
        }
        self.nodes[at as usize] = None;
        self.free.push(at);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
}
