//! Node selectors, each once: which aliases ask for them and which tracked agents have them.

use std::collections::{BTreeSet, HashMap};

use steeple_datastore::model::Selector;

use super::{Few, Slab};

#[derive(Debug)]
struct Known {
    selector: Selector,
    /// Aliases and agents that hold this number.
    uses: u32,
    /// Aliases for which this is the one they are looked up by.
    aliases: Few,
    /// Tracked agents that have it.
    agents: Few,
}

#[derive(Debug, Default)]
pub(super) struct Selectors {
    numbers: HashMap<Selector, u32>,
    known: Slab<Known>,
}

impl Selectors {
    /// Numbers of a set of selectors, sorted. Give them back with [`Self::release`].
    pub fn intern(&mut self, selectors: &[Selector]) -> Box<[u32]> {
        let distinct: BTreeSet<&Selector> = selectors.iter().collect();
        let mut numbers: Vec<u32> = distinct.into_iter().map(|selector| self.number(selector)).collect();
        numbers.sort_unstable();
        numbers.into()
    }

    fn number(&mut self, selector: &Selector) -> u32 {
        if let Some(at) = self.numbers.get(selector).copied() {
            self.known.get_mut(at).uses += 1;
            return at;
        }
        let (aliases, agents) = (Few::None, Few::None);
        let at = self.known.add(Known { selector: selector.clone(), uses: 1, aliases, agents });
        self.numbers.insert(selector.clone(), at);
        at
    }

    pub fn release(&mut self, numbers: &[u32]) {
        for at in numbers {
            let known = self.known.get_mut(*at);
            known.uses -= 1;
            if known.uses == 0
                && let Some(known) = self.known.remove(*at)
            {
                self.numbers.remove(&known.selector);
            }
        }
    }

    /// An alias needs all of its selectors, so one is enough to look it up by: the one that fewest ask for.
    pub fn add_alias(&mut self, selectors: &[u32], alias: u32) {
        let rarest = selectors.iter().copied().min_by_key(|at| self.known.get(*at).aliases.len());
        if let Some(at) = rarest {
            self.known.get_mut(at).aliases.insert(alias);
        }
    }

    pub fn remove_alias(&mut self, selectors: &[u32], alias: u32) {
        for at in selectors {
            self.known.get_mut(*at).aliases.remove(alias);
        }
    }

    pub fn add_agent(&mut self, selectors: &[u32], agent: u32) {
        for at in selectors {
            self.known.get_mut(*at).agents.insert(agent);
        }
    }

    pub fn remove_agent(&mut self, selectors: &[u32], agent: u32) {
        for at in selectors {
            self.known.get_mut(*at).agents.remove(agent);
        }
    }

    /// Aliases that an agent with these selectors may match; each once.
    pub fn candidates(&self, selectors: &[u32]) -> Vec<u32> {
        selectors.iter().flat_map(|at| self.known.get(*at).aliases.iter()).collect()
    }

    /// Tracked agents that have all of them; none if there are none.
    pub fn agents_with_all(&self, selectors: &[u32]) -> BTreeSet<u32> {
        let mut by_size: Vec<&Few> = selectors.iter().map(|at| &self.known.get(*at).agents).collect();
        by_size.sort_by_key(|agents| agents.len());
        let Some((fewest, others)) = by_size.split_first() else { return BTreeSet::new() };
        let mut found: BTreeSet<u32> = fewest.iter().collect();
        for agents in others {
            let with: BTreeSet<u32> = agents.iter().collect();
            found.retain(|agent| with.contains(agent));
        }
        found
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }
}
