//! What outlives the agent, and what has outlived its time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Cache, TAINTED_BATCH, TAINTED_INTERVAL};
use crate::snapshot::{HeldSvid, KeptSvid};
use crate::{Millis, millis};

impl Cache {
    /// Every X.509-SVID held.
    pub fn svids(&self) -> impl Iterator<Item = HeldSvid> {
        self.records.values().filter_map(|record| {
            let svid = record.svid.clone()?;
            Some(HeldSvid { entry: record.entry.clone(), svid, due: record.due, stale: record.stale })
        })
    }

    /// Holds SVIDs that an earlier process was given, unless they have ended or their entry is not here. They fall due as
    /// they would have.
    pub fn restore(&mut self, svids: HashMap<Arc<str>, KeptSvid>, now: Millis) {
        let mut reached = HashSet::new();
        let mut tainted = 0;
        for (id, kept) in svids {
            let random = self.rng.f64();
            let policy = self.config.rotation;
            let Some(record) = self.records.get_mut(&id) else { continue };
            let (not_before, not_after) = (millis(kept.svid.not_before), millis(kept.svid.not_after));
            let is_theirs = record.entry.spiffe_id == kept.spiffe_id;
            if !is_theirs || record.svid.is_some() || record.in_flight || not_after <= now {
                continue;
            }
            record.due = kept.due.min(policy.due(not_before, not_after, random));
            if self.tainted.contains(&*kept.svid.authority_key_id) {
                record.due = record.due.min(now + TAINTED_INTERVAL * (tainted / TAINTED_BATCH) as Millis);
                tainted += 1;
            }
            let selectors = record.entry.selectors.clone();
            self.hold(&id, kept.svid);
            if let Some(record) = self.records.get_mut(&id) {
                record.stale = kept.stale;
            }
            self.schedule(&id, now);
            reached.extend(self.reached(&selectors));
        }
        for group in reached {
            self.refresh(group, now);
        }
        self.trim(now);
        self.fill(now);
    }

    /// Drops SVIDs that have ended: nobody replaced them in time. Returns when the next one ends.
    pub fn expire(&mut self, now: Millis) -> Option<Millis> {
        let mut ended = Vec::new();
        let mut next = None;
        for (id, record) in &self.records {
            let Some(svid) = &record.svid else { continue };
            let end = millis(svid.not_after);
            if end <= now {
                ended.push((id.clone(), record.entry.selectors.clone()));
            } else if next.is_none_or(|next| end < next) {
                next = Some(end);
            }
        }
        let mut reached = HashSet::new();
        for (id, selectors) in ended {
            self.let_go(&id);
            self.schedule(&id, now);
            reached.extend(self.reached(&selectors));
        }
        for group in reached {
            self.refresh(group, now);
        }
        next
    }
}
