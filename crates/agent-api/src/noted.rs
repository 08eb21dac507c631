//! What `explain` remembers of the view: how often it changed, and entries that went because they had expired.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use steeple_agent_core::view::Changes;
use steeple_agent_core::{Cache, Entry};

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Noted {
    changes: AtomicU64,
    expired: Mutex<VecDeque<Arc<Entry>>>,
}

/// The last so many.
const MOST: usize = 64;

impl Noted {
    /// Before `changes` are put in force; `now` in Unix seconds.
    pub fn note(&self, changes: &Changes, cache: &Cache, now: i64) {
        self.changes.fetch_add(1, Ordering::Release);
        let gone = changes.removed.iter().filter_map(|id| cache.entry(id));
        let gone = gone.filter(|entry| entry.expires_at != 0 && entry.expires_at <= now);
        let mut expired = self.expired();
        // One that came back is there again.
        expired.retain(|old| changes.entries.iter().all(|entry| entry.id != old.id));
        expired.extend(gone.cloned());
        let surplus = expired.len().saturating_sub(MOST);
        expired.drain(..surplus);
    }

    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    pub fn expired(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Entry>>> {
        self.expired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
