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
mod deltas;
mod edges;
mod few;
mod nodes;
mod selectors;
mod slab;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use steeple_datastore::model::{Agent, Entry};
use steeple_spiffe::{SpiffeId, TrustDomain};

use agents::AgentSlot;
use deltas::Ops;
use edges::{Edge, Edges, Role};
use few::Few;
use nodes::Nodes;
use selectors::Selectors;
use slab::Slab;

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
            let edges = self.nodes.get(node).children.iter().filter_map(|at| self.edges.find(at));
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

    // Looking things up.

    /// Nodes that the agent reaches.
    fn reached_by_id(&self, id: &SpiffeId) -> Vec<u32> {
        let Some(node) = self.nodes.find(id) else {
            return Vec::new();
        };
        match self.nodes.get(node).agent {
            Some(at) => self.reached(at),
            None => self.walk_down(vec![node]),
        }
    }

    fn reached(&self, agent: u32) -> Vec<u32> {
        let agent = self.agents.get(agent);
        let mut roots = vec![agent.node];
        for at in self.selectors.candidates(&agent.selectors) {
            if let (Some(alias), Some(edge)) = (self.aliases.get(&at), self.edges.find(at))
                && alias.matches(&agent.selectors)
            {
                roots.extend(self.nodes.find(&edge.entry.spiffe_id));
            }
        }
        self.walk_down(roots)
    }

    /// The nodes below `roots` and they themselves, each once.
    fn walk_down(&self, roots: Vec<u32>) -> Vec<u32> {
        self.walk_down_except(roots, &HashSet::new())
    }

    fn walk_down_except(&self, roots: Vec<u32>, except: &HashSet<u32>) -> Vec<u32> {
        let mut seen = HashSet::new();
        let mut order = Vec::new();
        let mut open = roots;
        while let Some(node) = open.pop() {
            if except.contains(&node) || !seen.insert(node) {
                continue;
            }
            order.push(node);
            let edges = self.nodes.get(node).children.iter().filter_map(|at| self.edges.find(at));
            // Leaves, the most by far, have no node.
            open.extend(edges.filter_map(|edge| self.nodes.find(&edge.entry.spiffe_id)));
        }
        order
    }

    /// Visits `node`, everything above it, and the aliases that lead there, until `visit` says stop.
    fn walk_up(&self, node: u32, mut visit: impl FnMut(Up) -> bool) {
        let mut seen = HashSet::from([node]);
        let mut open = vec![node];
        while let Some(node) = open.pop() {
            if visit(Up::Node(node)) {
                return;
            }
            for (at, edge) in self.edges.with_identity(&self.nodes.get(node).id) {
                let stop = match edge.role {
                    Role::Workload => {
                        if seen.insert(edge.parent) {
                            open.push(edge.parent);
                        }
                        false
                    }
                    Role::Alias => visit(Up::Alias(at)),
                    Role::Foreign => false,
                };
                if stop {
                    return;
                }
            }
        }
    }

    /// Tracked agents that reach the node.
    fn reachers(&self, node: u32) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        self.walk_up(node, |step| {
            match step {
                Up::Node(node) => {
                    found.extend(self.nodes.get(node).agent.filter(|at| self.agents.get(*at).tracked));
                }
                Up::Alias(at) => {
                    found.extend(
                        self.aliases.get(&at).into_iter().flat_map(|alias| alias.agents.iter().copied()),
                    );
                }
            }
            false
        });
        found
    }

    // Changing entries.

    /// The common update: same place in the graph, other contents.
    fn replace_in_place(&mut self, at: u32, entry: &Entry, ops: &mut Ops) -> bool {
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

    fn link(&mut self, mut entry: Entry, ops: &mut Ops) {
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

    fn unlink(&mut self, at: u32, ops: &mut Ops) {
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

    fn role(&self, entry: &Entry) -> Role {
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
    fn before_gaining(&self, agents: &BTreeSet<u32>, identity: &SpiffeId, ops: &mut Ops) {
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
    fn after_losing(&self, agents: &BTreeSet<u32>, identity: &SpiffeId, ops: &mut Ops) {
        let Some(node) = self.nodes.find(identity).filter(|_| !agents.is_empty()) else { return };
        let still = self.reachers(node);
        for agent in agents.difference(&still) {
            let reached: HashSet<u32> = self.reached(*agent).into_iter().collect();
            for entry in self.entries_of(&self.walk_down_except(vec![node], &reached)) {
                ops.gone(*agent, entry);
            }
        }
    }

    fn entries_of(&self, nodes: &[u32]) -> impl Iterator<Item = &Arc<Entry>> {
        let edges = nodes.iter().flat_map(|node| self.nodes.get(*node).children.iter());
        edges.filter_map(|at| self.edges.find(at)).map(|edge| &edge.entry)
    }

    // Changing agents.

    fn agent_at(&mut self, id: &SpiffeId) -> u32 {
        let node = self.nodes.intern(id);
        if let Some(at) = self.nodes.get(node).agent {
            return at;
        }
        let at = self.agents.add(AgentSlot::new(node));
        self.nodes.get_mut(node).agent = Some(at);
        at
    }

    fn replace_agent(&mut self, at: u32, model: Option<Arc<Agent>>, selectors: Box<[u32]>) -> Deltas {
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
    fn enlist(&mut self, at: u32) {
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

    fn delist(&mut self, at: u32) {
        let selectors = self.agents.get(at).selectors.clone();
        self.selectors.remove_agent(&selectors, at);
        for alias_at in std::mem::take(&mut self.agents.get_mut(at).aliases).iter() {
            if let Some(alias) = self.aliases.get_mut(&alias_at) {
                alias.agents.remove(&at);
            }
        }
    }

    fn drop_agent_if_unused(&mut self, at: u32) {
        let agent = self.agents.get(at);
        if agent.model.is_some() || agent.tracked {
            return;
        }
        let node = agent.node;
        self.agents.remove(at);
        self.nodes.get_mut(node).agent = None;
        self.nodes.drop_if_unused(node);
    }

    fn finish(&self, ops: Ops) -> Deltas {
        ops.into_deltas(|agent| self.nodes.get(self.agents.get(agent).node).id.clone())
    }
}

enum Up {
    Node(u32),
    Alias(u32),
}

impl Alias {
    /// An alias without selectors is nobody's.
    fn matches(&self, agent: &[u32]) -> bool {
        !self.selectors.is_empty()
            && self.selectors.iter().all(|selector| agent.binary_search(selector).is_ok())
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

#[cfg(test)]
mod tests;
