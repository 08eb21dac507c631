//! The port. Implementations: `steeple-datastore-sql`.

use async_trait::async_trait;
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{SpiffeId, TrustDomain};
use tokio::sync::watch;

use crate::authority::AuthorityChange;
use crate::error::{Error, Result};
use crate::federation::{FederationMask, FederationRelationship, RefreshedBundle};
use crate::log::{Logged, Revision, Snapshot};
use crate::model::{Agent, CaJournal, Entry, JoinToken, Selector};

/// SPIRE's match behaviours; its commands default to `Superset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Exact,
    /// What is stored is a non-empty subset of what is asked.
    Subset,
    /// What is stored contains what is asked.
    Superset,
    Any,
}

impl Match {
    /// Whether a stored set matches the asked one; both without duplicates, `asked` not empty.
    pub fn holds<T: PartialEq>(self, stored: &[T], asked: &[T]) -> bool {
        let stored_has_all = || asked.iter().all(|one| stored.contains(one));
        let asked_has_all = || stored.iter().all(|one| asked.contains(one));
        match self {
            Self::Exact => stored_has_all() && asked_has_all(),
            Self::Subset => !stored.is_empty() && asked_has_all(),
            Self::Superset => stored_has_all(),
            Self::Any => asked.iter().any(|one| stored.contains(one)),
        }
    }
}

/// All conditions must hold; `None` = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryFilter {
    pub spiffe_id: Option<SpiffeId>,
    pub parent_id: Option<SpiffeId>,
    pub selectors: Option<(Vec<Selector>, Match)>,
    pub federates_with: Option<(Vec<TrustDomain>, Match)>,
    pub hint: Option<String>,
    /// `Some(true)`: only those. `Some(false)` is as `None`: SPIRE's commands always send the flag, and its store
    /// ignores one that is not set.
    pub downstream: Option<bool>,
}

/// All conditions must hold; `None` = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentFilter {
    pub attestation_type: Option<String>,
    pub selectors: Option<(Vec<Selector>, Match)>,
    pub banned: Option<bool>,
    pub can_reattest: Option<bool>,
    /// Unix seconds: agents that expire before.
    pub expires_before: Option<i64>,
}

/// Rows after `token` (SPIRE: last row id in decimal), at most `size` (0 = all).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    pub token: String,
    pub size: u32,
}

impl PageRequest {
    /// The row after which the page starts; 0 is the first page.
    pub fn after(&self) -> Result<u64> {
        if self.token.is_empty() {
            return Ok(0);
        }
        let digits = self.token.bytes().all(|c| c.is_ascii_digit());
        match self.token.parse() {
            // Row ids are signed on every engine.
            Ok(row) if digits && i64::try_from(row).is_ok() => Ok(row),
            _ => Err(Error::BadPageToken(self.token.clone())),
        }
    }
}

/// One page; `next_token` is empty on the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next_token: String,
}

/// A page of entries by their ids, and where the change log stood: who has followed it so far has the entries themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryIds {
    pub page: Page<String>,
    pub revision: Revision,
    pub log_id: String,
}

/// Which fields an update takes from the given entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryMask {
    pub spiffe_id: bool,
    pub parent_id: bool,
    pub selectors: bool,
    pub x509_svid_ttl: bool,
    pub jwt_svid_ttl: bool,
    pub federates_with: bool,
    pub admin: bool,
    pub downstream: bool,
    pub expires_at: bool,
    pub dns_names: bool,
    pub store_svid: bool,
    pub hint: bool,
    pub additional: bool,
}

impl EntryMask {
    pub const ALL: Self = Self {
        spiffe_id: true,
        parent_id: true,
        selectors: true,
        x509_svid_ttl: true,
        jwt_svid_ttl: true,
        federates_with: true,
        admin: true,
        downstream: true,
        expires_at: true,
        dns_names: true,
        store_svid: true,
        hint: true,
        additional: true,
    };
}

/// Which parts an update takes from the given bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleMask {
    pub x509_authorities: bool,
    pub jwt_authorities: bool,
    pub refresh_hint: bool,
    pub sequence_number: bool,
    pub wit_authorities: bool,
}

impl BundleMask {
    pub const ALL: Self = Self {
        x509_authorities: true,
        jwt_authorities: true,
        refresh_hint: true,
        sequence_number: true,
        wit_authorities: true,
    };
}

/// What becomes of entries that federate with a deleted bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleDeleteMode {
    /// Refuse if there are any.
    Restrict,
    /// Delete them too.
    Delete,
    /// Unlink them.
    Dissociate,
}

/// Result of a create: the stored entry, or the similar one that was there already (same SPIFFE ID, parent
/// and selector set, or the same id).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    New(Entry),
    Existing(Entry),
}

/// Fields of an agent to change; `None` leaves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentUpdate {
    pub attestation_type: Option<String>,
    pub serial_number: Option<String>,
    pub expires_at: Option<i64>,
    pub new_serial_number: Option<String>,
    pub new_expires_at: Option<i64>,
    pub can_reattest: Option<bool>,
    pub agent_version: Option<String>,
}

impl AgentUpdate {
    /// The agent with the fields changed.
    pub fn apply(self, mut agent: Agent) -> Agent {
        agent.attestation_type = self.attestation_type.unwrap_or(agent.attestation_type);
        agent.serial_number = self.serial_number.unwrap_or(agent.serial_number);
        agent.expires_at = self.expires_at.unwrap_or(agent.expires_at);
        agent.new_serial_number = self.new_serial_number.unwrap_or(agent.new_serial_number);
        agent.new_expires_at = self.new_expires_at.unwrap_or(agent.new_expires_at);
        agent.can_reattest = self.can_reattest.unwrap_or(agent.can_reattest);
        agent.agent_version = self.agent_version.unwrap_or(agent.agent_version);
        agent
    }
}

impl Agent {
    /// See [`Datastore::put_agent`].
    ///
    /// # Errors
    /// `Error::AgentBanned`
    pub fn replaces(&mut self, stored: &Self) -> Result<()> {
        if stored.is_banned() {
            return Err(Error::AgentBanned);
        }
        if self.agent_version.is_empty() {
            self.agent_version.clone_from(&stored.agent_version);
        }
        Ok(())
    }

    /// See [`Datastore::promote_agent_serial`].
    pub fn promoted(&self, serial: &str) -> Option<Self> {
        (!self.is_banned() && !serial.is_empty() && self.new_serial_number == serial).then(|| Self {
            serial_number: serial.to_owned(),
            expires_at: self.new_expires_at,
            new_serial_number: String::new(),
            new_expires_at: 0,
            ..self.clone()
        })
    }
}

/// What a bundle prune left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrunedBundle {
    pub changed: bool,
}

/// State of a trust domain. Every acknowledged write is durable and has its place in the change log.
///
/// Dropping the future of a write does not take the write back. Lists are in the order the rows were made; an
/// entry's selectors and DNS names are in the order they were given, its `federates_with` is sorted. Entries that
/// [`Datastore::create_entries`] and [`Datastore::update_entry`] answer with carry sorted selectors and DNS names
/// instead, as SPIRE's answers do.
#[async_trait]
pub trait Datastore: Send + Sync + 'static {
    // The change log.

    /// Newest committed revision.
    async fn head(&self) -> Result<Revision>;
    /// The log after `after`, oldest first, at most `limit` rows. `Error::LogTruncated`, also for a revision that
    /// the log has not come to: take a snapshot.
    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Vec<Logged>>;
    /// Everything an index needs, consistent at one revision.
    async fn snapshot(&self) -> Result<Snapshot>;
    /// Rises with each commit made through this handle (and, where the engine tells, by others).
    fn watch_head(&self) -> watch::Receiver<Revision>;
    /// Drops log rows that are older than `keep` newest ones.
    async fn trim_log(&self, keep: u64) -> Result<u64>;

    // Registration entries.

    /// One transaction for all; one result for each, in order. A failed item does not fail the others.
    async fn create_entries(&self, entries: Vec<Entry>, now: i64) -> Result<Vec<Result<Created>>>;
    async fn fetch_entry(&self, id: &str) -> Result<Option<Entry>>;
    async fn list_entries(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Page<Entry>>;
    /// As [`Datastore::list_entries`]. `None` = the log does not (yet) tell all that the database holds, so it must be read.
    async fn list_entry_ids(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Option<EntryIds>>;
    async fn count_entries(&self, filter: &EntryFilter) -> Result<u64>;
    /// Fields in `mask` are taken from `entry`; bumps `revision_number`. `None` = no such entry.
    async fn update_entry(&self, entry: Entry, mask: EntryMask, now: i64) -> Result<Option<Entry>>;
    /// One transaction for all; whether each was there, in order.
    async fn delete_entries(&self, ids: Vec<String>) -> Result<Vec<bool>>;
    /// Whether it was there.
    async fn delete_entry(&self, id: &str) -> Result<bool> {
        Ok(self.delete_entries(vec![id.to_owned()]).await?.contains(&true))
    }
    /// Raises the entries' revision numbers and has their SVIDs issued again ([`crate::Change::EntryRotated`]). One
    /// transaction; whether each exists, in order.
    async fn rotate_entries(&self, ids: Vec<String>, now: i64) -> Result<Vec<bool>>;
    /// Deletes entries that expired before `before`, in bounded batches; returns how many.
    async fn prune_entries(&self, before: i64) -> Result<u64>;

    // Agents.

    /// Creates or replaces the agent's row and selectors (attestation). `Error::AgentBanned` if the row is a banned
    /// agent's, whenever the ban came: only deleting it lets the agent in again. Without a version the agent keeps the
    /// one it reported.
    async fn put_agent(&self, agent: Agent, now: i64) -> Result<()>;
    /// [`Datastore::take_join_token`] and [`Datastore::put_agent`] in one transaction: both or neither. `false` = there
    /// is no such token (any more), and nothing is changed.
    async fn put_agent_for_token(&self, token: &str, agent: Agent, now: i64) -> Result<bool>;
    /// With selectors.
    async fn fetch_agent(&self, id: &SpiffeId) -> Result<Option<Agent>>;
    /// With selectors.
    async fn list_agents(&self, filter: &AgentFilter, page: &PageRequest) -> Result<Page<Agent>>;
    async fn count_agents(&self, filter: &AgentFilter) -> Result<u64>;
    async fn update_agent(&self, id: &SpiffeId, update: AgentUpdate, now: i64) -> Result<Option<Agent>>;
    /// Makes the renewed serial the current one, with its expiry, if it is the stored agent's `new_serial_number` and
    /// the agent is not banned. `None` = not so (any more), and nothing is changed: the check is part of the write, so a
    /// ban is never undone.
    async fn promote_agent_serial(&self, id: &SpiffeId, serial: &str, now: i64) -> Result<Option<Agent>>;
    /// Deletes the row, its selectors, and entries created for it by a join token's alias.
    async fn delete_agent(&self, id: &SpiffeId) -> Result<Option<Agent>>;
    /// Has agents renew all they hold ([`crate::Change::AgentRotated`]). One transaction; what is stored of each, in
    /// order. Banned agents are not told: they have nothing to renew.
    async fn rotate_agents(&self, ids: Vec<SpiffeId>, now: i64) -> Result<Vec<Option<Agent>>>;
    /// Deletes, as [`Datastore::delete_agent`] does, at most `limit` agents that expired before `before`; banned
    /// ones stay, so that they stay banned. Agents that cannot attest again go only if `include_non_reattestable`
    /// (SPIRE `prune_tofu_nodes`). Returns how many.
    async fn prune_agents(&self, before: i64, include_non_reattestable: bool, limit: u32) -> Result<u64>;

    // Join tokens.

    async fn create_join_token(&self, token: JoinToken, now: i64) -> Result<()>;
    /// Whether there is such a token now; it stays.
    async fn fetch_join_token(&self, token: &str) -> Result<Option<JoinToken>>;
    /// Takes the token out of the store: exactly one of any number of concurrent callers gets it.
    async fn take_join_token(&self, token: &str) -> Result<Option<JoinToken>>;
    async fn prune_join_tokens(&self, before: i64) -> Result<u64>;

    // Bundles.

    async fn fetch_bundle(&self, trust_domain: &TrustDomain) -> Result<Option<Bundle>>;
    async fn list_bundles(&self, page: &PageRequest) -> Result<Page<Bundle>>;
    async fn count_bundles(&self) -> Result<u64>;
    /// `Error::AlreadyExists` if there is one.
    async fn create_bundle(&self, bundle: Bundle, now: i64) -> Result<Bundle>;
    /// `None` = no such bundle.
    async fn update_bundle(&self, bundle: Bundle, mask: BundleMask, now: i64) -> Result<Option<Bundle>>;
    async fn set_bundle(&self, bundle: Bundle, now: i64) -> Result<Bundle>;
    /// Adds authorities that are not there yet (creates the bundle if need be); the sequence number rises by one
    /// if anything changed.
    async fn append_bundle(&self, bundle: Bundle, now: i64) -> Result<Bundle>;
    async fn delete_bundle(
        &self,
        trust_domain: &TrustDomain,
        mode: BundleDeleteMode,
    ) -> Result<Option<Bundle>>;
    /// Drops authorities that expired at or before `before`, raising the sequence number by one. If that would
    /// leave no X.509 authority, or none of the JWT authorities that were there, nothing is dropped.
    async fn prune_bundle(&self, trust_domain: &TrustDomain, before: i64, now: i64) -> Result<PrunedBundle>;

    /// Taints or revokes one authority; the sequence number rises by one. `None` = no such bundle,
    /// `Error::Authority` = refused, nothing has changed.
    async fn change_authority(
        &self,
        trust_domain: &TrustDomain,
        change: AuthorityChange,
        now: i64,
    ) -> Result<Option<Bundle>>;

    // Federation relationships.

    /// `Error::AlreadyExists` if there is one with the trust domain. Its bundle, if given, is stored as
    /// [`Datastore::set_bundle`] does. Answers what was given.
    async fn create_federation_relationship(
        &self,
        relationship: FederationRelationship,
        now: i64,
    ) -> Result<FederationRelationship>;
    /// With the stored bundle.
    async fn fetch_federation_relationship(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<FederationRelationship>>;
    async fn list_federation_relationships(
        &self,
        page: &PageRequest,
        with_bundles: bool,
    ) -> Result<Page<FederationRelationship>>;
    /// `None` = no such relationship. Answers with the stored bundle.
    async fn update_federation_relationship(
        &self,
        relationship: FederationRelationship,
        mask: FederationMask,
        now: i64,
    ) -> Result<Option<FederationRelationship>>;
    /// Whether there was one. Its bundle stays (SPIRE).
    async fn delete_federation_relationship(&self, trust_domain: &TrustDomain) -> Result<bool>;
    /// Stores what the trust domain's endpoint served, unless what is stored is newer.
    async fn refresh_bundle(&self, fetched: Bundle, now: i64) -> Result<RefreshedBundle>;

    // CA journals.

    async fn list_ca_journals(&self) -> Result<Vec<CaJournal>>;
    /// Stores a new journal (id 0) or replaces one; returns it with its id.
    async fn put_ca_journal(&self, journal: CaJournal, now: i64) -> Result<CaJournal>;
    async fn delete_ca_journal(&self, id: u64) -> Result<()>;
}
