//! Which X.509-SVIDs need signing, in what order, and what each workload receives.
//!
//! * Workloads with the same selectors share a *group*; groups with the same identities share one [`Content`], whose
//!   wire form is encoded once.
//! * A change touches the groups that the changed entry reaches, found through an index, and nothing else.
//! * Signing goes by priority: a workload waits > an SVID falls due > prefetch. At most one request per entry is under
//!   way; a change of the entry meanwhile makes its answer void.
//! * `x509_svid_cache_max_size` is a soft cap as in SPIRE: entries with subscribers are always served, the others are
//!   signed ahead while there is room and dropped by last use when there is none. [`crate::budget`] counts bytes as well.
//! * An entry with `disable_x509_svid_prefetch`, or past the cap, is signed once somebody asks.

mod clock;
mod groups;
mod index;
mod kept;
mod look;
mod queue;
mod room;
mod state;
mod update;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;

use crate::budget::Uses;
use crate::entry::{Entry, SelectorSet};
use crate::rotation::RotationPolicy;
use crate::view::Changes;
use crate::{Millis, millis};

pub use groups::Subscription;
use groups::{Group, Interest};
use index::{EntryIndex, GroupIndex};
pub use queue::Priority;
use queue::Queue;
pub use state::SvidState;
use update::Interner;
pub use update::{Content, Identity, Svid, Update};

/// Settings of the X.509-SVID cache.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    pub trust_domain: TrustDomain,
    /// `x509_svid_cache_max_size`
    pub max_size: usize,
    /// Bytes of X.509-SVIDs and JWT-SVIDs together, `usize::MAX` = no limit (`experimental.svid_cache_max_bytes`).
    pub max_bytes: usize,
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
    group_ids: HashMap<(SelectorSet, Interest), u64>,
    group_index: GroupIndex,
    next_group: u64,
    queue: Queue,
    interner: Interner,
    /// Records with an SVID and without subscribers, oldest use first.
    idle: BTreeSet<(u64, Arc<str>)>,
    /// Records that could be signed ahead if there were room.
    /// The last use first, reversed.
    parked: BTreeSet<(Reverse<u64>, Arc<str>)>,
    uses: Uses,
    signed: usize,
    /// Of the SVIDs held, and of the largest there was.
    bytes: usize,
    largest: usize,
    /// What JWT-SVIDs hold of `max_bytes`.
    elsewhere: usize,
    in_flight_unsigned: usize,
    /// SVIDs found under an authority that is no longer trusted, since somebody asked.
    distrusted: usize,
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
    /// SVIDs in a row that stood under a tainted authority, or were due, from the start.
    tainted_tries: u32,
    error: Option<Arc<str>>,
    retry_at: Millis,
    due: Millis,
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
            uses: Uses::default(),
            signed: 0,
            bytes: 0,
            largest: 0,
            elsewhere: 0,
            in_flight_unsigned: 0,
            distrusted: 0,
            closed: false,
        }
    }

    /// Takes over what the view changed.
    pub fn apply(&mut self, changes: &Changes, now: Millis) {
        self.interner.forget_recent();
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
        // By a clock that is behind the server's it would fall due too late.
        record.due = record.due.min(now + (record.due - millis(svid.not_before)));
        let born_due = record.due <= now;
        // The server has not left a tainted authority yet, or this clock is far ahead of the server's: it is asked again
        // after a growing pause.
        if born_due || self.tainted.contains(&*svid.authority_key_id) {
            record.tainted_tries = record.tainted_tries.saturating_add(1);
            let pause = TAINTED_INTERVAL << (record.tainted_tries - 1).min(6);
            let again = now + pause.min(crate::node::TAINTED_RETRY_MAX);
            record.due = if born_due { again } else { record.due.min(again) };
        } else {
            record.tainted_tries = 0;
        }
        // A certificate of a tiny lifetime must not spin.
        record.due = record.due.max(now + 1000);
        record.stale = false;
        record.failures = 0;
        record.error = None;
        self.hold(&job.entry.id, svid);
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
            if !entry.keeps_identity_of(&old) {
                self.let_go(&entry.id);
            }
        }
        if entry.selectors != old.selectors {
            self.entries.remove(&old);
            self.entries.insert(entry);
            affected.extend(self.reached(&old.selectors));
        }
    }

    fn remove(&mut self, id: &Arc<str>, affected: &mut HashSet<u64>) {
        let signed = self.let_go(id);
        let Some(record) = self.records.remove(id) else { return };
        self.entries.remove(&record.entry);
        self.queue.remove(id);
        self.parked.remove(&(Reverse(record.used), id.clone()));
        if !signed && record.in_flight {
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
        self.distrusted += touched.len();
        for id in touched {
            self.schedule(&id, now);
        }
    }

    /// Puts a record where it belongs: ready, waiting for a time, parked, or nowhere while a request is under way.
    fn schedule(&mut self, id: &Arc<str>, now: Millis) {
        self.queue.remove(id);
        let Some(record) = self.records.get(id) else { return };
        let (idle, lazy) = (record.subscribers == 0, record.entry.disable_x509_svid_prefetch);
        let place = (Reverse(record.used), id.clone());
        self.parked.remove(&place);
        if record.in_flight {
            return;
        }
        let missing = record.svid.is_none();
        let wanted = missing || record.stale || record.due <= now;
        if !wanted {
            self.queue.at(record.due, id);
        } else if idle && lazy {
            // Replacing what nobody asks for would be signing ahead. It stays for whoever asks while the server is away.
            match record.svid.as_ref().map(|svid| millis(svid.not_after)) {
                Some(end) if end > now => self.queue.at(end, id),
                _ => {
                    self.let_go(id);
                }
            }
        } else if missing && idle {
            self.parked.insert(place);
        } else if record.failures > 0 && record.retry_at > now {
            self.queue.at(record.retry_at, id);
        } else {
            let priority = if missing { Priority::Waiting } else { Priority::Expiring };
            self.queue.ready(priority, id);
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

    /// Waits for the day it falls due, whether or not anybody subscribes to it.
    fn is_settled(&self, now: Millis) -> bool {
        self.svid.is_some() && !self.stale && !self.in_flight && self.due > now
    }
}

#[cfg(test)]
mod tests;
