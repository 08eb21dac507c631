//! What a change of an entry or agent does to the graph, and what each tracked agent has to hear of it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use steeple_datastore::model::{Agent, Entry};
use steeple_spiffe::SpiffeId;

use super::agents::AgentSlot;
use super::deltas::Ops;
use super::edges::Role;
use super::{Alias, Deltas, EntryIndex};

impl EntryIndex {
    /// The common update: same place in the graph, other contents.
    pub(super) fn replace_in_place(&mut self, at: u32, entry: &Entry, ops: &mut Ops) -> bool {
        let Some(edge) = self.edges.find(at) else { return false };
        let same_place = edge.entry.parent_id == entry.parent_id && edge.entry.spiffe_id == entry.spiffe_id;
        if !same_place || (edge.role == Role::Alias && edge.entry.selectors != entry.selectors) {
            return false;
        }
        let (role, parent) = (edge.role, edge.parent);
        let mut entry = entry.clone();
        entry.parent_id = edge.entry.parent_id.clone();
        entry.spiffe_id = edge.entry.spiffe_id.clone();
        let entry = Arc::new(compact(entry));
        self.edges.replace(at, Arc::clone(&entry));
        if role == Role::Workload {
            for agent in self.reachers(parent) {
                ops.set(agent, &entry);
            }
        }
        true
    }

    pub(super) fn link(&mut self, mut entry: Entry, ops: &mut Ops) {
        let parent = self.nodes.intern(&entry.parent_id);
        entry.parent_id = self.nodes.get(parent).id.clone();
        let known_id =
            self.edges.with_identity(&entry.spiffe_id).next().map(|(_, edge)| edge.entry.spiffe_id.clone());
        let known_id =
            known_id.or_else(|| Some(self.nodes.get(self.nodes.find(&entry.spiffe_id)?).id.clone()));
        entry.spiffe_id = known_id.unwrap_or(entry.spiffe_id);
        let role = self.role(&entry);
        let entry = Arc::new(compact(entry));
        match role {
            Role::Workload => {
                let agents = self.reachers(parent);
                self.before_gaining(&agents, &entry.spiffe_id, ops);
                for agent in agents {
                    ops.set(agent, &entry);
                }
                let at = self.edges.add(entry, parent, role);
                self.nodes.get_mut(parent).children.insert(at);
            }
            Role::Alias => {
                let selectors = self.selectors.intern(&entry.selectors);
                let agents = self.selectors.agents_with_all(&selectors);
                self.before_gaining(&agents, &entry.spiffe_id, ops);
                let at = self.edges.add(entry, parent, role);
                for agent in &agents {
                    self.agents.get_mut(*agent).aliases.insert(at);
                }
                self.selectors.add_alias(&selectors, at);
                self.aliases.insert(at, Alias { selectors, agents });
            }
            Role::Foreign => {
                self.edges.add(entry, parent, role);
            }
        }
        // Keeps the parent's node, also of entries that nobody reaches.
        self.nodes.get_mut(parent).uses += 1;
    }

    pub(super) fn unlink(&mut self, at: u32, ops: &mut Ops) {
        let Some(edge) = self.edges.remove(at) else { return };
        let losing = match edge.role {
            Role::Workload => {
                let losing = self.reachers(edge.parent);
                for agent in &losing {
                    ops.gone(*agent, &edge.entry);
                }
                self.nodes.get_mut(edge.parent).children.remove(at);
                losing
            }
            Role::Alias => self.aliases.remove(&at).map_or_else(BTreeSet::new, |alias| {
                for agent in &alias.agents {
                    self.agents.get_mut(*agent).aliases.remove(at);
                }
                self.selectors.remove_alias(&alias.selectors, at);
                self.selectors.release(&alias.selectors);
                alias.agents
            }),
            Role::Foreign => BTreeSet::new(),
        };
        self.after_losing(&losing, &edge.entry.spiffe_id, ops);
        self.nodes.get_mut(edge.parent).uses -= 1;
        self.nodes.drop_if_unused(edge.parent);
    }

    pub(super) fn role(&self, entry: &Entry) -> Role {
        let ours = |id: &SpiffeId| id.is_member_of(&self.trust_domain);
        if !ours(&entry.parent_id) || !ours(&entry.spiffe_id) {
            Role::Foreign
        } else if entry.parent_id.path() == "/spire/server" {
            Role::Alias
        } else {
            Role::Workload
        }
    }

    /// `agents` are about to reach `identity`: what is below it comes to those that do not reach it yet.
    pub(super) fn before_gaining(&self, agents: &BTreeSet<u32>, identity: &SpiffeId, ops: &mut Ops) {
        let Some(node) = self.nodes.find(identity).filter(|_| !agents.is_empty()) else { return };
        let already = self.reachers(node);
        for agent in agents.difference(&already) {
            let reached: HashSet<u32> = self.reached(*agent).into_iter().collect();
            for entry in self.entries_of(&self.walk_down_except(vec![node], &reached)) {
                ops.set(*agent, entry);
            }
        }
    }

    /// `agents` have lost a way to `identity`: what is below it goes from those that have no other.
    pub(super) fn after_losing(&self, agents: &BTreeSet<u32>, identity: &SpiffeId, ops: &mut Ops) {
        let Some(node) = self.nodes.find(identity).filter(|_| !agents.is_empty()) else { return };
        let still = self.reachers(node);
        for agent in agents.difference(&still) {
            let reached: HashSet<u32> = self.reached(*agent).into_iter().collect();
            for entry in self.entries_of(&self.walk_down_except(vec![node], &reached)) {
                ops.gone(*agent, entry);
            }
        }
    }

    pub(super) fn entries_of(&self, nodes: &[u32]) -> impl Iterator<Item = &Arc<Entry>> {
        let edges = nodes.iter().flat_map(|node| self.nodes.get(*node).children.iter());
        edges.filter_map(|at| self.edges.find(at)).map(|edge| &edge.entry)
    }

    pub(super) fn agent_at(&mut self, id: &SpiffeId) -> u32 {
        let node = self.nodes.intern(id);
        if let Some(at) = self.nodes.get(node).agent {
            return at;
        }
        let at = self.agents.add(AgentSlot::new(node));
        self.nodes.get_mut(node).agent = Some(at);
        at
    }

    pub(super) fn replace_agent(
        &mut self,
        at: u32,
        model: Option<Arc<Agent>>,
        selectors: Box<[u32]>,
    ) -> Deltas {
        let agent = self.agents.get_mut(at);
        agent.model = model;
        if agent.selectors == selectors {
            self.selectors.release(&selectors);
            return Deltas::default();
        }
        if !agent.tracked {
            let old = std::mem::replace(&mut agent.selectors, selectors);
            self.selectors.release(&old);
            return Deltas::default();
        }
        let before = self.reached(at);
        self.delist(at);
        let old = std::mem::replace(&mut self.agents.get_mut(at).selectors, selectors);
        self.selectors.release(&old);
        self.enlist(at);
        let after = self.reached(at);
        let mut ops = Ops::default();
        let (had, has): (HashSet<u32>, HashSet<u32>) =
            (before.iter().copied().collect(), after.iter().copied().collect());
        let lost: Vec<u32> = before.into_iter().filter(|node| !has.contains(node)).collect();
        let gained: Vec<u32> = after.into_iter().filter(|node| !had.contains(node)).collect();
        for entry in self.entries_of(&lost) {
            ops.gone(at, entry);
        }
        for entry in self.entries_of(&gained) {
            ops.set(at, entry);
        }
        self.finish(ops)
    }

    /// Makes a tracked agent known to the aliases it matches.
    pub(super) fn enlist(&mut self, at: u32) {
        let selectors = self.agents.get(at).selectors.clone();
        self.selectors.add_agent(&selectors, at);
        for alias_at in self.selectors.candidates(&selectors) {
            if let Some(alias) = self.aliases.get_mut(&alias_at)
                && alias.matches(&selectors)
            {
                alias.agents.insert(at);
                self.agents.get_mut(at).aliases.insert(alias_at);
            }
        }
    }

    pub(super) fn delist(&mut self, at: u32) {
        let selectors = self.agents.get(at).selectors.clone();
        self.selectors.remove_agent(&selectors, at);
        for alias_at in std::mem::take(&mut self.agents.get_mut(at).aliases).iter() {
            if let Some(alias) = self.aliases.get_mut(&alias_at) {
                alias.agents.remove(&at);
            }
        }
    }

    pub(super) fn drop_agent_if_unused(&mut self, at: u32) {
        let agent = self.agents.get(at);
        if agent.model.is_some() || agent.tracked {
            return;
        }
        let node = agent.node;
        self.agents.remove(at);
        self.nodes.get_mut(node).agent = None;
        self.nodes.drop_if_unused(node);
    }
}

/// Entries live long and are many: no spare capacity. (Shrinking in place would keep the larger block.)
fn compact(mut entry: Entry) -> Entry {
    fn exact<T>(things: &mut Vec<T>) {
        if things.capacity() > things.len() {
            let mut fitting = Vec::with_capacity(things.len());
            fitting.append(things);
            *things = fitting;
        }
    }
    fn exact_text(text: &mut String) {
        if text.capacity() > text.len() {
            *text = String::from(text.as_str());
        }
    }
    exact_text(&mut entry.id);
    exact_text(&mut entry.hint);
    for selector in &mut entry.selectors {
        exact_text(&mut selector.kind);
        exact_text(&mut selector.value);
    }
    exact(&mut entry.selectors);
    exact(&mut entry.federates_with);
    exact(&mut entry.dns_names);
    entry
}
