//! A [`Datastore`] in memory: the naive model that the conformance suite compares others with, and a store for
//! tests of what stands on the port. It forgets all when dropped and reads whole tables; no server uses it.

mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{SpiffeId, TrustDomain};
use tokio::sync::watch;

use crate::authority::AuthorityChange;
use crate::error::Result;
use crate::federation::{FederationMask, FederationRelationship, RefreshedBundle};
use crate::log::{Logged, Revision, Snapshot};
use crate::model::{Agent, CaJournal, Entry, JoinToken};
use crate::port::{
    AgentFilter, AgentUpdate, BundleDeleteMode, BundleMask, Created, Datastore, EntryFilter, EntryIds,
    EntryMask, Page, PageRequest, PrunedBundle,
};
use state::State;

/// See the module.
#[derive(Debug)]
pub struct MemoryStore {
    state: Mutex<State>,
    head: watch::Sender<Revision>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self { state: Mutex::new(State::new()), head: watch::Sender::new(Revision(0)) }
    }

    fn read(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs one write and tells the followers.
    fn write<T>(&self, op: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.read();
        let result = op(&mut state);
        let head = state.head;
        drop(state);
        self.head.send_if_modified(|seen| std::mem::replace(seen, head) != head);
        result
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Datastore for MemoryStore {
    async fn head(&self) -> Result<Revision> {
        Ok(self.read().head)
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Vec<Logged>> {
        self.read().changes_since(after, limit)
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        Ok(self.read().snapshot())
    }

    fn watch_head(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    async fn trim_log(&self, keep: u64) -> Result<u64> {
        Ok(self.read().trim_log(keep))
    }

    async fn create_entries(&self, entries: Vec<Entry>, now: i64) -> Result<Vec<Result<Created>>> {
        Ok(self.write(|state| entries.into_iter().map(|entry| state.create_entry(entry, now)).collect()))
    }

    async fn fetch_entry(&self, id: &str) -> Result<Option<Entry>> {
        Ok(self.read().entries.values().find(|entry| entry.id == id).cloned())
    }

    async fn list_entries(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Page<Entry>> {
        self.read().list_entries(filter, page)
    }

    async fn list_entry_ids(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Option<EntryIds>> {
        self.read().list_entry_ids(filter, page).map(Some)
    }

    async fn count_entries(&self, filter: &EntryFilter) -> Result<u64> {
        Ok(self.read().list_entries(filter, &PageRequest::default())?.items.len() as u64)
    }

    async fn update_entry(&self, entry: Entry, mask: EntryMask, _now: i64) -> Result<Option<Entry>> {
        self.write(|state| state.update_entry(entry, mask))
    }

    async fn delete_entries(&self, ids: Vec<String>) -> Result<Vec<bool>> {
        Ok(self.write(|state| ids.iter().map(|id| state.delete_entry(id)).collect()))
    }

    async fn rotate_entries(&self, ids: Vec<String>, _now: i64) -> Result<Vec<bool>> {
        Ok(self.write(|state| ids.iter().map(|id| state.rotate_entry(id)).collect()))
    }

    async fn prune_entries(&self, before: i64) -> Result<u64> {
        Ok(self.write(|state| state.prune_entries(before)))
    }

    async fn put_agent(&self, agent: Agent, _now: i64) -> Result<()> {
        self.write(|state| state.put_agent(agent))
    }

    async fn put_agent_for_token(&self, token: &str, agent: Agent, _now: i64) -> Result<bool> {
        self.write(|state| state.put_agent_for_token(token, agent))
    }

    async fn fetch_agent(&self, id: &SpiffeId) -> Result<Option<Agent>> {
        Ok(self.read().agents.values().find(|agent| agent.id == *id).cloned())
    }

    async fn list_agents(&self, filter: &AgentFilter, page: &PageRequest) -> Result<Page<Agent>> {
        self.read().list_agents(filter, page)
    }

    async fn count_agents(&self, filter: &AgentFilter) -> Result<u64> {
        Ok(self.read().list_agents(filter, &PageRequest::default())?.items.len() as u64)
    }

    async fn update_agent(&self, id: &SpiffeId, update: AgentUpdate, _now: i64) -> Result<Option<Agent>> {
        Ok(self.write(|state| state.update_agent(id, update)))
    }

    async fn promote_agent_serial(&self, id: &SpiffeId, serial: &str, _now: i64) -> Result<Option<Agent>> {
        Ok(self.write(|state| state.promote_agent_serial(id, serial)))
    }

    async fn delete_agent(&self, id: &SpiffeId) -> Result<Option<Agent>> {
        Ok(self.write(|state| state.delete_agent(id)))
    }

    async fn rotate_agents(&self, ids: Vec<SpiffeId>, now: i64) -> Result<Vec<Option<Agent>>> {
        Ok(self.write(|state| ids.iter().map(|id| state.rotate_agent(id, now)).collect()))
    }

    async fn prune_agents(&self, before: i64, include_non_reattestable: bool, limit: u32) -> Result<u64> {
        Ok(self.write(|state| state.prune_agents(before, include_non_reattestable, limit)))
    }

    async fn create_join_token(&self, token: JoinToken, _now: i64) -> Result<()> {
        self.write(|state| state.create_join_token(token))
    }

    async fn fetch_join_token(&self, token: &str) -> Result<Option<JoinToken>> {
        let expires_at = self.read().tokens.get(token).copied();
        Ok(expires_at.map(|expires_at| JoinToken { token: token.to_owned(), expires_at }))
    }

    async fn take_join_token(&self, token: &str) -> Result<Option<JoinToken>> {
        Ok(self.write(|state| state.take_join_token(token)))
    }

    async fn prune_join_tokens(&self, before: i64) -> Result<u64> {
        Ok(self.write(|state| state.prune_join_tokens(before)))
    }

    async fn fetch_bundle(&self, trust_domain: &TrustDomain) -> Result<Option<Bundle>> {
        Ok(self.read().bundles.values().find(|bundle| bundle.trust_domain == *trust_domain).cloned())
    }

    async fn list_bundles(&self, page: &PageRequest) -> Result<Page<Bundle>> {
        self.read().list_bundles(page)
    }

    async fn count_bundles(&self) -> Result<u64> {
        Ok(self.read().bundles.len() as u64)
    }

    async fn create_bundle(&self, bundle: Bundle, _now: i64) -> Result<Bundle> {
        self.write(|state| state.create_bundle(bundle))
    }

    async fn update_bundle(&self, bundle: Bundle, mask: BundleMask, _now: i64) -> Result<Option<Bundle>> {
        Ok(self.write(|state| state.update_bundle(bundle, mask)))
    }

    async fn set_bundle(&self, bundle: Bundle, _now: i64) -> Result<Bundle> {
        self.write(|state| match state.update_bundle(bundle.clone(), BundleMask::ALL) {
            Some(stored) => Ok(stored),
            None => state.create_bundle(bundle),
        })
    }

    async fn append_bundle(&self, bundle: Bundle, _now: i64) -> Result<Bundle> {
        self.write(|state| state.append_bundle(bundle))
    }

    async fn delete_bundle(
        &self,
        trust_domain: &TrustDomain,
        mode: BundleDeleteMode,
    ) -> Result<Option<Bundle>> {
        self.write(|state| state.delete_bundle(trust_domain, mode))
    }

    async fn prune_bundle(&self, trust_domain: &TrustDomain, before: i64, _now: i64) -> Result<PrunedBundle> {
        Ok(self.write(|state| state.prune_bundle(trust_domain, before)))
    }

    async fn change_authority(
        &self,
        trust_domain: &TrustDomain,
        change: AuthorityChange,
        _now: i64,
    ) -> Result<Option<Bundle>> {
        self.write(|state| state.change_authority(trust_domain, &change))
    }

    async fn create_federation_relationship(
        &self,
        relationship: FederationRelationship,
        _now: i64,
    ) -> Result<FederationRelationship> {
        self.write(|state| state.create_federation_relationship(relationship))
    }

    async fn fetch_federation_relationship(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<FederationRelationship>> {
        Ok(self.read().fetch_federation_relationship(trust_domain))
    }

    async fn list_federation_relationships(
        &self,
        page: &PageRequest,
        with_bundles: bool,
    ) -> Result<Page<FederationRelationship>> {
        self.read().list_federation_relationships(page, with_bundles)
    }

    async fn update_federation_relationship(
        &self,
        relationship: FederationRelationship,
        mask: FederationMask,
        _now: i64,
    ) -> Result<Option<FederationRelationship>> {
        self.write(|state| state.update_federation_relationship(relationship, mask))
    }

    async fn delete_federation_relationship(&self, trust_domain: &TrustDomain) -> Result<bool> {
        Ok(self.write(|state| state.delete_federation_relationship(trust_domain)))
    }

    async fn refresh_bundle(&self, fetched: Bundle, _now: i64) -> Result<RefreshedBundle> {
        self.write(|state| state.refresh_bundle(fetched))
    }

    async fn list_ca_journals(&self) -> Result<Vec<CaJournal>> {
        Ok(self.read().journals.values().cloned().collect())
    }

    async fn put_ca_journal(&self, journal: CaJournal, _now: i64) -> Result<CaJournal> {
        self.write(|state| state.put_ca_journal(journal))
    }

    async fn delete_ca_journal(&self, id: u64) -> Result<()> {
        self.write(|state| state.delete_ca_journal(id));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
