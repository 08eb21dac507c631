//! What a clock that is turned makes of times that were reckoned by it.

use std::sync::Arc;

use super::{Cache, RETRY_MAX};
use crate::{Millis, millis};

/// Clocks differ by so much without harm.
const SKEW: Millis = 60_000;

impl Cache {
    /// The clock was turned, to `now`. Pauses are over, and SVIDs of the future are replaced: verifiers whose clocks were
    /// set back, too, do not take them. Turned forward it needs no help: what has fallen due is looked at.
    pub fn clock_turned(&mut self, now: Millis) {
        let mut ids: Vec<Arc<str>> = Vec::with_capacity(self.records.len());
        for (id, record) in &mut self.records {
            if record.retry_at > now + RETRY_MAX as Millis {
                record.retry_at = now;
            }
            if record.svid.as_ref().is_some_and(|svid| millis(svid.not_before) > now + SKEW) {
                record.stale = true;
                record.retry_at = record.retry_at.min(now);
            }
            ids.push(id.clone());
        }
        for id in ids {
            self.schedule(&id, now);
        }
        self.fill(now);
    }
}
