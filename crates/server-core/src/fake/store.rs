use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use steeple_datastore::model::{Agent, CaJournal, Entry, JoinToken};
use steeple_datastore::{
    AgentFilter, AgentUpdate, AuthorityChange, BundleDeleteMode, BundleMask, Change, ChangedBundle, Created,
    Datastore, EntryFilter, EntryIds, EntryMask, Error, FederationMask, FederationRelationship, Logged, Page,
    PageRequest, PrunedBundle, RefreshedBundle, Result, Revision, Snapshot,
};
use steeple_spiffe::{Bundle, SpiffeId, TrustDomain};
use tokio::sync::watch;

use super::{Faults, Outcome};

pub struct FakeStore {
    pub faults: Arc<Faults>,
    inner: Mutex<Inner>,
    head: watch::Sender<Revision>,
}

#[derive(Default)]
struct Inner {
    head: Revision,
    log_id: String,
    /// Revisions up to this one are no longer in the log.
    trimmed: u64,
    log: Vec<Logged>,
    entries: BTreeMap<String, Entry>,
    agents: BTreeMap<SpiffeId, Agent>,
    bundles: BTreeMap<TrustDomain, Bundle>,
    journals: BTreeMap<u64, CaJournal>,
}

impl FakeStore {
    pub fn new(faults: Arc<Faults>) -> Self {
        let inner = Inner { log_id: "log-1".to_owned(), ..Inner::default() };
        Self { faults, inner: Mutex::new(inner), head: watch::Sender::new(Revision(0)) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Commits and tells.
    pub fn commit(&self, change: Change) -> Result<()> {
        self.commit_quietly(change)?;
        self.head.send_replace(self.inner().head);
        Ok(())
    }

    /// Tells of a revision that cannot be read yet, as where a standby is read.
    pub fn tell(&self, head: Revision) {
        self.head.send_replace(head);
    }

    /// As another server's commit that the engine does not tell of.
    pub fn commit_quietly(&self, change: Change) -> Result<()> {
        let outcome = self.faults.effect();
        if outcome == Outcome::Fails {
            return Err(crashed());
        }
        let mut inner = self.inner();
        match &change {
            Change::EntrySet(entry) | Change::EntryRotated(entry) => {
                inner.entries.insert(entry.id.clone(), (**entry).clone());
            }
            Change::EntryGone { id } => {
                inner.entries.remove(id);
            }
            Change::AgentSet(agent) => {
                inner.agents.insert(agent.id.clone(), (**agent).clone());
            }
            Change::AgentGone { id } => {
                inner.agents.remove(id);
            }
            Change::BundleGone { trust_domain } => {
                inner.bundles.remove(trust_domain);
            }
            Change::BundleSet(_) | Change::AgentRotated(_) | Change::Federation { .. } | Change::Other => {}
        }
        inner.head.0 += 1;
        let revision = inner.head;
        inner.log.push(Logged { revision, change });
        if outcome == Outcome::Works { Ok(()) } else { Err(crashed()) }
    }

    pub fn commit_bundle(&self, bundle: Bundle) -> Result<()> {
        let (trust_domain, sequence_number) = (bundle.trust_domain.clone(), bundle.sequence_number);
        let change = Change::BundleSet(ChangedBundle { trust_domain: trust_domain.clone(), sequence_number });
        let before = self.inner().bundles.insert(trust_domain.clone(), bundle);
        let committed = self.commit(change);
        if committed.is_err() && self.inner().log.last().is_none_or(|logged| !matches!(&logged.change, Change::BundleSet(set) if set.sequence_number == sequence_number)) {
            // It did not take place.
            match before {
                Some(before) => self.inner().bundles.insert(trust_domain, before),
                None => self.inner().bundles.remove(&trust_domain),
            };
        }
        committed
    }

    pub fn add_journal(&self, journal: CaJournal) {
        self.inner().journals.insert(journal.id, journal);
    }

    /// Forgets the whole log.
    pub fn trim_all(&self) {
        let mut inner = self.inner();
        inner.trimmed = inner.head.0;
        inner.log.clear();
    }

    /// The database was replaced by an older copy.
    pub fn restore(&self, log_id: &str, head: u64) {
        let mut inner = self.inner();
        log_id.clone_into(&mut inner.log_id);
        inner.head = Revision(head);
        inner.trimmed = head;
        inner.log.clear();
    }

    pub fn bundle(&self, trust_domain: &TrustDomain) -> Option<Bundle> {
        self.inner().bundles.get(trust_domain).cloned()
    }

    pub fn journals(&self) -> Vec<CaJournal> {
        self.inner().journals.values().cloned().collect()
    }
}

fn crashed() -> Error {
    Error::Unavailable("crashed".to_owned())
}

fn unused<T>() -> Result<T> {
    Err(Error::Internal("not in the fake".to_owned()))
}

#[async_trait]
impl Datastore for FakeStore {
    async fn head(&self) -> Result<Revision> {
        Ok(self.inner().head)
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Vec<Logged>> {
        let inner = self.inner();
        if after.0 < inner.trimmed || after > inner.head {
            return Err(Error::LogTruncated(after.0));
        }
        Ok(inner.log.iter().filter(|logged| logged.revision > after).take(limit).cloned().collect())
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        let inner = self.inner();
        Ok(Snapshot {
            revision: inner.head,
            log_id: inner.log_id.clone(),
            entries: inner.entries.values().cloned().collect(),
            agents: inner.agents.values().cloned().collect(),
            bundles: inner.bundles.values().cloned().collect(),
            rotated_agents: Vec::new(),
        })
    }

    fn watch_head(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    async fn trim_log(&self, _keep: u64) -> Result<u64> {
        unused()
    }

    async fn create_entries(&self, _entries: Vec<Entry>, _now: i64) -> Result<Vec<Result<Created>>> {
        unused()
    }

    async fn fetch_entry(&self, _id: &str) -> Result<Option<Entry>> {
        unused()
    }

    async fn list_entry_ids(&self, _filter: &EntryFilter, _page: &PageRequest) -> Result<Option<EntryIds>> {
        unused()
    }

    async fn list_entries(&self, _filter: &EntryFilter, _page: &PageRequest) -> Result<Page<Entry>> {
        unused()
    }

    async fn count_entries(&self, _filter: &EntryFilter) -> Result<u64> {
        unused()
    }

    async fn update_entry(&self, _entry: Entry, _mask: EntryMask, _now: i64) -> Result<Option<Entry>> {
        unused()
    }

    async fn delete_entries(&self, _ids: Vec<String>) -> Result<Vec<bool>> {
        unused()
    }

    async fn rotate_entries(&self, _ids: Vec<String>, _now: i64) -> Result<Vec<bool>> {
        unused()
    }

    async fn prune_entries(&self, _before: i64) -> Result<u64> {
        unused()
    }

    async fn put_agent(&self, agent: Agent, _now: i64) -> Result<()> {
        self.commit(Change::AgentSet(Box::new(agent)))
    }

    async fn put_agent_for_token(&self, _token: &str, _agent: Agent, _now: i64) -> Result<bool> {
        unused()
    }

    async fn fetch_agent(&self, _id: &SpiffeId) -> Result<Option<Agent>> {
        unused()
    }

    async fn list_agents(&self, _filter: &AgentFilter, _page: &PageRequest) -> Result<Page<Agent>> {
        unused()
    }

    async fn count_agents(&self, _filter: &AgentFilter) -> Result<u64> {
        unused()
    }

    async fn update_agent(&self, _id: &SpiffeId, _update: AgentUpdate, _now: i64) -> Result<Option<Agent>> {
        unused()
    }

    async fn promote_agent_serial(&self, _id: &SpiffeId, _serial: &str, _now: i64) -> Result<Option<Agent>> {
        unused()
    }

    async fn delete_agent(&self, _id: &SpiffeId) -> Result<Option<Agent>> {
        unused()
    }

    async fn rotate_agents(&self, _ids: Vec<SpiffeId>, _now: i64) -> Result<Vec<Option<Agent>>> {
        unused()
    }

    async fn prune_agents(&self, _before: i64, _include_non_reattestable: bool, _limit: u32) -> Result<u64> {
        unused()
    }

    async fn create_join_token(&self, _token: JoinToken, _now: i64) -> Result<()> {
        unused()
    }

    async fn fetch_join_token(&self, _token: &str) -> Result<Option<JoinToken>> {
        unused()
    }

    async fn take_join_token(&self, _token: &str) -> Result<Option<JoinToken>> {
        unused()
    }

    async fn prune_join_tokens(&self, _before: i64) -> Result<u64> {
        unused()
    }

    async fn fetch_bundle(&self, trust_domain: &TrustDomain) -> Result<Option<Bundle>> {
        Ok(self.inner().bundles.get(trust_domain).cloned())
    }

    async fn list_bundles(&self, _page: &PageRequest) -> Result<Page<Bundle>> {
        unused()
    }

    async fn count_bundles(&self) -> Result<u64> {
        unused()
    }

    async fn create_bundle(&self, _bundle: Bundle, _now: i64) -> Result<Bundle> {
        unused()
    }

    async fn update_bundle(&self, _bundle: Bundle, _mask: BundleMask, _now: i64) -> Result<Option<Bundle>> {
        unused()
    }

    async fn set_bundle(&self, bundle: Bundle, _now: i64) -> Result<Bundle> {
        self.commit_bundle(bundle.clone())?;
        Ok(bundle)
    }

    async fn append_bundle(&self, bundle: Bundle, _now: i64) -> Result<Bundle> {
        let stored = self.inner().bundles.get(&bundle.trust_domain).cloned();
        let mut merged = stored.clone().unwrap_or_else(|| Bundle::new(bundle.trust_domain.clone()));
        if steeple_datastore::merge::append_bundle(&mut merged, bundle) {
            self.commit_bundle(merged.clone())?;
        }
        Ok(merged)
    }

    async fn delete_bundle(
        &self,
        _trust_domain: &TrustDomain,
        _mode: BundleDeleteMode,
    ) -> Result<Option<Bundle>> {
        unused()
    }

    async fn prune_bundle(&self, trust_domain: &TrustDomain, before: i64, _now: i64) -> Result<PrunedBundle> {
        let Some(mut bundle) = self.inner().bundles.get(trust_domain).cloned() else {
            return Ok(PrunedBundle { changed: false });
        };
        let before_pruning = bundle.clone();
        bundle.x509_authorities.retain(|known| known.certificate.not_after() >= before);
        bundle.jwt_authorities.retain(|known| known.expires_at >= before);
        bundle.wit_authorities.retain(|known| known.expires_at >= before);
        let changed = bundle != before_pruning && !bundle.x509_authorities.is_empty();
        if changed {
            self.commit_bundle(bundle)?;
        }
        Ok(PrunedBundle { changed })
    }

    async fn change_authority(
        &self,
        trust_domain: &TrustDomain,
        change: AuthorityChange,
        _now: i64,
    ) -> Result<Option<Bundle>> {
        let Some(mut bundle) = self.inner().bundles.get(trust_domain).cloned() else { return Ok(None) };
        steeple_datastore::authority::change(&mut bundle, &change)?;
        self.commit_bundle(bundle.clone())?;
        Ok(Some(bundle))
    }

    async fn create_federation_relationship(
        &self,
        relationship: FederationRelationship,
        _now: i64,
    ) -> Result<FederationRelationship> {
        let _ = relationship;
        unused()
    }

    async fn fetch_federation_relationship(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<FederationRelationship>> {
        let _ = trust_domain;
        unused()
    }

    async fn list_federation_relationships(
        &self,
        page: &PageRequest,
        with_bundles: bool,
    ) -> Result<Page<FederationRelationship>> {
        let _ = (page, with_bundles);
        unused()
    }

    async fn update_federation_relationship(
        &self,
        relationship: FederationRelationship,
        mask: FederationMask,
        _now: i64,
    ) -> Result<Option<FederationRelationship>> {
        let _ = (relationship, mask);
        unused()
    }

    async fn delete_federation_relationship(&self, trust_domain: &TrustDomain) -> Result<bool> {
        let _ = trust_domain;
        unused()
    }

    async fn refresh_bundle(&self, fetched: Bundle, _now: i64) -> Result<RefreshedBundle> {
        let _ = fetched;
        unused()
    }

    async fn list_ca_journals(&self) -> Result<Vec<CaJournal>> {
        Ok(self.inner().journals.values().cloned().collect())
    }

    async fn put_ca_journal(&self, journal: CaJournal, _now: i64) -> Result<CaJournal> {
        let outcome = self.faults.effect();
        if outcome == Outcome::Fails {
            return Err(crashed());
        }
        let mut inner = self.inner();
        let mut journal = journal;
        if journal.id == 0 {
            journal.id = inner.journals.keys().max().map_or(1, |last| last + 1);
        }
        inner.journals.insert(journal.id, journal.clone());
        if outcome == Outcome::Works { Ok(journal) } else { Err(crashed()) }
    }

    async fn delete_ca_journal(&self, id: u64) -> Result<()> {
        self.inner().journals.remove(&id);
        Ok(())
    }
}
