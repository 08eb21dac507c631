//! From selectors to entries and to groups, so that a change looks at what it reaches and at nothing else.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::entry::{Entry, Selector, SelectorSet};

/// Each entry hangs under one of its selectors: that with the fewest entries when it came.
#[derive(Debug, Default)]
pub(super) struct EntryIndex {
    under: HashMap<Selector, BTreeSet<Arc<str>>>,
    anchors: HashMap<Arc<str>, Selector>,
}

impl EntryIndex {
    pub fn insert(&mut self, entry: &Entry) {
        let fewest =
            entry.selectors.iter().min_by_key(|selector| self.under.get(*selector).map_or(0, BTreeSet::len));
        if let Some(selector) = fewest {
            self.under.entry(selector.clone()).or_default().insert(entry.id.clone());
            self.anchors.insert(entry.id.clone(), selector.clone());
        }
    }

    pub fn remove(&mut self, entry: &Entry) {
        let Some(selector) = self.anchors.remove(&entry.id) else { return };
        if let Some(ids) = self.under.get_mut(&selector) {
            ids.remove(&entry.id);
            if ids.is_empty() {
                self.under.remove(&selector);
            }
        }
    }

    /// Every entry that could match; each at most once.
    pub fn candidates<'a>(&'a self, workload: &'a SelectorSet) -> impl Iterator<Item = &'a Arc<str>> {
        workload.iter().filter_map(|selector| self.under.get(selector)).flatten()
    }
}

/// Each group hangs under all of its selectors.
#[derive(Debug, Default)]
pub(super) struct GroupIndex {
    under: HashMap<Selector, BTreeSet<u64>>,
}

impl GroupIndex {
    pub fn insert(&mut self, group: u64, selectors: &SelectorSet) {
        for selector in selectors {
            self.under.entry(selector.clone()).or_default().insert(group);
        }
    }

    pub fn remove(&mut self, group: u64, selectors: &SelectorSet) {
        for selector in selectors {
            if let Some(groups) = self.under.get_mut(selector) {
                groups.remove(&group);
                if groups.is_empty() {
                    self.under.remove(selector);
                }
            }
        }
    }

    /// Every group that an entry with these selectors could reach: those under its rarest selector.
    pub fn candidates(&self, entry: &SelectorSet) -> impl Iterator<Item = u64> {
        let mut rarest: Option<&BTreeSet<u64>> = None;
        for selector in entry {
            let Some(groups) = self.under.get(selector) else {
                rarest = None;
                break;
            };
            if rarest.is_none_or(|best| groups.len() < best.len()) {
                rarest = Some(groups);
            }
        }
        rarest.into_iter().flatten().copied()
    }
}
