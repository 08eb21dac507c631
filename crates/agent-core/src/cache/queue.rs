//! Which records are ready to be signed, and which become so at a time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::Millis;

/// Why an SVID is asked for; the first is the most urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// A workload is connected and has nothing.
    Waiting,
    /// Due, tainted, or the entry changed.
    Expiring,
    /// Nobody has asked yet.
    Prefetch,
}

/// Each record is in it at most once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ready: BTreeSet<(Priority, u64, Arc<str>)>,
    timers: BTreeSet<(Millis, Arc<str>)>,
    places: HashMap<Arc<str>, Place>,
    sequence: u64,
    expiring: usize,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Ready(Priority, u64),
    At(Millis),
}

impl Queue {
    pub fn ready(&mut self, priority: Priority, id: &Arc<str>) {
        self.remove(id);
        self.sequence += 1;
        self.expiring += usize::from(priority == Priority::Expiring);
        self.ready.insert((priority, self.sequence, id.clone()));
        self.places.insert(id.clone(), Place::Ready(priority, self.sequence));
    }

    pub fn at(&mut self, when: Millis, id: &Arc<str>) {
        self.remove(id);
        self.timers.insert((when, id.clone()));
        self.places.insert(id.clone(), Place::At(when));
    }

    pub fn remove(&mut self, id: &Arc<str>) {
        match self.places.remove(id) {
            Some(Place::Ready(priority, sequence)) => {
                self.expiring -= usize::from(priority == Priority::Expiring);
                self.ready.remove(&(priority, sequence, id.clone()));
            }
            Some(Place::At(when)) => {
                self.timers.remove(&(when, id.clone()));
            }
            None => {}
        }
    }

    pub fn pop(&mut self) -> Option<(Priority, Arc<str>)> {
        let (priority, _, id) = self.ready.pop_first()?;
        self.expiring -= usize::from(priority == Priority::Expiring);
        self.places.remove(&id);
        Some((priority, id))
    }

    /// Takes out everything whose time has come.
    pub fn due(&mut self, now: Millis) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        while self.timers.first().is_some_and(|(when, _)| *when <= now) {
            if let Some((_, id)) = self.timers.pop_first() {
                self.places.remove(&id);
                due.push(id);
            }
        }
        due
    }

    pub fn next_priority(&self) -> Option<Priority> {
        self.ready.first().map(|(priority, _, _)| *priority)
    }

    pub fn next_wake(&self, least: Priority) -> Option<Millis> {
        if self.next_priority().is_some_and(|next| next <= least) {
            Some(Millis::MIN)
        } else {
            self.timers.first().map(|(when, _)| *when)
        }
    }

    /// How many ready records will add to the number of SVIDs held.
    pub fn ready_without_svid(&self) -> usize {
        self.ready.len() - self.expiring
    }
}
