//! The SPIFFE IDs of agents and parents, and what hangs on them. Most IDs, those of leaves, have no node.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use steeple_spiffe::SpiffeId;

use super::{Few, Slab};

#[derive(Debug)]
pub(super) struct Node {
    pub id: SpiffeId,
    /// Workload entries whose parent this is.
    pub children: Few,
    pub agent: Option<u32>,
    /// Entries of any role whose parent this is.
    pub uses: u32,
}

#[derive(Debug, Default)]
pub(super) struct Nodes {
    slab: Slab<Node>,
    by_id: HashTable<u32>,
    hasher: RandomState,
}

impl Nodes {
    pub fn find(&self, id: &SpiffeId) -> Option<u32> {
        let same = |at: &u32| self.slab.get(*at).id == *id;
        self.by_id.find(self.hasher.hash_one(id), same).copied()
    }

    /// The node of an ID, made if need be. It stays while something hangs on it.
    pub fn intern(&mut self, id: &SpiffeId) -> u32 {
        if let Some(at) = self.find(id) {
            return at;
        }
        let at = self.slab.add(Node { id: id.clone(), children: Few::None, agent: None, uses: 0 });
        let (nodes, hasher) = (&self.slab, &self.hasher);
        self.by_id.insert_unique(hasher.hash_one(id), at, |at| hasher.hash_one(&nodes.get(*at).id));
        at
    }

    pub fn get(&self, at: u32) -> &Node {
        self.slab.get(at)
    }

    pub fn get_mut(&mut self, at: u32) -> &mut Node {
        self.slab.get_mut(at)
    }

    pub fn drop_if_unused(&mut self, at: u32) {
        let Some(node) = self.slab.find(at) else { return };
        if node.uses > 0 || node.agent.is_some() {
            return;
        }
        let hash = self.hasher.hash_one(&node.id);
        if let Ok(found) = self.by_id.find_entry(hash, |other| *other == at) {
            found.remove();
        }
        self.slab.remove(at);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
}
