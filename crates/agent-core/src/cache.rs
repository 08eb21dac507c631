//! Which X.509-SVIDs need signing, in what order, and what each workload receives.
//!
//! * Workloads with the same selectors share a *group*; groups with the same identities share one [`Content`], whose
//!   wire form is encoded once.
//! * A change touches the groups that the changed entry reaches, found through an index, and nothing else.
//! * Signing goes by priority: a workload waits > an SVID falls due > prefetch. At most one request per entry is under
//!   way; a change of the entry meanwhile makes its answer void.
//! * `x509_svid_cache_max_size` is a soft cap as in SPIRE: entries with subscribers are always served, the others are
//!   signed ahead while there is room and dropped by last use when there is none.

mod index;
mod look;
mod queue;
mod update;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;
use tokio::sync::watch;

use crate::entry::{Entry, SelectorSet};
use crate::rotation::RotationPolicy;
use crate::view::Changes;
use crate::{Millis, millis};

use index::{EntryIndex, GroupIndex};
pub use queue::Priority;
use queue::Queue;
use update::Interner;
pub use update::{Content, Identity, Svid, Update};

/// Settings of the X.509-SVID cache.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    pub trust_domain: TrustDomain,
    /// `x509_svid_cache_max_size`
    pub max_size: usize,
    pub rotation: RotationPolicy,
    /// Seeds the jitter.
    pub seed: u64,
}

/// One SVID to have signed.
#[derive(Clone, Debug)]
pub struct SignJob {
    pub entry: Arc<Entry>,
    pub priority: Priority,
    /// When the SVID that it replaces ends, Unix seconds.
    pub replaces: Option<i64>,
    /// It is replaced because it falls due, not because its entry changed.
    pub expiring: bool,
    generation: u64,
}

/// A place in a group. Give [`Subscription::group`] back with [`Cache::unsubscribe`].
#[derive(Debug)]
pub struct Subscription {
    pub group: u64,
    pub updates: watch::Receiver<Update>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Cache {
    config: CacheConfig,
    rng: fastrand::Rng,
    bundle: Option<Arc<Bundle>>,
    /// Subject key ids of our bundle's tainted authorities.
    tainted: HashSet<Box<[u8]>>,
    federated: HashMap<TrustDomain, Arc<Bundle>>,
    records: HashMap<Arc<str>, Record>,
    entries: EntryIndex,
    groups: HashMap<u64, Group>,
    group_ids: HashMap<SelectorSet, u64>,
    group_index: GroupIndex,
    next_group: u64,
    queue: Queue,
    interner: Interner,
    /// Records with an SVID and without subscribers, oldest use first.
    idle: BTreeSet<(u64, Arc<str>)>,
    /// Records that could be signed ahead if there were room.
    parked: BTreeSet<Arc<str>>,
    uses: u64,
    signed: usize,
    in_flight_unsigned: usize,
    closed: bool,
}

#[derive(Debug)]
struct Record {
    entry: Arc<Entry>,
    svid: Option<Arc<Svid>>,
    /// The SVID is to be replaced: due, tainted, or the entry asks for something else now.
    stale: bool,
    /// Groups that serve this entry.
    subscribers: usize,
    used: u64,
    generation: u64,
    in_flight: bool,
    failures: u32,
    /// SVIDs in a row that stood under a tainted authority from the start.
    tainted_tries: u32,
    error: Option<Arc<str>>,
    retry_at: Millis,
    due: Millis,
}

#[derive(Debug)]
struct Group {
    selectors: SelectorSet,
    subscribers: usize,
    members: Vec<Arc<Entry>>,
    updates: watch::Sender<Update>,
}

/// SPIRE's signing loop: 500 ms, ×1.5, at most 4 minutes.
const RETRY_FIRST: f64 = 500.0;
const RETRY_FACTOR: f64 = 1.5;
const RETRY_MAX: f64 = 240_000.0;
/// SVIDs of a tainted authority are replaced in batches of 100 every 5 s (SPIRE).
const TAINTED_BATCH: usize = 100;
const TAINTED_INTERVAL: Millis = 5_000;

impl Cache {
    pub fn new(config: CacheConfig) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(config.seed),
            config,
            bundle: None,
            tainted: HashSet::new(),
            federated: HashMap::new(),
            records: HashMap::new(),
            entries: EntryIndex::default(),
            groups: HashMap::new(),
            group_ids: HashMap::new(),
            group_index: GroupIndex::default(),
            next_group: 0,
            queue: Queue::default(),
            interner: Interner::default(),
            idle: BTreeSet::new(),
            parked: BTreeSet::new(),
            uses: 0,
            signed: 0,
            in_flight_unsigned: 0,
            closed: false,
        }
    }

    /// Takes over what the view changed.
    pub fn apply(&mut self, changes: &Changes, now: Millis) {
        let mut affected = HashSet::new();
        for id in &changes.removed {
            self.remove(id, &mut affected);
        }
        for entry in &changes.entries {
            if entry.store_svid {
                self.remove(&entry.id, &mut affected);
            } else {
                self.set(entry, &mut affected);
            }
        }
        let mut everyone = false;
        for bundle in &changes.bundles {
            if bundle.trust_domain == self.config.trust_domain {
                let before = self.bundle.replace(bundle.clone());
                let tainted = bundle.x509_authorities.iter().filter(|authority| authority.tainted);
                self.tainted = tainted
                    .filter_map(|authority| authority.certificate.subject_key_id())
                    .map(Into::into)
                    .collect();
                self.distrust(before.as_deref(), bundle, now);
                everyone = true;
            } else {
                self.federated.insert(bundle.trust_domain.clone(), bundle.clone());
                self.federating(&bundle.trust_domain, &mut affected);
            }
        }
        for trust_domain in &changes.removed_bundles {
            if self.federated.remove(trust_domain).is_some() {
                self.federating(trust_domain, &mut affected);
            }
        }
        if everyone {
            affected.extend(self.groups.keys().copied());
        }
        for entry in &changes.rotated {
            self.rotate(&entry.id);
        }
        for group in affected {
            self.refresh(group, now);
        }
        for entry in changes.entries.iter().chain(&changes.rotated) {
            self.schedule(&entry.id, now);
        }
        self.fill(now);
        self.trim(now);
    }

    /// Joins the group of these selectors.
    pub fn subscribe(&mut self, selectors: &SelectorSet, now: Millis) -> Subscription {
        let mut subscription = self.join(selectors, now);
        if self.closed {
            let newest = subscription.updates.borrow().clone();
            subscription.updates = watch::channel(newest).1;
        }
        subscription
    }

    fn join(&mut self, selectors: &SelectorSet, now: Millis) -> Subscription {
        if let Some(id) = self.group_ids.get(selectors)
            && let Some(group) = self.groups.get_mut(id)
        {
            group.subscribers += 1;
            return Subscription { group: *id, updates: group.updates.subscribe() };
        }
        self.next_group += 1;
        let id = self.next_group;
        let (sender, updates) = watch::channel(Update::default());
        let group =
            Group { selectors: selectors.clone(), subscribers: 1, members: Vec::new(), updates: sender };
        self.groups.insert(id, group);
        self.group_ids.insert(selectors.clone(), id);
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
            self.group_ids.remove(&group.selectors);
            self.group_index.remove(id, &group.selectors);
            for entry in group.members {
                self.release(&entry.id, now);
            }
        }
        self.interner.sweep();
        self.trim(now);
        self.fill(now);
    }

    /// When [`Cache::take_jobs`] next has something at least as urgent as `least`, if nothing else happens. May be in
    /// the past.
    pub fn next_wake(&self, least: Priority) -> Option<Millis> {
        self.queue.next_wake(least)
    }

    /// SVIDs to have signed now, all equally urgent, at least as urgent as `least`. Answer each with [`Cache::issued`]
    /// or [`Cache::failed`].
    pub fn take_jobs(&mut self, max: usize, least: Priority, now: Millis) -> Vec<SignJob> {
        for id in self.queue.due(now) {
            if let Some(record) = self.records.get_mut(&id)
                && record.svid.is_some()
                && record.due <= now
            {
                record.stale = true;
            }
            self.schedule(&id, now);
        }
        let mut jobs = Vec::new();
        // A workload that waits must not wait for the rest of a batch that nobody waits for.
        let Some(urgency) = self.queue.next_priority().filter(|next| *next <= least) else { return jobs };
        while jobs.len() < max && self.queue.next_priority() == Some(urgency) {
            let Some((priority, id)) = self.queue.pop() else { break };
            let Some(record) = self.records.get_mut(&id) else { continue };
            record.in_flight = true;
            if record.svid.is_none() {
                self.in_flight_unsigned += 1;
            }
            jobs.push(SignJob {
                entry: record.entry.clone(),
                priority,
                replaces: record.svid.as_ref().map(|svid| svid.not_after),
                expiring: record.svid.is_some() && record.due <= now,
                generation: record.generation,
            });
        }
        jobs
    }

    /// The server signed it.
    /// False if it came too late: the entry changed or went meanwhile.
    pub fn issued(&mut self, job: &SignJob, svid: Svid, now: Millis) -> bool {
        self.settle([(job, Ok(svid))], now) == [true]
    }

    /// The server did not sign it: tried again after a growing pause.
    pub fn failed(&mut self, job: &SignJob, error: &str, now: Millis) {
        self.settle([(job, Err(error.to_owned()))], now);
    }

    /// A batch of [`Cache::issued`] and [`Cache::failed`] in one: who receives many of them hears it once. Says of each
    /// whether an SVID was taken over.
    pub fn settle<'a>(
        &mut self,
        outcomes: impl IntoIterator<Item = (&'a SignJob, Result<Svid, String>)>,
        now: Millis,
    ) -> Vec<bool> {
        let mut reached = HashSet::new();
        let mut taken = Vec::new();
        for (job, outcome) in outcomes {
            let (issued, tells) = match outcome {
                Ok(svid) => {
                    let issued = self.take_svid(job, svid, now);
                    (issued, issued)
                }
                Err(error) => (false, self.take_failure(job, &error, now)),
            };
            taken.push(issued);
            if tells {
                reached.extend(self.reached(&job.entry.selectors));
            }
        }
        for group in reached {
            self.refresh(group, now);
        }
        self.trim(now);
        taken
    }

    fn take_svid(&mut self, job: &SignJob, svid: Svid, now: Millis) -> bool {
        if !self.answered(job) {
            return false;
        }
        let random = self.rng.f64();
        let policy = self.config.rotation;
        let Some(record) = self.records.get_mut(&job.entry.id) else { return false };
        record.due = policy.due(millis(svid.not_before), millis(svid.not_after), random);
        // The server has not left a tainted authority yet: it is asked again after a growing pause.
        if self.tainted.contains(&*svid.authority_key_id) {
            record.tainted_tries = record.tainted_tries.saturating_add(1);
            let pause = TAINTED_INTERVAL << (record.tainted_tries - 1).min(6);
            record.due = record.due.min(now + pause.min(crate::node::TAINTED_RETRY_MAX));
        } else {
            record.tainted_tries = 0;
        }
        // A certificate that is born due (clock off, tiny lifetime) must not spin.
        record.due = record.due.max(now + 1000);
        record.stale = false;
        record.failures = 0;
        record.error = None;
        if record.svid.replace(Arc::new(svid)).is_none() {
            self.signed += 1;
        }
        if record.subscribers == 0 {
            self.uses += 1;
            self.idle.remove(&(record.used, job.entry.id.clone()));
            record.used = self.uses;
            self.idle.insert((record.used, job.entry.id.clone()));
        }
        self.schedule(&job.entry.id, now);
        true
    }

    /// True if it is the first failure of this SVID.
    fn take_failure(&mut self, job: &SignJob, error: &str, now: Millis) -> bool {
        if !self.answered(job) {
            return false;
        }
        let jitter = 0.9 + 0.2 * self.rng.f64();
        let Some(record) = self.records.get_mut(&job.entry.id) else { return false };
        let pause = (RETRY_FIRST * RETRY_FACTOR.powi(record.failures.min(30) as i32)).min(RETRY_MAX);
        let first = record.failures == 0;
        record.failures += 1;
        record.error = Some(error.into());
        record.retry_at = now + (pause * jitter) as Millis;
        self.schedule(&job.entry.id, now);
        first
    }

    /// Has this entry's SVID signed again at once; one that is being signed now counts as old.
    fn rotate(&mut self, id: &Arc<str>) {
        let Some(record) = self.records.get_mut(id) else { return };
        record.stale = record.svid.is_some();
        record.failures = 0;
        record.retry_at = 0;
        record.generation += 1;
        if std::mem::take(&mut record.in_flight) && record.svid.is_none() {
            self.in_flight_unsigned -= 1;
        }
    }

    /// A signing path that came back makes pauses pointless.
    pub fn retry_now(&mut self, now: Millis) {
        let failed: Vec<Arc<str>> = self
            .records
            .iter_mut()
            .filter(|(_, record)| record.failures > 0 && record.retry_at > now)
            .map(|(id, record)| {
                record.retry_at = now;
                id.clone()
            })
            .collect();
        for id in failed {
            self.schedule(&id, now);
        }
    }

    fn set(&mut self, entry: &Arc<Entry>, affected: &mut HashSet<u64>) {
        affected.extend(self.reached(&entry.selectors));
        let Some(record) = self.records.get_mut(&entry.id) else {
            self.entries.insert(entry);
            self.records.insert(entry.id.clone(), Record::new(entry.clone()));
            return;
        };
        let old = std::mem::replace(&mut record.entry, entry.clone());
        if !entry.same_certificate_as(&old) {
            record.stale = true;
            record.failures = 0;
            record.retry_at = 0;
            record.generation += 1;
            if std::mem::take(&mut record.in_flight) && record.svid.is_none() {
                self.in_flight_unsigned -= 1;
            }
            if !entry.keeps_identity_of(&old) && record.svid.take().is_some() {
                self.signed -= 1;
                self.idle.remove(&(record.used, entry.id.clone()));
            }
        }
        if entry.selectors != old.selectors {
            self.entries.remove(&old);
            self.entries.insert(entry);
            affected.extend(self.reached(&old.selectors));
        }
    }

    fn remove(&mut self, id: &Arc<str>, affected: &mut HashSet<u64>) {
        let Some(record) = self.records.remove(id) else { return };
        self.entries.remove(&record.entry);
        self.queue.remove(id);
        self.parked.remove(id);
        self.idle.remove(&(record.used, id.clone()));
        if record.svid.is_some() {
            self.signed -= 1;
        } else if record.in_flight {
            self.in_flight_unsigned -= 1;
        }
        affected.extend(self.reached(&record.entry.selectors));
    }

    /// Clears the way for the answer to `job`; false if the entry changed or went meanwhile.
    fn answered(&mut self, job: &SignJob) -> bool {
        match self.records.get_mut(&job.entry.id) {
            Some(record) if record.generation == job.generation && record.in_flight => {
                record.in_flight = false;
                if record.svid.is_none() {
                    self.in_flight_unsigned -= 1;
                }
                true
            }
            _ => false,
        }
    }

    /// Authorities that are tainted or gone now make the SVIDs they signed stale, a batch at a time.
    fn distrust(&mut self, before: Option<&Bundle>, after: &Bundle, now: Millis) {
        let Some(before) = before else { return };
        let trusted = |bundle: &Bundle| -> HashSet<Vec<u8>> {
            bundle
                .x509_authorities
                .iter()
                .filter(|authority| !authority.tainted)
                .filter_map(|authority| authority.certificate.subject_key_id())
                .collect()
        };
        let after = trusted(after);
        let lost: HashSet<Vec<u8>> = trusted(before).difference(&after).cloned().collect();
        if lost.is_empty() {
            return;
        }
        let mut touched = Vec::new();
        for (id, record) in &mut self.records {
            if record.svid.as_ref().is_some_and(|svid| lost.contains(&*svid.authority_key_id)) {
                record.due =
                    record.due.min(now + TAINTED_INTERVAL * (touched.len() / TAINTED_BATCH) as Millis);
                touched.push(id.clone());
            }
        }
        for id in touched {
            self.schedule(&id, now);
        }
    }

    fn federating(&self, trust_domain: &TrustDomain, affected: &mut HashSet<u64>) {
        let federates = |entry: &Arc<Entry>| entry.federates_with.contains(trust_domain);
        affected.extend(
            self.groups.iter().filter(|(_, group)| group.members.iter().any(federates)).map(|(id, _)| *id),
        );
    }

    /// Groups that an entry with these selectors is served to.
    fn reached(&self, selectors: &SelectorSet) -> Vec<u64> {
        self.group_index
            .candidates(selectors)
            .filter(|id| self.groups.get(id).is_some_and(|group| selectors.is_subset_of(&group.selectors)))
            .collect()
    }

    /// Works out anew what a group receives and tells it if that changed.
    fn refresh(&mut self, id: u64, now: Millis) {
        let Some(group) = self.groups.get(&id) else { return };
        let members = self.matching(&group.selectors);
        let previous = match self.groups.get_mut(&id) {
            Some(group) => std::mem::replace(&mut group.members, members.clone()),
            None => return,
        };
        for entry in &members {
            self.retain(&entry.id, now);
        }
        for entry in &previous {
            self.release(&entry.id, now);
        }
        let mut identities = Vec::new();
        let mut pending = false;
        let mut error = None;
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
                self.schedule(id, now);
            }
        }
    }

    fn release(&mut self, id: &Arc<str>, now: Millis) {
        if let Some(record) = self.records.get_mut(id) {
            // A record that was removed and came back starts without subscribers.
            record.subscribers = record.subscribers.saturating_sub(1);
            if record.subscribers == 0 {
                self.uses += 1;
                record.used = self.uses;
                if record.svid.is_some() {
                    self.idle.insert((record.used, id.clone()));
                }
                self.schedule(id, now);
            }
        }
    }

    /// Puts a record where it belongs: ready, waiting for a time, parked, or nowhere while a request is under way.
    fn schedule(&mut self, id: &Arc<str>, now: Millis) {
        self.queue.remove(id);
        self.parked.remove(id);
        let Some(record) = self.records.get(id) else { return };
        if record.in_flight {
            return;
        }
        let missing = record.svid.is_none();
        let wanted = missing || record.stale || record.due <= now;
        if !wanted {
            self.queue.at(record.due, id);
        } else if missing && record.subscribers == 0 {
            if !record.entry.disable_x509_svid_prefetch {
                self.parked.insert(id.clone());
            }
        } else if record.failures > 0 && record.retry_at > now {
            self.queue.at(record.retry_at, id);
        } else {
            let priority = if missing { Priority::Waiting } else { Priority::Expiring };
            self.queue.ready(priority, id);
        }
    }

    /// Signs ahead while there is room.
    fn fill(&mut self, now: Millis) {
        let mut room = self
            .config
            .max_size
            .saturating_sub(self.signed + self.in_flight_unsigned + self.queue.ready_without_svid());
        while room > 0 {
            let Some(id) = self.parked.pop_first() else { return };
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
    fn trim(&mut self, now: Millis) {
        while self.signed > self.config.max_size {
            let Some((_, id)) = self.idle.pop_first() else { return };
            if let Some(record) = self.records.get_mut(&id)
                && record.svid.take().is_some()
            {
                self.signed -= 1;
                record.stale = false;
                if std::mem::take(&mut record.in_flight) {
                    record.generation += 1;
                }
                self.schedule(&id, now);
            }
        }
    }
}

impl Record {
    fn new(entry: Arc<Entry>) -> Self {
        Self {
            entry,
            svid: None,
            stale: false,
            subscribers: 0,
            used: 0,
            generation: 0,
            in_flight: false,
            failures: 0,
            tainted_tries: 0,
            error: None,
            retry_at: 0,
            due: Millis::MAX,
        }
    }
}

#[cfg(test)]
mod tests;
