//! What can be asked of the cache.

use std::sync::Arc;

use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;

use super::Cache;
use crate::budget::Uses;
use crate::entry::{Entry, SelectorSet, unique_hints};
use crate::rotation::RotationPolicy;

impl Cache {
    /// How many X.509-SVIDs are held.
    pub fn svid_count(&self) -> usize {
        self.signed
    }

    /// Bytes of the X.509-SVIDs held, and the most that these and JWT-SVIDs may take together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn max_bytes(&self) -> usize {
        self.config.max_bytes
    }

    /// When SVIDs are replaced.
    pub fn rotation(&self) -> RotationPolicy {
        self.config.rotation
    }

    /// What numbers the uses of this cache; a [`crate::budget`] needs that of both caches to be one.
    pub fn uses(&self) -> Uses {
        self.uses.clone()
    }

    /// How many X.509-SVIDs turned out to be under an authority that is tainted or gone, since this was asked last.
    pub fn take_distrusted(&mut self) -> usize {
        std::mem::take(&mut self.distrusted)
    }

    /// How many entries are known.
    pub fn entry_count(&self) -> usize {
        self.records.len()
    }

    /// The own trust domain's bundle.
    pub fn bundle(&self) -> Option<&Arc<Bundle>> {
        self.bundle.as_ref()
    }

    /// Every bundle known: the own one first, then by trust domain.
    pub fn bundles(&self) -> Vec<Arc<Bundle>> {
        let mut federated: Vec<_> = self.federated.values().cloned().collect();
        federated.sort_by(|a, b| a.trust_domain.cmp(&b.trust_domain));
        self.bundle.iter().cloned().chain(federated).collect()
    }

    pub fn entry(&self, id: &str) -> Option<&Arc<Entry>> {
        self.records.get(id).map(|record| &record.entry)
    }

    /// Whether the bundle of this trust domain is known.
    pub fn has_bundle(&self, trust_domain: &TrustDomain) -> bool {
        *trust_domain == self.config.trust_domain && self.bundle.is_some()
            || self.federated.contains_key(trust_domain)
    }

    /// Whether an X.509-SVID of this entry is held.
    pub fn has_svid(&self, id: &str) -> bool {
        self.records.get(id).is_some_and(|record| record.svid.is_some())
    }

    /// Entries that a workload with these selectors may have: by entry id, hints unique.
    pub fn matching(&self, selectors: &SelectorSet) -> Vec<Arc<Entry>> {
        let mut matched: Vec<Arc<Entry>> = self
            .entries
            .candidates(selectors)
            .filter_map(|id| self.records.get(id))
            .filter(|record| record.entry.matches(selectors))
            .map(|record| record.entry.clone())
            .collect();
        matched.sort_by(|a, b| a.id.cmp(&b.id));
        unique_hints(&mut matched);
        matched
    }

    /// Bundles that a workload with these entries may use: the own one first.
    pub fn bundles_for(&self, entries: &[Arc<Entry>]) -> (Option<Arc<Bundle>>, Vec<Arc<Bundle>>) {
        let mut domains: Vec<&TrustDomain> = entries.iter().flat_map(|entry| &entry.federates_with).collect();
        domains.sort();
        domains.dedup();
        let federated = domains.into_iter().filter_map(|td| self.federated.get(td).cloned()).collect();
        (self.bundle.clone(), federated)
    }
}
