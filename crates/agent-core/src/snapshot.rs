//! What survives the agent: entries, bundles and the revision they are of, X.509-SVIDs with their keys, JWT-SVIDs.
//!
//! [`Tracker`] tells what changed since it was last asked, so that keeping a state costs what changed in it.
//! [`Snapshot`] is what was kept, as [`View::restore`](crate::View::restore), [`Cache::restore`](crate::Cache::restore)
//! and [`JwtCache::restore`](crate::jwt_cache::JwtCache::restore) take it. WIT-SVIDs are not kept: they are experimental,
//! and short-lived by design.

mod tracker;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{SpiffeId, TrustDomain};

use crate::Millis;
use crate::cache::Svid;
use crate::entry::Entry;
use crate::jwt_cache::{JwtKey, Token};

pub use tracker::{HeldSvid, Increment, Tracker};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Snapshot {
    pub revision: u64,
    pub log_id: String,
    pub entries: HashMap<Arc<str>, Entry>,
    pub bundles: BTreeMap<TrustDomain, Bundle>,
    /// By entry id.
    pub svids: HashMap<Arc<str>, KeptSvid>,
    pub tokens: HashMap<JwtKey, Token>,
}

/// An X.509-SVID and when it is to be replaced.
#[derive(Debug)]
pub struct KeptSvid {
    /// Whom it was issued for: an entry that means somebody else by now does not get it.
    pub spiffe_id: SpiffeId,
    pub svid: Svid,
    pub due: Millis,
    /// It was to be replaced already.
    pub stale: bool,
}

impl Snapshot {
    /// Leaves out what has ended: entries and SVIDs past their time.
    pub fn drop_ended(&mut self, now: Millis) {
        self.entries.retain(|_, entry| entry.expires_at == 0 || crate::millis(entry.expires_at) > now);
        let entries = &self.entries;
        self.svids.retain(|id, kept| {
            let is_theirs = entries.get(id).is_some_and(|entry| entry.spiffe_id == kept.spiffe_id);
            is_theirs && crate::millis(kept.svid.not_after) > now
        });
        self.tokens.retain(|_, token| token.expires_at > now);
    }
}

#[cfg(test)]
mod tests;
