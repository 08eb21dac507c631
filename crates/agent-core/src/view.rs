//! The entries and bundles in force on this agent.
//!
//! Two sources feed it: our push stream ([`View::apply`], by revision) and SPIRE's poll ([`View::replace`], complete
//! views). Both end in the same [`Changes`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;

use crate::entry::Entry;
use crate::snapshot::Snapshot;

/// One message of `steeple.agent.v1.Sync/Watch`.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    pub revision: u64,
    pub log_id: String,
    /// Part of a complete view: what it does not name is gone once `more` is false.
    pub snapshot: bool,
    pub more: bool,
    pub entries: Vec<Entry>,
    pub removed: Vec<String>,
    pub bundles: Vec<Bundle>,
    pub removed_bundles: Vec<TrustDomain>,
    /// Ids of entries whose SVIDs are to be issued again.
    pub rotated: Vec<String>,
    /// All that the agent holds is.
    pub rotate_all: bool,
}

/// What one message or one poll changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// New or changed.
    pub entries: Vec<Arc<Entry>>,
    pub removed: Vec<Arc<str>>,
    /// New or changed.
    pub bundles: Vec<Arc<Bundle>>,
    pub removed_bundles: Vec<TrustDomain>,
    /// Entries whose SVIDs are to be issued again at once, whatever else changed.
    pub rotated: Vec<Arc<Entry>>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
            && self.removed.is_empty()
            && self.bundles.is_empty()
            && self.removed_bundles.is_empty()
            && self.rotated.is_empty()
    }
}

/// Why a message was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    #[error(
        "the server's view (revision {offered}) is older than the one in force (revision {held}): \
         keeping ours and connecting again; check that this server reads from the primary database"
    )]
    Stale { offered: u64, held: u64 },
    #[error(
        "the server sent a change of log {offered:?} while log {held:?} is in force: asking for a complete view"
    )]
    OtherLog { offered: String, held: String },
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct View {
    revision: u64,
    log_id: String,
    entries: HashMap<Arc<str>, Arc<Entry>>,
    bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
    staged: Vec<Delta>,
    /// Log and revision that were in force before [`View::forget`].
    floor: Option<(String, u64)>,
}

impl View {
    /// The newest revision applied, 0 if none.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The log that [`View::revision`] belongs to, empty if none.
    pub fn log_id(&self) -> &str {
        &self.log_id
    }

    pub fn entry(&self, id: &str) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    pub fn bundle(&self, trust_domain: &TrustDomain) -> Option<&Arc<Bundle>> {
        self.bundles.get(trust_domain)
    }

    /// By trust domain.
    pub fn bundles(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.bundles.values()
    }

    pub fn bundle_count(&self) -> usize {
        self.bundles.len()
    }

    /// Drops every entry; the next view has to be a complete one, and still none that is older than the last.
    pub fn forget(&mut self) -> Changes {
        self.staged.clear();
        if self.revision > 0 {
            self.floor = Some((std::mem::take(&mut self.log_id), std::mem::take(&mut self.revision)));
        }
        let removed = self.entries.drain().map(|(id, _)| id).collect();
        Changes { removed, ..Changes::default() }
    }

    /// A broken stream leaves nothing half applied.
    pub fn connection_lost(&mut self) {
        self.staged.clear();
    }

    /// Applies one message. Nothing changes until the last message of a revision is there.
    pub fn apply(&mut self, delta: Delta) -> Result<Changes, ViewError> {
        let same_log = delta.log_id == self.log_id;
        let held = match &self.floor {
            Some((log_id, revision)) if *log_id == delta.log_id => self.revision.max(*revision),
            _ => self.revision,
        };
        if delta.revision < held && (same_log || held > self.revision) {
            self.staged.clear();
            return Err(ViewError::Stale { offered: delta.revision, held });
        }
        if !same_log && !delta.snapshot && !self.log_id.is_empty() {
            self.staged.clear();
            return Err(ViewError::OtherLog { offered: delta.log_id, held: self.log_id.clone() });
        }
        if delta.more {
            self.staged.push(delta);
            return Ok(Changes::default());
        }
        let (revision, log_id, snapshot) = (delta.revision, delta.log_id.clone(), delta.snapshot);
        let mut parts = std::mem::take(&mut self.staged);
        parts.push(delta);
        let mut entries = Vec::new();
        let mut removed = Vec::new();
        let mut bundles = Vec::new();
        let mut removed_bundles = Vec::new();
        let (mut rotated, mut rotate_all) = (Vec::new(), false);
        for part in parts {
            rotated.extend(part.rotated);
            rotate_all |= part.rotate_all;
            entries.extend(part.entries);
            removed.extend(part.removed);
            bundles.extend(part.bundles);
            removed_bundles.extend(part.removed_bundles);
        }
        let mut changes = if snapshot {
            self.replace(entries, bundles)
        } else {
            self.change(entries, removed, bundles, removed_bundles)
        };
        if rotate_all {
            changes.rotated = self.entries.values().cloned().collect();
        } else {
            let named = rotated.iter().filter_map(|id| self.entries.get(&**id));
            let new = named.filter(|entry| !changes.rotated.iter().any(|known| known.id == entry.id));
            let new: Vec<Arc<Entry>> = new.cloned().collect();
            changes.rotated.extend(new);
        }
        self.revision = revision;
        self.log_id = log_id;
        Ok(changes)
    }

    /// Puts a complete view in force.
    pub fn replace(&mut self, entries: Vec<Entry>, bundles: Vec<Bundle>) -> Changes {
        let kept: HashSet<&str> = entries.iter().map(|entry| &*entry.id).collect();
        let removed =
            self.entries.keys().filter(|id| !kept.contains(&***id)).map(ToString::to_string).collect();
        let kept: HashSet<&TrustDomain> = bundles.iter().map(|bundle| &bundle.trust_domain).collect();
        let removed_bundles = self.bundles.keys().filter(|td| !kept.contains(td)).cloned().collect();
        self.change(entries, removed, bundles, removed_bundles)
    }

    /// Puts in force what an earlier process held: from here on nothing older of the same log is accepted.
    pub fn restore(&mut self, snapshot: &mut Snapshot) -> Changes {
        let entries = std::mem::take(&mut snapshot.entries).into_values().collect();
        let bundles = std::mem::take(&mut snapshot.bundles).into_values().collect();
        self.revision = snapshot.revision;
        self.log_id = std::mem::take(&mut snapshot.log_id);
        self.replace(entries, bundles)
    }

    /// What is held was told to another agent: it stays until a complete view takes its place.
    pub fn start_over(&mut self) {
        self.revision = 0;
        self.log_id.clear();
        self.staged.clear();
    }

    fn change(
        &mut self,
        entries: Vec<Entry>,
        removed: Vec<String>,
        bundles: Vec<Bundle>,
        removed_bundles: Vec<TrustDomain>,
    ) -> Changes {
        let mut changes = Changes::default();
        for id in removed {
            if let Some((id, _)) = self.entries.remove_entry(&*id) {
                changes.removed.push(id);
            }
        }
        for entry in entries {
            if self.entries.get(&entry.id).is_some_and(|held| **held == entry) {
                continue;
            }
            let entry = Arc::new(entry);
            let before = self.entries.insert(entry.id.clone(), entry.clone());
            if before.is_some_and(|before| entry.is_rotation_of(&before)) {
                changes.rotated.push(entry.clone());
            }
            // A message may remove and set the same entry: what it holds now counts.
            changes.removed.retain(|id| *id != entry.id);
            changes.entries.push(entry);
        }
        for trust_domain in removed_bundles {
            if self.bundles.remove(&trust_domain).is_some() {
                changes.removed_bundles.push(trust_domain);
            }
        }
        for bundle in bundles {
            if self.bundles.get(&bundle.trust_domain).is_some_and(|held| **held == bundle) {
                continue;
            }
            let bundle = Arc::new(bundle);
            self.bundles.insert(bundle.trust_domain.clone(), bundle.clone());
            changes.removed_bundles.retain(|td| *td != bundle.trust_domain);
            changes.bundles.push(bundle);
        }
        changes
    }
}

#[cfg(test)]
mod tests;
