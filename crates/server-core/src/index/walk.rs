//! Down from an agent to what it may have, up from an entry to who may have it.

use std::collections::{BTreeSet, HashSet};

use steeple_spiffe::SpiffeId;

use super::EntryIndex;
use super::edges::Role;

/// What a walk upwards comes by.
pub(super) enum Up {
    /// An ID that the start is below.
    Node(u32),
    /// An alias entry that leads to one of them.
    Alias(u32),
}

impl EntryIndex {
    /// Nodes that the agent reaches.
    pub(super) fn reached_by_id(&self, id: &SpiffeId) -> Vec<u32> {
        let Some(node) = self.nodes.find(id) else {
            return Vec::new();
        };
        match self.nodes.get(node).agent {
            Some(at) => self.reached(at),
            None => self.walk_down(vec![node]),
        }
    }

    pub(super) fn reached(&self, agent: u32) -> Vec<u32> {
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
    pub(super) fn walk_down(&self, roots: Vec<u32>) -> Vec<u32> {
        self.walk_down_except(roots, &HashSet::new())
    }

    pub(super) fn walk_down_except(&self, roots: Vec<u32>, except: &HashSet<u32>) -> Vec<u32> {
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
    pub(super) fn walk_up(&self, node: u32, mut visit: impl FnMut(Up) -> bool) {
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
    pub(super) fn reachers(&self, node: u32) -> BTreeSet<u32> {
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
}
