//! How an entry hangs together with agents, told one entry at a time: for people who ask why.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use steeple_datastore::model::{Agent, Selector};
use steeple_spiffe::SpiffeId;

use super::EntryIndex;
use super::agents::AgentSlot;
use super::edges::{Edge, Role};

impl EntryIndex {
    /// The way from the entry's parent up to the agent, both ends included; the last step may be one of its aliases'.
    /// `None` if it does not lead there.
    pub fn lineage(&self, agent: &SpiffeId, entry_id: &str) -> Option<Vec<SpiffeId>> {
        let edge = self.workload_edge(entry_id)?;
        let known = self.nodes.find(agent).and_then(|node| self.nodes.get(node).agent);
        let known = known.map(|at| self.agents.get(at));
        let mut below = HashMap::from([(edge.parent, None)]);
        let mut open = VecDeque::from([edge.parent]);
        while let Some(node) = open.pop_front() {
            if self.nodes.get(node).id == *agent {
                return Some(self.way(node, &below));
            }
            for (at, up) in self.edges.with_identity(&self.nodes.get(node).id) {
                match up.role {
                    Role::Workload => {
                        below.entry(up.parent).or_insert_with(|| {
                            open.push_back(up.parent);
                            Some(node)
                        });
                    }
                    Role::Alias if known.is_some_and(|agent| self.goes_by(agent, at)) => {
                        let mut way = self.way(node, &below);
                        way.push(agent.clone());
                        return Some(way);
                    }
                    Role::Alias | Role::Foreign => {}
                }
            }
        }
        None
    }

    /// Every attested agent that may have the entry, by ID. Of an alias: those that go by it.
    pub fn agents_of(&self, entry_id: &str) -> Vec<SpiffeId> {
        let Some(at) = self.edges.find_id(entry_id) else { return Vec::new() };
        let (mut found, mut aliases) = (Vec::new(), Vec::new());
        match self.edges.find(at) {
            Some(edge) if edge.role == Role::Workload => self.walk_up(edge.parent, |step| {
                match step {
                    super::walk::Up::Node(node) => {
                        let agent = self.nodes.get(node).agent.map(|at| self.agents.get(at));
                        found.extend(agent.and_then(model));
                    }
                    super::walk::Up::Alias(at) => aliases.push(at),
                }
                false
            }),
            Some(edge) if edge.role == Role::Alias => aliases.push(at),
            _ => {}
        }
        if !aliases.is_empty() {
            let matching =
                self.agents.iter().filter(|agent| aliases.iter().any(|alias| self.goes_by(agent, *alias)));
            found.extend(matching.filter_map(model));
        }
        let mut ids: Vec<SpiffeId> = found.iter().map(|agent| agent.id.clone()).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Other names that an attested agent goes by: of aliases, and of the entry that its join token made.
    pub fn aliases_of(&self, agent: &SpiffeId) -> Vec<SpiffeId> {
        let Some(node) = self.nodes.find(agent).map(|node| self.nodes.get(node)) else { return Vec::new() };
        let Some(slot) = node.agent.map(|at| self.agents.get(at)) else { return Vec::new() };
        let candidates = self.selectors.candidates(&slot.selectors).into_iter();
        let aliases = candidates.filter(|alias| self.goes_by(slot, *alias));
        let own = Selector::new("spiffe_id", agent.as_str());
        let children = node.children.iter().filter_map(|at| self.edges.find(at));
        let names = children.filter(|edge| *edge.entry.selectors == [own.clone()]);
        let mut ids: Vec<SpiffeId> = aliases
            .filter_map(|alias| self.edges.find(alias))
            .chain(names)
            .map(|edge| edge.entry.spiffe_id.clone())
            .collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Whether the entry is another name for agents, not an identity for workloads.
    pub fn is_alias(&self, entry_id: &str) -> bool {
        let edge = self.edges.find_id(entry_id).and_then(|at| self.edges.find(at));
        edge.is_some_and(|edge| edge.role == Role::Alias)
    }

    fn workload_edge(&self, entry_id: &str) -> Option<&Edge> {
        self.edges.find(self.edges.find_id(entry_id)?).filter(|edge| edge.role == Role::Workload)
    }

    fn goes_by(&self, agent: &AgentSlot, alias: u32) -> bool {
        self.aliases.get(&alias).is_some_and(|alias| alias.matches(&agent.selectors))
    }

    fn way(&self, top: u32, below: &HashMap<u32, Option<u32>>) -> Vec<SpiffeId> {
        let mut way = Vec::new();
        let mut next = Some(top);
        while let Some(node) = next {
            way.push(self.nodes.get(node).id.clone());
            next = below.get(&node).copied().flatten();
        }
        way.reverse();
        way
    }
}

fn model(slot: &AgentSlot) -> Option<Arc<Agent>> {
    slot.model.clone()
}
