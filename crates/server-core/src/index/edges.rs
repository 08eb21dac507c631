//! Entries by number, found by their id and by the identity they give.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hashbrown::HashTable;
use steeple_datastore::model::Entry;
use steeple_spiffe::SpiffeId;

use super::Slab;

/// What an entry is in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Workload,
    Alias,
    /// Of another trust domain: found by id, reached by nobody.
    Foreign,
}

#[derive(Debug)]
pub(super) struct Edge {
    pub entry: Arc<Entry>,
    /// Node of the entry's parent.
    pub parent: u32,
    pub role: Role,
    /// Entries of one SPIFFE ID are a list; [`END`] at either end.
    previous: u32,
    next: u32,
}

const END: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct Edges {
    slab: Slab<Edge>,
    by_id: HashTable<u32>,
    /// The first entry of each SPIFFE ID.
    by_identity: HashTable<u32>,
    hasher: RandomState,
}

impl Edges {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Edge> {
        self.slab.iter()
    }

    pub fn find(&self, at: u32) -> Option<&Edge> {
        self.slab.find(at)
    }

    pub fn find_id(&self, id: &str) -> Option<u32> {
        self.by_id.find(self.hasher.hash_one(id), |at| self.slab.get(*at).entry.id == id).copied()
    }

    /// Entries that give this identity.
    pub fn with_identity(&self, id: &SpiffeId) -> impl Iterator<Item = (u32, &Edge)> {
        let mut at = self.first_with(id).unwrap_or(END);
        std::iter::from_fn(move || {
            let edge = self.slab.find(at)?;
            let found = (at, edge);
            at = edge.next;
            Some(found)
        })
    }

    fn first_with(&self, id: &SpiffeId) -> Option<u32> {
        self.by_identity
            .find(self.hasher.hash_one(id), |at| self.slab.get(*at).entry.spiffe_id == *id)
            .copied()
    }

    /// The id must not be there yet.
    pub fn add(&mut self, entry: Arc<Entry>, parent: u32, role: Role) -> u32 {
        let id_hash = self.hasher.hash_one(&entry.id);
        let identity_hash = self.hasher.hash_one(&entry.spiffe_id);
        let first = self.first_with(&entry.spiffe_id);
        let at = self.slab.add(Edge { entry, parent, role, previous: END, next: first.unwrap_or(END) });
        let (edges, hasher) = (&self.slab, &self.hasher);
        self.by_id.insert_unique(id_hash, at, |at| hasher.hash_one(&edges.get(*at).entry.id));
        if let Some(first) = first {
            self.slab.get_mut(first).previous = at;
            self.move_head(identity_hash, first, at);
        } else {
            self.by_identity
                .insert_unique(identity_hash, at, |at| hasher.hash_one(&edges.get(*at).entry.spiffe_id));
        }
        at
    }

    pub fn remove(&mut self, at: u32) -> Option<Edge> {
        let edge = self.slab.find(at)?;
        let (id_hash, identity_hash) =
            (self.hasher.hash_one(&edge.entry.id), self.hasher.hash_one(&edge.entry.spiffe_id));
        let (previous, next) = (edge.previous, edge.next);
        if let Ok(found) = self.by_id.find_entry(id_hash, |other| *other == at) {
            found.remove();
        }
        if let Some(after) = self.slab.find_mut(next) {
            after.previous = previous;
        }
        match self.slab.find_mut(previous) {
            Some(before) => before.next = next,
            None if next == END => {
                if let Ok(found) = self.by_identity.find_entry(identity_hash, |other| *other == at) {
                    found.remove();
                }
            }
            None => self.move_head(identity_hash, at, next),
        }
        self.slab.remove(at)
    }

    fn move_head(&mut self, hash: u64, from: u32, to: u32) {
        if let Some(head) = self.by_identity.find_mut(hash, |other| *other == from) {
            *head = to;
        }
    }

    /// Same id, parent and SPIFFE ID; other contents.
    pub fn replace(&mut self, at: u32, entry: Arc<Entry>) {
        self.slab.get_mut(at).entry = entry;
    }
}
