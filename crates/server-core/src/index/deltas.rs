//! What a change means to each agent.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use steeple_datastore::model::Entry;
use steeple_spiffe::SpiffeId;

/// What one agent has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentDelta {
    /// New or changed entries.
    pub set: Vec<Arc<Entry>>,
    /// Ids of entries that it may have no more.
    pub removed: Vec<String>,
}

/// Affected agents, each once.
pub type Deltas = Vec<(SpiffeId, AgentDelta)>;

#[derive(Debug)]
enum Op {
    Set(Arc<Entry>),
    Gone(Arc<Entry>),
}

impl Op {
    fn entry(&self) -> &Entry {
        match self {
            Self::Set(entry) | Self::Gone(entry) => entry,
        }
    }
}

/// Steps of one change, in order; the last word on an entry counts.
#[derive(Debug, Default)]
pub(super) struct Ops(BTreeMap<u32, Vec<Op>>);

impl Ops {
    pub fn set(&mut self, agent: u32, entry: &Arc<Entry>) {
        self.0.entry(agent).or_default().push(Op::Set(Arc::clone(entry)));
    }

    pub fn gone(&mut self, agent: u32, entry: &Arc<Entry>) {
        self.0.entry(agent).or_default().push(Op::Gone(Arc::clone(entry)));
    }

    pub fn into_deltas(self, id: impl Fn(u32) -> SpiffeId) -> Deltas {
        let deltas = self.0.into_iter().map(|(agent, ops)| (id(agent), AgentDelta::new(ops)));
        deltas.collect()
    }
}

impl AgentDelta {
    fn new(ops: Vec<Op>) -> Self {
        let mut delta = Self::default();
        let mut seen = HashSet::new();
        for op in ops.iter().rev() {
            if !seen.insert(op.entry().id.as_str()) {
                continue;
            }
            match op {
                Op::Set(entry) => delta.set.push(Arc::clone(entry)),
                Op::Gone(entry) => delta.removed.push(entry.id.clone()),
            }
        }
        delta
    }
}
