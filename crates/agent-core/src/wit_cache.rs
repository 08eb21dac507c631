//! WIT-SVIDs with the keys that they are bound to, one for each entry of which a workload asked for one.
//!
//! Callers of one entry share token and key (WIT-SVID §4 allows it for the instances of a workload on one host).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use steeple_spiffe::SpiffeId;
use zeroize::Zeroizing;

use crate::{Entry, Millis};

/// A token that the server issued, and the private key that it confirms.
pub struct Wit {
    pub token: Zeroizing<String>,
    /// A private JWK, JSON.
    pub key: Zeroizing<String>,
    /// Of the authority that signed.
    pub key_id: String,
    pub issued_at: Millis,
    pub expires_at: Millis,
}

impl fmt::Debug for Wit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wit")
            .field("len", &self.token.len())
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// One that is held.
#[derive(Clone, Debug)]
pub struct Held {
    pub wit: Arc<Wit>,
    /// When it is to be replaced.
    pub due: Millis,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct WitCache {
    held: HashMap<Arc<str>, (SpiffeId, Held)>,
}

/// Tokens that end are swept out whenever the number of those held passes a power of two from here.
const SWEEP_FROM: usize = 64;
/// A token is not replaced sooner than this after it came, however short its life.
const LEAST: Millis = 1000;

impl WitCache {
    /// What may be handed out at `now`.
    pub fn find(&self, entry: &Entry, now: Millis) -> Option<Held> {
        let (id, held) = self.held.get(&entry.id)?;
        (*id == entry.spiffe_id && held.wit.expires_at > now).then(|| held.clone())
    }

    /// Takes over a new one, due at half of its life, give or take a tenth of that by `random` in `0.0..1.0`: those that
    /// were issued together do not fall due together.
    pub fn insert(&mut self, entry: &Entry, wit: Wit, random: f64, now: Millis) -> Held {
        if self.held.len() >= SWEEP_FROM && self.held.len().is_power_of_two() {
            self.held.retain(|_, (_, held)| held.wit.expires_at > now);
        }
        let half = (wit.expires_at - wit.issued_at).max(0) / 2;
        let jitter = (half as f64 * (random - 0.5) * 0.2) as Millis;
        let due = (wit.issued_at + half + jitter).max(now + LEAST);
        let held = Held { wit: Arc::new(wit), due };
        self.held.insert(entry.id.clone(), (entry.spiffe_id.clone(), held.clone()));
        held
    }

    /// Drops what these keys signed (tainted authorities). Returns how many.
    pub fn drop_signed_by(&mut self, key_ids: &[&str]) -> usize {
        let before = self.held.len();
        self.held.retain(|_, (_, held)| !key_ids.contains(&held.wit.key_id.as_str()));
        before - self.held.len()
    }

    /// Drops what belongs to this entry.
    pub fn remove(&mut self, entry_id: &str) {
        self.held.remove(entry_id);
    }

    /// Drops everything: the agent lost its own identity.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::entry;

    fn wit(issued_at: Millis, expires_at: Millis) -> Wit {
        let key = Zeroizing::new("secret".to_owned());
        Wit { token: Zeroizing::new("t".into()), key, key_id: "k".into(), issued_at, expires_at }
    }

    #[test]
    fn it_is_due_about_half_way_and_gone_at_its_end() {
        let mut cache = WitCache::default();
        let entry = entry("1", "one", &["a"]);
        for (random, due) in [(0.0, 450_000), (0.5, 500_000), (0.999, 549_900)] {
            assert_eq!(cache.insert(&entry, wit(0, 1_000_000), random, 0).due, due);
        }
        assert_eq!(
            cache.insert(&entry, wit(0, 1_000_000), 0.5, 600_000).due,
            601_000,
            "born due, it must not spin"
        );
        assert!(cache.find(&entry, 999_999).is_some());
        assert!(cache.find(&entry, 1_000_000).is_none());
    }

    #[test]
    fn another_identity_under_the_same_entry_id_does_not_get_it() {
        let mut cache = WitCache::default();
        cache.insert(&entry("1", "one", &["a"]), wit(0, 100), 0.5, 0);
        assert!(cache.find(&entry("1", "two", &["a"]), 0).is_none());
    }

    #[test]
    fn what_tainted_keys_signed_goes_and_so_does_what_has_ended() {
        let mut cache = WitCache::default();
        cache.insert(&entry("1", "one", &["a"]), wit(0, 100), 0.5, 0);
        assert_eq!((cache.drop_signed_by(&["other"]), cache.drop_signed_by(&["k"])), (0, 1));
        for number in 0..SWEEP_FROM {
            cache.insert(&entry(&number.to_string(), "one", &["a"]), wit(0, 100), 0.5, 0);
        }
        cache.insert(&entry("new", "one", &["a"]), wit(200, 300), 0.5, 200);
        assert_eq!(cache.len(), 1);
        cache.clear();
        assert!(cache.is_empty());
    }

    #[test]
    fn debug_shows_no_secret() {
        let text = format!("{:?}", wit(0, 1));
        assert!(!text.contains("secret"), "{text}");
    }
}
