//! The port's functions: each a read or a write transaction over the tables.

use async_trait::async_trait;
use steeple_datastore::model::{Agent, CaJournal, Entry, JoinToken};
use steeple_datastore::{
    AgentFilter, AgentUpdate, AuthorityChange, BundleDeleteMode, BundleMask, Created, Datastore, EntryFilter,
    EntryIds, EntryMask, FederationMask, FederationRelationship, Logged, Page, PageRequest, PrunedBundle,
    RefreshedBundle, Result, Revision, Snapshot,
};
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{SpiffeId, TrustDomain};
use tokio::sync::watch;

use super::SqlStore;
use crate::bundles::Deleted;
use crate::{agents, bundles, changes, entries, federation, foreign, journals, tokens};

/// Rows in one pruning transaction.
const PRUNE_BATCH: u64 = 1000;

#[async_trait]
impl Datastore for SqlStore {
    async fn head(&self) -> Result<Revision> {
        self.ask(changes::head).await
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Vec<Logged>> {
        let log = self.followed().clone();
        if let Some(changes) = self.log.take(&log, after, limit) {
            return Ok(changes);
        }
        // The log only grows: what comes between its statements does no harm.
        self.ask(move |conn| changes::since(conn, &log, after, limit)).await
    }

    async fn snapshot(&self) -> Result<Snapshot> {
        let snapshot = self.read(|conn| {
            let all = PageRequest::default();
            Ok(Snapshot {
                revision: changes::head(conn)?,
                log_id: changes::log_id(conn)?,
                entries: entries::list(conn, &EntryFilter::default(), &all)?.items,
                agents: agents::list(conn, &AgentFilter::default(), &all)?.items,
                bundles: bundles::list(conn, &all)?.items,
                rotated_agents: changes::rotated_agents(conn)?,
            })
        });
        let snapshot = snapshot.await?;
        self.followed().clone_from(&snapshot.log_id);
        Ok(snapshot)
    }

    fn watch_head(&self) -> watch::Receiver<Revision> {
        self.log.head.subscribe()
    }

    async fn trim_log(&self, keep: u64) -> Result<u64> {
        let mut gone = 0;
        loop {
            let (batch, more) = self.write(move |tx| changes::trim_batch(tx.conn, keep)).await?;
            gone += batch;
            if !more {
                return Ok(gone);
            }
        }
    }

    async fn create_entries(&self, entries: Vec<Entry>, now: i64) -> Result<Vec<Result<Created>>> {
        self.write(move |tx| entries::create(tx, &entries, now)).await
    }

    async fn fetch_entry(&self, id: &str) -> Result<Option<Entry>> {
        let id = id.to_owned();
        self.read(move |conn| entries::fetch(conn, &id)).await
    }

    async fn list_entries(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Page<Entry>> {
        let (filter, page) = (filter.clone(), page.clone());
        self.read_list(move |conn| entries::list(conn, &filter, &page)).await
    }

    async fn list_entry_ids(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Option<EntryIds>> {
        let (filter, page) = (filter.clone(), page.clone());
        let list = self.read_list(move |conn| {
            let state = foreign::state(conn)?;
            if state.pending {
                return Ok(None);
            }
            let page = entries::list_ids(conn, &filter, &page)?;
            Ok(Some(EntryIds { page, revision: state.head, log_id: state.log_id }))
        });
        list.await
    }

    async fn count_entries(&self, filter: &EntryFilter) -> Result<u64> {
        let filter = filter.clone();
        self.read_list(move |conn| entries::count(conn, &filter)).await
    }

    async fn update_entry(&self, entry: Entry, mask: EntryMask, now: i64) -> Result<Option<Entry>> {
        self.write(move |tx| entries::update(tx, entry.clone(), mask, now)).await
    }

    async fn delete_entries(&self, ids: Vec<String>) -> Result<Vec<bool>> {
        self.write(move |tx| entries::delete(tx, &ids)).await
    }

    async fn rotate_entries(&self, ids: Vec<String>, now: i64) -> Result<Vec<bool>> {
        self.write(move |tx| ids.iter().map(|id| entries::rotate(tx, id, now)).collect()).await
    }

    async fn prune_entries(&self, before: i64) -> Result<u64> {
        let mut gone = 0;
        loop {
            let batch = self.write(move |tx| entries::prune_batch(tx, before, PRUNE_BATCH)).await?;
            gone += batch;
            if batch < PRUNE_BATCH {
                return Ok(gone);
            }
        }
    }

    async fn put_agent(&self, agent: Agent, now: i64) -> Result<()> {
        self.write(move |tx| agents::put(tx, agent.clone(), now)).await
    }

    async fn put_agent_for_token(&self, token: &str, agent: Agent, now: i64) -> Result<bool> {
        let token = token.to_owned();
        self.write(move |tx| {
            let taken = tokens::take(tx, &token)?.is_some();
            if taken {
                agents::put(tx, agent.clone(), now)?;
            }
            Ok(taken)
        })
        .await
    }

    async fn fetch_agent(&self, id: &SpiffeId) -> Result<Option<Agent>> {
        let id = id.clone();
        self.read(move |conn| agents::fetch(conn, &id)).await
    }

    async fn list_agents(&self, filter: &AgentFilter, page: &PageRequest) -> Result<Page<Agent>> {
        let (filter, page) = (filter.clone(), page.clone());
        self.read_list(move |conn| agents::list(conn, &filter, &page)).await
    }

    async fn count_agents(&self, filter: &AgentFilter) -> Result<u64> {
        let filter = filter.clone();
        self.read_list(move |conn| agents::count(conn, &filter)).await
    }

    async fn update_agent(&self, id: &SpiffeId, update: AgentUpdate, now: i64) -> Result<Option<Agent>> {
        let id = id.clone();
        self.write(move |tx| agents::update(tx, &id, update.clone(), now)).await
    }

    async fn promote_agent_serial(&self, id: &SpiffeId, serial: &str, now: i64) -> Result<Option<Agent>> {
        let (id, serial) = (id.clone(), serial.to_owned());
        self.write(move |tx| agents::promote_serial(tx, &id, &serial, now)).await
    }

    async fn delete_agent(&self, id: &SpiffeId) -> Result<Option<Agent>> {
        let id = id.clone();
        self.write(move |tx| agents::delete(tx, &id)).await
    }

    async fn rotate_agents(&self, ids: Vec<SpiffeId>, now: i64) -> Result<Vec<Option<Agent>>> {
        self.write(move |tx| ids.iter().map(|id| agents::rotate(tx, id, now)).collect()).await
    }

    async fn prune_agents(&self, before: i64, include_non_reattestable: bool, limit: u32) -> Result<u64> {
        self.write(move |tx| agents::prune(tx, before, include_non_reattestable, limit)).await
    }

    async fn create_join_token(&self, token: JoinToken, now: i64) -> Result<()> {
        self.write(move |tx| tokens::create(tx, &token, now)).await
    }

    async fn fetch_join_token(&self, token: &str) -> Result<Option<JoinToken>> {
        let token = token.to_owned();
        self.ask(move |conn| tokens::fetch(conn, &token)).await
    }

    async fn take_join_token(&self, token: &str) -> Result<Option<JoinToken>> {
        let token = token.to_owned();
        self.write(move |tx| tokens::take(tx, &token)).await
    }

    async fn prune_join_tokens(&self, before: i64) -> Result<u64> {
        let mut gone = 0;
        loop {
            let batch = self.write(move |tx| tokens::prune_batch(tx, before, PRUNE_BATCH)).await?;
            gone += batch;
            if batch < PRUNE_BATCH {
                return Ok(gone);
            }
        }
    }

    async fn fetch_bundle(&self, trust_domain: &TrustDomain) -> Result<Option<Bundle>> {
        let trust_domain = trust_domain.clone();
        self.read(move |conn| bundles::fetch(conn, &trust_domain)).await
    }

    async fn list_bundles(&self, page: &PageRequest) -> Result<Page<Bundle>> {
        let page = page.clone();
        self.read_list(move |conn| bundles::list(conn, &page)).await
    }

    async fn count_bundles(&self) -> Result<u64> {
        self.read_list(bundles::count).await
    }

    async fn create_bundle(&self, bundle: Bundle, now: i64) -> Result<Bundle> {
        self.write(move |tx| bundles::create(tx, bundle.clone(), now)).await
    }

    async fn update_bundle(&self, bundle: Bundle, mask: BundleMask, now: i64) -> Result<Option<Bundle>> {
        self.write(move |tx| bundles::update(tx, bundle.clone(), mask, now)).await
    }

    async fn set_bundle(&self, bundle: Bundle, now: i64) -> Result<Bundle> {
        self.write(move |tx| bundles::set(tx, bundle.clone(), now)).await
    }

    async fn append_bundle(&self, bundle: Bundle, now: i64) -> Result<Bundle> {
        self.write(move |tx| bundles::append(tx, bundle.clone(), now)).await
    }

    async fn delete_bundle(
        &self,
        trust_domain: &TrustDomain,
        mode: BundleDeleteMode,
    ) -> Result<Option<Bundle>> {
        let trust_domain = trust_domain.clone();
        loop {
            let of = trust_domain.clone();
            match self.write(move |tx| bundles::delete_batch(tx, &of, mode)).await? {
                Deleted::Nothing => return Ok(None),
                Deleted::Some => {}
                Deleted::All(bundle) => return Ok(Some(bundle)),
            }
        }
    }

    async fn prune_bundle(&self, trust_domain: &TrustDomain, before: i64, now: i64) -> Result<PrunedBundle> {
        let trust_domain = trust_domain.clone();
        self.write(move |tx| bundles::prune(tx, &trust_domain, before, now)).await
    }

    async fn change_authority(
        &self,
        trust_domain: &TrustDomain,
        change: AuthorityChange,
        now: i64,
    ) -> Result<Option<Bundle>> {
        let trust_domain = trust_domain.clone();
        self.write(move |tx| bundles::change_authority(tx, &trust_domain, &change, now)).await
    }

    async fn create_federation_relationship(
        &self,
        relationship: FederationRelationship,
        now: i64,
    ) -> Result<FederationRelationship> {
        self.write(move |tx| federation::create(tx, relationship.clone(), now)).await
    }

    async fn fetch_federation_relationship(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<FederationRelationship>> {
        let trust_domain = trust_domain.clone();
        self.read(move |conn| federation::fetch(conn, &trust_domain)).await
    }

    async fn list_federation_relationships(
        &self,
        page: &PageRequest,
        with_bundles: bool,
    ) -> Result<Page<FederationRelationship>> {
        let page = page.clone();
        if self.replica.is_none() && !with_bundles {
            // One statement: servers ask this even when nothing happens.
            return self.ask(move |conn| federation::list(conn, &page, false)).await;
        }
        self.read_list(move |conn| federation::list(conn, &page, with_bundles)).await
    }

    async fn update_federation_relationship(
        &self,
        relationship: FederationRelationship,
        mask: FederationMask,
        now: i64,
    ) -> Result<Option<FederationRelationship>> {
        self.write(move |tx| federation::update(tx, relationship.clone(), mask, now)).await
    }

    async fn delete_federation_relationship(&self, trust_domain: &TrustDomain) -> Result<bool> {
        let trust_domain = trust_domain.clone();
        self.write(move |tx| federation::delete(tx, &trust_domain)).await
    }

    async fn refresh_bundle(&self, fetched: Bundle, now: i64) -> Result<RefreshedBundle> {
        self.write(move |tx| federation::refresh_bundle(tx, fetched.clone(), now)).await
    }

    async fn list_ca_journals(&self) -> Result<Vec<CaJournal>> {
        self.read(journals::list).await
    }

    async fn put_ca_journal(&self, journal: CaJournal, now: i64) -> Result<CaJournal> {
        self.write(move |tx| journals::put(tx, journal.clone(), now)).await
    }

    async fn delete_ca_journal(&self, id: u64) -> Result<()> {
        self.write(move |tx| journals::delete(tx, id)).await
    }
}
