//! What changed since the last look.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Weak};

use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;

use crate::cache::Svid;
use crate::entry::Entry;
use crate::jwt_cache::{JwtCache, JwtKey, Token};
use crate::{Cache, Millis, View};

/// An X.509-SVID of the cache.
#[derive(Clone, Debug)]
pub struct HeldSvid {
    pub entry: Arc<Entry>,
    pub svid: Arc<Svid>,
    pub due: Millis,
    pub stale: bool,
}

/// What has to be written, so that what is kept is what is held.
#[derive(Debug, Default)]
pub struct Increment {
    /// The view's new position.
    pub position: Option<(u64, String)>,
    pub entries: Vec<Arc<Entry>>,
    pub removed_entries: Vec<Arc<str>>,
    pub bundles: Vec<Arc<Bundle>>,
    pub removed_bundles: Vec<TrustDomain>,
    pub svids: Vec<HeldSvid>,
    /// Entry ids.
    pub removed_svids: Vec<Arc<str>>,
    pub tokens: Vec<(JwtKey, Arc<Token>)>,
    pub removed_tokens: Vec<JwtKey>,
}

impl Increment {
    pub fn is_empty(&self) -> bool {
        self.position.is_none()
            && self.entries.is_empty()
            && self.removed_entries.is_empty()
            && self.bundles.is_empty()
            && self.removed_bundles.is_empty()
            && self.svids.is_empty()
            && self.removed_svids.is_empty()
            && self.tokens.is_empty()
            && self.removed_tokens.is_empty()
    }
}

/// Remembers what it has told, by address: what is held is immutable and replaced as a whole. It keeps nothing alive, so
/// a key that the cache drops is wiped then and there; an address is not used again as long as it is remembered.
#[derive(Debug, Default)]
pub struct Tracker {
    position: Option<(u64, String)>,
    entries: HashMap<Arc<str>, Weak<Entry>>,
    bundles: BTreeMap<TrustDomain, Weak<Bundle>>,
    svids: HashMap<Arc<str>, (Weak<Svid>, Millis, bool)>,
    tokens: HashMap<JwtKey, Weak<Token>>,
}

impl Tracker {
    /// X.509-SVIDs and JWT-SVIDs told of and still held.
    pub fn svid_counts(&self) -> (usize, usize) {
        (self.svids.len(), self.tokens.len())
    }

    /// Adds what the view changed. One engine at a time: each is looked at under a lock of its own.
    pub fn view(&mut self, view: &View, to: &mut Increment) {
        let position = (view.revision(), view.log_id().to_owned());
        if self.position.as_ref() != Some(&position) {
            to.position = Some(position.clone());
            self.position = Some(position);
        }
        for entry in view.entries() {
            if !same(self.entries.get(&entry.id), entry) {
                self.entries.insert(entry.id.clone(), Arc::downgrade(entry));
                to.entries.push(entry.clone());
            }
        }
        let gone = |id: &Arc<str>| view.entry(id).is_none();
        to.removed_entries = drop_gone(&mut self.entries, view.entry_count(), gone);
        for bundle in view.bundles() {
            if !same(self.bundles.get(&bundle.trust_domain), bundle) {
                self.bundles.insert(bundle.trust_domain.clone(), Arc::downgrade(bundle));
                to.bundles.push(bundle.clone());
            }
        }
        self.bundles.retain(|trust_domain, _| {
            let kept = view.bundle(trust_domain).is_some();
            if !kept {
                to.removed_bundles.push(trust_domain.clone());
            }
            kept
        });
    }

    pub fn cache(&mut self, cache: &Cache, to: &mut Increment) {
        for held in cache.svids() {
            let known = self.svids.get(&held.entry.id);
            if known.is_some_and(|(svid, due, stale)| {
                same(Some(svid), &held.svid) && (*due, *stale) == (held.due, held.stale)
            }) {
                continue;
            }
            let told = (Arc::downgrade(&held.svid), held.due, held.stale);
            self.svids.insert(held.entry.id.clone(), told);
            to.svids.push(held);
        }
        to.removed_svids = drop_gone(&mut self.svids, cache.svid_count(), |id| !cache.has_svid(id));
    }

    pub fn jwt(&mut self, jwt: &JwtCache, to: &mut Increment) {
        for (key, token) in jwt.tokens() {
            if !same(self.tokens.get(key), token) {
                self.tokens.insert(key.clone(), Arc::downgrade(token));
                to.tokens.push((key.clone(), token.clone()));
            }
        }
        to.removed_tokens = drop_gone(&mut self.tokens, jwt.len(), |key| !jwt.holds(key));
    }
}

fn same<T>(known: Option<&Weak<T>>, held: &Arc<T>) -> bool {
    known.is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(held)))
}

/// Forgets and answers what is known and not held. Whoever knows no more than is held knows nothing else.
fn drop_gone<K: Clone + Eq + Hash, V>(
    known: &mut HashMap<K, V>,
    held: usize,
    gone: impl Fn(&K) -> bool,
) -> Vec<K> {
    let mut dropped = Vec::new();
    if known.len() > held {
        known.retain(|key, _| {
            let keep = !gone(key);
            if !keep {
                dropped.push(key.clone());
            }
            keep
        });
    }
    dropped
}
