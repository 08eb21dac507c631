//! Who is told of what: workloads with the same selectors share a group.

use std::collections::HashSet;
use std::sync::Arc;

use steeple_spiffe::TrustDomain;
use tokio::sync::watch;

use super::{Cache, Identity, Update};
use crate::entry::{Entry, SelectorSet};
use crate::{Millis, millis};

/// A place in a group. Give [`Subscription::group`] back with [`Cache::unsubscribe`].
#[derive(Debug)]
pub struct Subscription {
    pub group: u64,
    pub updates: watch::Receiver<Update>,
}

/// What the members of a group are after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Interest {
    /// X.509-SVIDs: what is missing is signed.
    Svids,
    /// Entries and bundles: nothing is signed for it, and a rotation is no news.
    Entries,
}

#[derive(Debug)]
pub(super) struct Group {
    selectors: SelectorSet,
    interest: Interest,
    subscribers: usize,
    members: Vec<Arc<Entry>>,
    updates: watch::Sender<Update>,
}

impl Cache {
    /// Joins the group of these selectors that receives X.509-SVIDs.
    pub fn subscribe(&mut self, selectors: &SelectorSet, now: Millis) -> Subscription {
        self.enter(selectors, Interest::Svids, now)
    }

    /// Joins the group of these selectors that hears of entries and bundles alone: a workload that uses nothing but
    /// JWT-SVIDs costs no X.509-SVID.
    pub fn watch(&mut self, selectors: &SelectorSet, now: Millis) -> Subscription {
        self.enter(selectors, Interest::Entries, now)
    }

    fn enter(&mut self, selectors: &SelectorSet, interest: Interest, now: Millis) -> Subscription {
        let mut subscription = self.join(selectors, interest, now);
        if self.closed {
            let newest = subscription.updates.borrow().clone();
            subscription.updates = watch::channel(newest).1;
        }
        subscription
    }

    fn join(&mut self, selectors: &SelectorSet, interest: Interest, now: Millis) -> Subscription {
        let key = (selectors.clone(), interest);
        if let Some(id) = self.group_ids.get(&key)
            && let Some(group) = self.groups.get_mut(id)
        {
            group.subscribers += 1;
            return Subscription { group: *id, updates: group.updates.subscribe() };
        }
        self.next_group += 1;
        let id = self.next_group;
        let (sender, updates) = watch::channel(Update::default());
        let group = Group {
            selectors: selectors.clone(),
            interest,
            subscribers: 1,
            members: Vec::new(),
            updates: sender,
        };
        self.groups.insert(id, group);
        self.group_ids.insert(key, id);
        self.group_index.insert(id, selectors);
        self.refresh(id, now);
        self.trim(now);
        Subscription { group: id, updates }
    }

    /// Ends every subscription, and those to come as soon as they begin: what waits for an update hears that there
    /// will be none.
    pub fn close(&mut self) {
        self.closed = true;
        for group in self.groups.values_mut() {
            // The last sender goes; what the group matched stays, so that nobody is told that it has no identity.
            let newest = group.updates.borrow().clone();
            group.updates = watch::channel(newest).0;
        }
    }

    /// Leaves a group. The last one to leave closes it.
    pub fn unsubscribe(&mut self, id: u64, now: Millis) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.subscribers -= 1;
        if group.subscribers > 0 {
            return;
        }
        if let Some(group) = self.groups.remove(&id) {
            self.group_index.remove(id, &group.selectors);
            if group.interest == Interest::Svids {
                for entry in &group.members {
                    self.release(&entry.id, now);
                }
            }
            // Unless bytes are counted: these are not.
            if self.config.max_bytes == usize::MAX {
                self.interner.keep(group.updates.borrow().content.clone());
            }
            self.group_ids.remove(&(group.selectors, group.interest));
        }
        self.trim(now);
        self.fill(now);
    }

    /// Groups with a member that federates with this trust domain.
    pub(super) fn federating(&self, trust_domain: &TrustDomain, affected: &mut HashSet<u64>) {
        let federates = |entry: &Arc<Entry>| entry.federates_with.contains(trust_domain);
        affected.extend(
            self.groups.iter().filter(|(_, group)| group.members.iter().any(federates)).map(|(id, _)| *id),
        );
    }

    /// Groups that an entry with these selectors is served to.
    pub(super) fn reached(&self, selectors: &SelectorSet) -> Vec<u64> {
        self.group_index
            .candidates(selectors)
            .filter(|id| self.groups.get(id).is_some_and(|group| selectors.is_subset_of(&group.selectors)))
            .collect()
    }

    /// Works out anew what a group receives and tells it if that changed.
    pub(super) fn refresh(&mut self, id: u64, now: Millis) {
        let Some(group) = self.groups.get(&id) else { return };
        let interest = group.interest;
        let members = self.matching(&group.selectors);
        let previous = match self.groups.get_mut(&id) {
            Some(group) => std::mem::replace(&mut group.members, members.clone()),
            None => return,
        };
        let mut identities = Vec::new();
        let mut pending = false;
        let mut error = None;
        if interest == Interest::Svids {
            for entry in &members {
                self.retain(&entry.id, now);
            }
            for entry in &previous {
                self.release(&entry.id, now);
            }
            for entry in &members {
                let Some(record) = self.records.get(&entry.id) else { continue };
                match &record.svid {
                    Some(svid) if millis(svid.not_after) > now => {
                        identities.push(Identity { entry: entry.clone(), svid: svid.clone() });
                    }
                    _ if record.failures == 0 => pending = true,
                    _ => error.clone_from(&record.error),
                }
            }
        }
        let (bundle, federated) = self.bundles_for(&members);
        let content = self.interner.intern(identities, bundle, federated);
        let update = Update { content, matched: members.into(), pending, error };
        if let Some(group) = self.groups.get(&id) {
            group.updates.send_if_modified(|current| {
                let changed = !current.same_as(&update);
                if changed {
                    *current = update;
                }
                changed
            });
        }
    }

    fn retain(&mut self, id: &Arc<str>, now: Millis) {
        if let Some(record) = self.records.get_mut(id) {
            record.subscribers += 1;
            if record.subscribers == 1 {
                self.idle.remove(&(record.used, id.clone()));
                if !record.is_settled(now) {
                    self.schedule(id, now);
                }
            }
        }
    }

    fn release(&mut self, id: &Arc<str>, now: Millis) {
        if let Some(record) = self.records.get_mut(id) {
            // A record that was removed and came back starts without subscribers.
            record.subscribers = record.subscribers.saturating_sub(1);
            if record.subscribers == 0 {
                record.used = self.uses.next();
                if record.svid.is_some() {
                    self.idle.insert((record.used, id.clone()));
                }
                if !record.is_settled(now) {
                    self.schedule(id, now);
                }
            }
        }
    }
}
