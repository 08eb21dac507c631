//! Which SVIDs are held: by number, by bytes, by last use.

use std::sync::Arc;

use super::{Cache, Priority, Svid};
use crate::Millis;

/// What an SVID is taken to need before one was seen.
const TYPICAL: usize = 2048;

impl Cache {
    /// Holds `svid` for an entry in place of what was held for it.
    pub(super) fn hold(&mut self, id: &Arc<str>, svid: Svid) {
        let Some(record) = self.records.get_mut(id) else { return };
        self.interner.forget_recent();
        let size = svid.size();
        self.bytes += size;
        self.largest = self.largest.max(size);
        match record.svid.replace(Arc::new(svid)) {
            Some(old) => self.bytes -= old.size(),
            None => self.signed += 1,
        }
        if record.subscribers == 0 {
            self.idle.insert((record.used, id.clone()));
        }
    }

    /// Holds nothing for an entry any more. False if nothing was held.
    pub(super) fn let_go(&mut self, id: &Arc<str>) -> bool {
        let Some(record) = self.records.get_mut(id) else { return false };
        let Some(svid) = record.svid.take() else { return false };
        self.interner.forget_recent();
        record.stale = false;
        self.bytes -= svid.size();
        self.signed -= 1;
        self.idle.remove(&(record.used, id.clone()));
        // Whatever is under way would count as signed for the first time now.
        if std::mem::take(&mut record.in_flight) {
            record.generation += 1;
        }
        true
    }

    /// Signs ahead while there is room: what was used last comes first.
    pub(super) fn fill(&mut self, now: Millis) {
        let coming = self.in_flight_unsigned + self.queue.ready_without_svid();
        let mut room = self.config.max_size.saturating_sub(self.signed + coming);
        if self.config.max_bytes != usize::MAX {
            let each = if self.largest == 0 { TYPICAL.min(self.config.max_bytes) } else { self.largest };
            let free = self.config.max_bytes.saturating_sub(self.bytes + self.elsewhere);
            room = room.min((free / each.max(1)).saturating_sub(coming));
        }
        while room > 0 {
            let Some((_, id)) = self.parked.pop_first() else { return };
            match self.records.get(&id) {
                Some(record) if record.failures > 0 && record.retry_at > now => {
                    self.queue.at(record.retry_at, &id);
                }
                Some(_) => {
                    self.queue.ready(Priority::Prefetch, &id);
                    room -= 1;
                }
                None => {}
            }
        }
    }

    /// Drops what nobody subscribes to, by last use, while there are too many.
    pub(super) fn trim(&mut self, now: Millis) {
        while self.signed > self.config.max_size && self.drop_idlest(now) {}
    }

    /// When the SVID was last used that is dropped next; `None` if all have subscribers.
    pub(crate) fn idlest(&self) -> Option<u64> {
        self.idle.first().map(|(used, _)| *used)
    }

    /// Drops the SVID without subscriber that was used longest ago. False if there is none.
    pub(crate) fn drop_idlest(&mut self, now: Millis) -> bool {
        let Some((_, id)) = self.idle.first().cloned() else { return false };
        self.let_go(&id);
        self.schedule(&id, now);
        true
    }

    /// How many bytes of the budget others hold; what is left may be signed ahead.
    pub(crate) fn leave_room_for(&mut self, elsewhere: usize, now: Millis) {
        self.elsewhere = elsewhere;
        self.fill(now);
    }
}
