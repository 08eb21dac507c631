//! Which entries an agent may have, kept up to date entry by entry (DESIGN §3.5).
//!
//! SPIRE's rules: an agent may have the entries whose parent is its own ID or one of its aliases, and, all the way
//! down, those whose parent is the SPIFFE ID of an entry it may have. An entry whose parent is
//! `spiffe://<trust domain>/spire/server` is no workload but an alias: agents that have all of its selectors go by
//! its SPIFFE ID too. Cycles end; entries of a foreign trust domain belong to nobody. Expired entries stay until
//! they are pruned, as in SPIRE.
//!
//! IDs are nodes of a graph, entries its edges from parent to SPIFFE ID. Reads walk down from the agent; a change
//! walks up from the entry, so that it touches only agents that reach it. Changes are reported for *tracked* agents
//! (those that listen here).

mod agents;
mod change;
mod deltas;
mod edges;
mod few;
mod lineage;
mod nodes;
mod selectors;
mod slab;
mod walk;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use steeple_datastore::model::{Agent, Entry};
use steeple_spiffe::{SpiffeId, TrustDomain};

use agents::AgentSlot;
use deltas::Ops;
use edges::{Edges, Role};
use few::Few;
use nodes::Nodes;
use selectors::Selectors;
use slab::Slab;
use walk::Up;

pub use deltas::{AgentDelta, Deltas};

/// An entry that gives agents another name.
#[derive(Debug)]
struct Alias {
    /// Sorted.
    selectors: Box<[u32]>,
    /// Tracked agents that have them all.
    agents: BTreeSet<u32>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct EntryIndex {
    trust_domain: TrustDomain,
    edges: Edges,
    nodes: Nodes,
    selectors: Selectors,
    aliases: HashMap<u32, Alias>,
    agents: Slab<AgentSlot>,
}

impl EntryIndex {
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            edges: Edges::default(),
            nodes: Nodes::default(),
            selectors: Selectors::default(),
            aliases: HashMap::new(),
            agents: Slab::default(),
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.edges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.edges.len() == 0
    }

    pub fn entry(&self, id: &str) -> Option<Arc<Entry>> {
        self.edges.find_id(id).and_then(|at| self.edges.find(at)).map(|edge| Arc::clone(&edge.entry))
    }

    /// Every entry, aliases and foreign ones too.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.edges.iter().map(|edge| &edge.entry)
    }

    /// Entries that give this identity to somebody.
    pub fn entries_by_spiffe_id(&self, id: &SpiffeId) -> Vec<Arc<Entry>> {
        self.edges.with_identity(id).map(|(_, edge)| Arc::clone(&edge.entry)).collect()
    }

    pub fn agent(&self, id: &SpiffeId) -> Option<Arc<Agent>> {
        let node = self.nodes.find(id)?;
        self.agents.get(self.nodes.get(node).agent?).model.clone()
    }

    pub fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.iter().filter_map(|agent| agent.model.as_ref())
    }

    /// The entries that the agent may have, each once. An agent that is not known (yet) has what is parented to its
    /// ID.
    pub fn authorized_entries(&self, agent: &SpiffeId) -> Vec<Arc<Entry>> {
        let mut found = Vec::new();
        for node in self.reached_by_id(agent) {
            let children = &self.nodes.get(node).children;
            found.reserve(children.len());
            let edges = children.iter().filter_map(|at| self.edges.find(at));
            found.extend(edges.map(|edge| Arc::clone(&edge.entry)));
        }
        found
    }

    /// One of [`Self::authorized_entries`]: walks up from the entry instead of down from the agent.
    pub fn authorized_entry(&self, agent: &SpiffeId, entry_id: &str) -> Option<Arc<Entry>> {
        let edge = self.edges.find(self.edges.find_id(entry_id)?)?;
        if edge.role != Role::Workload {
            return None;
        }
        let wanted = self.nodes.find(agent)?;
        let known = self.nodes.get(wanted).agent.map(|at| self.agents.get(at));
        let mut reached = false;
        self.walk_up(edge.parent, |step| {
            reached = match step {
                Up::Node(node) => node == wanted,
                Up::Alias(at) => known.is_some_and(|agent| {
                    self.aliases.get(&at).is_some_and(|alias| alias.matches(&agent.selectors))
                }),
            };
            reached
        });
        reached.then(|| Arc::clone(&edge.entry))
    }

    /// Creates or replaces an entry.
    pub fn set_entry(&mut self, entry: Entry) -> Deltas {
        let mut ops = Ops::default();
        if let Some(at) = self.edges.find_id(&entry.id) {
            if self.replace_in_place(at, &entry, &mut ops) {
                return self.finish(ops);
            }
            self.unlink(at, &mut ops);
        }
        self.link(entry, &mut ops);
        self.finish(ops)
    }

    pub fn remove_entry(&mut self, id: &str) -> Deltas {
        let mut ops = Ops::default();
        if let Some(at) = self.edges.find_id(id) {
            self.unlink(at, &mut ops);
        }
        self.finish(ops)
    }

    /// An agent attested, was renewed or banned, or its selectors changed.
    pub fn set_agent(&mut self, agent: Agent) -> Deltas {
        let at = self.agent_at(&agent.id);
        let selectors = self.selectors.intern(&agent.selectors);
        self.replace_agent(at, Some(Arc::new(agent)), selectors)
    }

    pub fn remove_agent(&mut self, id: &SpiffeId) -> Deltas {
        let Some(at) = self.nodes.find(id).and_then(|node| self.nodes.get(node).agent) else {
            return Deltas::default();
        };
        let deltas = self.replace_agent(at, None, Box::default());
        self.drop_agent_if_unused(at);
        deltas
    }

    /// Reports changes for this agent from now on, known or not.
    pub fn track(&mut self, id: &SpiffeId) {
        let at = self.agent_at(id);
        if !self.agents.get(at).tracked {
            self.agents.get_mut(at).tracked = true;
            self.enlist(at);
        }
    }

    pub fn untrack(&mut self, id: &SpiffeId) {
        let Some(at) = self.nodes.find(id).and_then(|node| self.nodes.get(node).agent) else { return };
        if self.agents.get(at).tracked {
            self.delist(at);
            self.agents.get_mut(at).tracked = false;
        }
        self.drop_agent_if_unused(at);
    }

    fn finish(&self, ops: Ops) -> Deltas {
        ops.into_deltas(|agent| self.nodes.get(self.agents.get(agent).node).id.clone())
    }
}

impl Alias {
    /// An alias without selectors is nobody's.
    fn matches(&self, agent: &[u32]) -> bool {
        !self.selectors.is_empty()
            && self.selectors.iter().all(|selector| agent.binary_search(selector).is_ok())
    }
}

#[cfg(test)]
mod tests;
