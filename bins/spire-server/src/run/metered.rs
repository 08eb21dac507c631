//! Call metrics around the datastore and the key manager, and what a rotation did, under SPIRE's names
//! (spire.md §1.5). Put in place only when somebody reads metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use steeple_datastore::model::{Agent, CaJournal, Entry, JoinToken};
use steeple_datastore::{
    AgentFilter, AgentUpdate, AuthorityAction, AuthorityChange, AuthorityKind, BundleDeleteMode, BundleMask,
    Created, Datastore, EntryFilter, EntryIds, EntryMask, FederationMask, FederationRelationship, Logged,
    Page, PageRequest, PrunedBundle, RefreshedBundle, Result, Revision, Snapshot,
};
use steeple_plugin::{KeyManager, KeyManagerError};
use steeple_runtime::metrics::{CallCounter, CallMetric};
use steeple_server_core::ca::CaManager;
use steeple_server_core::view::View;
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{KeyType, PublicKey, SignatureAlgorithm, SpiffeId, TrustDomain};
use tokio::sync::watch;
use tonic::Code;

macro_rules! calls {
    ($(#[$doc:meta])* $name:ident, $prefix:literal: $($field:ident = $key:literal),+ $(,)?) => {
        $(#[$doc])*
        struct $name { $($field: CallMetric,)+ }

        impl $name {
            fn new() -> Self {
                Self { $($field: CallMetric::new(concat!($prefix, $key)),)+ }
            }
        }
    };
}

calls! {
    /// Handles are looked up once.
    StoreCalls, "datastore.":
    entry_create = "registration_entry.create",
    entry_fetch = "registration_entry.fetch",
    entry_list = "registration_entry.list",
    entry_count = "registration_entry.count",
    entry_update = "registration_entry.update",
    entry_delete = "registration_entry.delete",
    entry_prune = "registration_entry.prune",
    node_create = "node.create",
    node_fetch = "node.fetch",
    node_list = "node.list",
    node_count = "node.count",
    node_update = "node.update",
    node_delete = "node.delete",
    node_prune = "node.prune",
    selectors_set = "node_selectors.set",
    selectors_list = "node_selectors.list",
    token_create = "join_token.create",
    token_fetch = "join_token.fetch",
    token_delete = "join_token.delete",
    token_prune = "join_token.prune",
    bundle_fetch = "bundle.fetch",
    bundle_list = "bundle.list",
    bundle_count = "bundle.count",
    bundle_create = "bundle.create",
    bundle_update = "bundle.update",
    bundle_set = "bundle.set",
    bundle_append = "bundle.append",
    bundle_delete = "bundle.delete",
    bundle_prune = "bundle.prune",
    x509_taint = "bundle.x509.taint",
    x509_revoke = "bundle.x509.revoke",
    jwt_taint = "bundle.jwt.taint",
    jwt_revoke = "bundle.jwt.revoke",
    journal_fetch = "ca_journal.fetch",
    journal_set = "ca_journal.set",
    journal_prune = "ca_journal.prune",
}

/// How large SPIRE's caches would be: what the view holds, looked up every ten seconds. Events are never skipped.
pub async fn cache_gauges(view: Arc<View>) {
    loop {
        metrics::gauge!("entry.entries_by_entryid_cache.count").set(view.entry_count() as f64);
        metrics::gauge!("node.agents_by_id_cache.count").set(view.agent_count() as f64);
        metrics::gauge!("entry.skipped_entry_event_ids.count").set(0.0);
        metrics::gauge!("node.skipped_node_event_ids.count").set(0.0);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
}

/// A datastore whose calls are counted and timed.
pub struct MeteredStore {
    inner: Arc<dyn Datastore>,
    calls: StoreCalls,
    /// SPIRE reads all entries again every five seconds; ours follows the log.
    cache_reload: CallMetric,
}

impl MeteredStore {
    pub fn new(inner: Arc<dyn Datastore>) -> Self {
        Self { inner, calls: StoreCalls::new(), cache_reload: CallMetric::new("entry.cache.reload") }
    }
}

fn code<T>(outcome: &Result<T>) -> Code {
    match outcome {
        Ok(_) => Code::Ok,
        Err(e) => steeple_server_api::error::store_code(e),
    }
}

/// SPIRE's datastore answers NotFound where ours answers `None`.
fn code_of_found<T>(outcome: &Result<Option<T>>) -> Code {
    if let Ok(None) = outcome { Code::NotFound } else { code(outcome) }
}

macro_rules! metered {
    ($self:ident.$call:ident, $code:path, $future:expr) => {{
        let start = $self.calls.$call.start();
        let outcome = $future.await;
        $self.calls.$call.done(start, $code(&outcome));
        outcome
    }};
}

#[tonic::async_trait]
impl Datastore for MeteredStore {
    async fn head(&self) -> Result<Revision> {
        self.inner.head().await
    }

    async fn changes_since(&self, after: Revision, limit: usize) -> Result<Vec<Logged>> {
        let start = self.cache_reload.start();
        let outcome = self.inner.changes_since(after, limit).await;
        self.cache_reload.done(start, code(&outcome));
        outcome
    }

    /// SPIRE lists the selectors of agents in a call of their own.
    async fn snapshot(&self) -> Result<Snapshot> {
        let start = self.cache_reload.start();
        let outcome = self.inner.snapshot().await;
        self.cache_reload.done(start, code(&outcome));
        self.calls.selectors_list.done(start, code(&outcome));
        outcome
    }

    fn watch_head(&self) -> watch::Receiver<Revision> {
        self.inner.watch_head()
    }

    async fn trim_log(&self, keep: u64) -> Result<u64> {
        self.inner.trim_log(keep).await
    }

    /// Counted for each entry: SPIRE creates them one by one.
    async fn create_entries(&self, entries: Vec<Entry>, now: i64) -> Result<Vec<Result<Created>>> {
        let start = self.calls.entry_create.start();
        let outcome = self.inner.create_entries(entries, now).await;
        match &outcome {
            Ok(items) => items.iter().for_each(|item| self.calls.entry_create.done(start, code(item))),
            Err(_) => self.calls.entry_create.done(start, code(&outcome)),
        }
        outcome
    }

    async fn fetch_entry(&self, id: &str) -> Result<Option<Entry>> {
        metered!(self.entry_fetch, code, self.inner.fetch_entry(id))
    }

    async fn list_entries(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Page<Entry>> {
        metered!(self.entry_list, code, self.inner.list_entries(filter, page))
    }

    async fn list_entry_ids(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Option<EntryIds>> {
        metered!(self.entry_list, code, self.inner.list_entry_ids(filter, page))
    }

    async fn count_entries(&self, filter: &EntryFilter) -> Result<u64> {
        metered!(self.entry_count, code, self.inner.count_entries(filter))
    }

    async fn update_entry(&self, entry: Entry, mask: EntryMask, now: i64) -> Result<Option<Entry>> {
        metered!(self.entry_update, code_of_found, self.inner.update_entry(entry, mask, now))
    }

    /// Counted for each entry: SPIRE deletes them one by one.
    async fn delete_entries(&self, ids: Vec<String>) -> Result<Vec<bool>> {
        let start = self.calls.entry_delete.start();
        let outcome = self.inner.delete_entries(ids).await;
        match &outcome {
            Ok(were_there) => were_there.iter().for_each(|was_there| {
                let code = if *was_there { Code::Ok } else { Code::NotFound };
                self.calls.entry_delete.done(start, code);
            }),
            Err(_) => self.calls.entry_delete.done(start, code(&outcome)),
        }
        outcome
    }

    async fn rotate_entries(&self, ids: Vec<String>, now: i64) -> Result<Vec<bool>> {
        metered!(self.entry_update, code, self.inner.rotate_entries(ids, now))
    }

    async fn prune_entries(&self, before: i64) -> Result<u64> {
        metered!(self.entry_prune, code, self.inner.prune_entries(before))
    }

    /// SPIRE stores the selectors in a call of their own.
    async fn put_agent(&self, agent: Agent, now: i64) -> Result<()> {
        let start = self.calls.node_create.start();
        let outcome = self.inner.put_agent(agent, now).await;
        self.calls.node_create.done(start, code(&outcome));
        self.calls.selectors_set.done(start, code(&outcome));
        outcome
    }

    async fn put_agent_for_token(&self, token: &str, agent: Agent, now: i64) -> Result<bool> {
        let start = self.calls.node_create.start();
        let outcome = self.inner.put_agent_for_token(token, agent, now).await;
        if !matches!(outcome, Ok(false)) {
            self.calls.token_delete.done(start, code(&outcome));
            self.calls.node_create.done(start, code(&outcome));
            self.calls.selectors_set.done(start, code(&outcome));
        }
        outcome
    }

    async fn fetch_agent(&self, id: &SpiffeId) -> Result<Option<Agent>> {
        metered!(self.node_fetch, code, self.inner.fetch_agent(id))
    }

    async fn list_agents(&self, filter: &AgentFilter, page: &PageRequest) -> Result<Page<Agent>> {
        metered!(self.node_list, code, self.inner.list_agents(filter, page))
    }

    async fn count_agents(&self, filter: &AgentFilter) -> Result<u64> {
        metered!(self.node_count, code, self.inner.count_agents(filter))
    }

    async fn update_agent(&self, id: &SpiffeId, update: AgentUpdate, now: i64) -> Result<Option<Agent>> {
        metered!(self.node_update, code_of_found, self.inner.update_agent(id, update, now))
    }

    async fn promote_agent_serial(&self, id: &SpiffeId, serial: &str, now: i64) -> Result<Option<Agent>> {
        metered!(self.node_update, code_of_found, self.inner.promote_agent_serial(id, serial, now))
    }

    async fn delete_agent(&self, id: &SpiffeId) -> Result<Option<Agent>> {
        metered!(self.node_delete, code_of_found, self.inner.delete_agent(id))
    }

    async fn rotate_agents(&self, ids: Vec<SpiffeId>, now: i64) -> Result<Vec<Option<Agent>>> {
        metered!(self.node_update, code, self.inner.rotate_agents(ids, now))
    }

    async fn prune_agents(&self, before: i64, include_non_reattestable: bool, limit: u32) -> Result<u64> {
        metered!(self.node_prune, code, self.inner.prune_agents(before, include_non_reattestable, limit))
    }

    async fn create_join_token(&self, token: JoinToken, now: i64) -> Result<()> {
        metered!(self.token_create, code, self.inner.create_join_token(token, now))
    }

    /// SPIRE's fetch of a token that is not there succeeds.
    async fn fetch_join_token(&self, token: &str) -> Result<Option<JoinToken>> {
        metered!(self.token_fetch, code, self.inner.fetch_join_token(token))
    }

    /// SPIRE deletes only what it found.
    async fn take_join_token(&self, token: &str) -> Result<Option<JoinToken>> {
        let start = self.calls.token_delete.start();
        let outcome = self.inner.take_join_token(token).await;
        if !matches!(outcome, Ok(None)) {
            self.calls.token_delete.done(start, code(&outcome));
        }
        outcome
    }

    async fn prune_join_tokens(&self, before: i64) -> Result<u64> {
        metered!(self.token_prune, code, self.inner.prune_join_tokens(before))
    }

    async fn fetch_bundle(&self, trust_domain: &TrustDomain) -> Result<Option<Bundle>> {
        metered!(self.bundle_fetch, code, self.inner.fetch_bundle(trust_domain))
    }

    async fn list_bundles(&self, page: &PageRequest) -> Result<Page<Bundle>> {
        metered!(self.bundle_list, code, self.inner.list_bundles(page))
    }

    async fn count_bundles(&self) -> Result<u64> {
        metered!(self.bundle_count, code, self.inner.count_bundles())
    }

    async fn create_bundle(&self, bundle: Bundle, now: i64) -> Result<Bundle> {
        metered!(self.bundle_create, code, self.inner.create_bundle(bundle, now))
    }

    async fn update_bundle(&self, bundle: Bundle, mask: BundleMask, now: i64) -> Result<Option<Bundle>> {
        metered!(self.bundle_update, code_of_found, self.inner.update_bundle(bundle, mask, now))
    }

    async fn set_bundle(&self, bundle: Bundle, now: i64) -> Result<Bundle> {
        metered!(self.bundle_set, code, self.inner.set_bundle(bundle, now))
    }

    async fn append_bundle(&self, bundle: Bundle, now: i64) -> Result<Bundle> {
        metered!(self.bundle_append, code, self.inner.append_bundle(bundle, now))
    }

    async fn delete_bundle(
        &self,
        trust_domain: &TrustDomain,
        mode: BundleDeleteMode,
    ) -> Result<Option<Bundle>> {
        metered!(self.bundle_delete, code_of_found, self.inner.delete_bundle(trust_domain, mode))
    }

    async fn prune_bundle(&self, trust_domain: &TrustDomain, before: i64, now: i64) -> Result<PrunedBundle> {
        // Nobody but the CA prunes a bundle: SPIRE counts that twice.
        let call = CallCounter::start(&["ca", "manager", "bundle", "prune"]);
        let outcome = metered!(self.bundle_prune, code, self.inner.prune_bundle(trust_domain, before, now));
        call.done(code(&outcome));
        if outcome.as_ref().is_ok_and(|pruned| pruned.changed) {
            metrics::counter!("ca.manager.bundle.pruned").increment(1);
        }
        outcome
    }

    async fn change_authority(
        &self,
        trust_domain: &TrustDomain,
        change: AuthorityChange,
        now: i64,
    ) -> Result<Option<Bundle>> {
        let call = match (change.kind, change.action) {
            (AuthorityKind::X509, AuthorityAction::Taint) => &self.calls.x509_taint,
            (AuthorityKind::X509, AuthorityAction::Revoke) => &self.calls.x509_revoke,
            (_, AuthorityAction::Taint) => &self.calls.jwt_taint,
            (_, AuthorityAction::Revoke) => &self.calls.jwt_revoke,
        };
        let start = call.start();
        let outcome = self.inner.change_authority(trust_domain, change, now).await;
        call.done(start, code_of_found(&outcome));
        outcome
    }

    async fn create_federation_relationship(
        &self,
        relationship: FederationRelationship,
        now: i64,
    ) -> Result<FederationRelationship> {
        self.inner.create_federation_relationship(relationship, now).await
    }

    async fn fetch_federation_relationship(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<FederationRelationship>> {
        self.inner.fetch_federation_relationship(trust_domain).await
    }

    async fn list_federation_relationships(
        &self,
        page: &PageRequest,
        with_bundles: bool,
    ) -> Result<Page<FederationRelationship>> {
        self.inner.list_federation_relationships(page, with_bundles).await
    }

    async fn update_federation_relationship(
        &self,
        relationship: FederationRelationship,
        mask: FederationMask,
        now: i64,
    ) -> Result<Option<FederationRelationship>> {
        self.inner.update_federation_relationship(relationship, mask, now).await
    }

    async fn delete_federation_relationship(&self, trust_domain: &TrustDomain) -> Result<bool> {
        self.inner.delete_federation_relationship(trust_domain).await
    }

    async fn refresh_bundle(&self, fetched: Bundle, now: i64) -> Result<RefreshedBundle> {
        metered!(self.bundle_set, code, self.inner.refresh_bundle(fetched, now))
    }

    async fn list_ca_journals(&self) -> Result<Vec<CaJournal>> {
        metered!(self.journal_fetch, code, self.inner.list_ca_journals())
    }

    async fn put_ca_journal(&self, journal: CaJournal, now: i64) -> Result<CaJournal> {
        metered!(self.journal_set, code, self.inner.put_ca_journal(journal, now))
    }

    async fn delete_ca_journal(&self, id: u64) -> Result<()> {
        metered!(self.journal_prune, code, self.inner.delete_ca_journal(id))
    }
}

calls! {
    KeyCalls, "server_key_manager.":
    generate = "generate_key",
    one = "get_public_key",
    all = "get_public_keys",
    sign = "sign_data",
}

/// A key manager whose calls are counted and timed. Notices which authorities a rotation prepares: each starts
/// with a key.
pub struct MeteredKeys {
    inner: Arc<dyn KeyManager>,
    calls: KeyCalls,
    rotations: Arc<Rotations>,
}

impl MeteredKeys {
    pub fn new(inner: Arc<dyn KeyManager>, rotations: Arc<Rotations>) -> Self {
        Self { inner, calls: KeyCalls::new(), rotations }
    }
}

fn key_code<T>(outcome: &std::result::Result<T, KeyManagerError>) -> Code {
    match outcome {
        Ok(_) => Code::Ok,
        Err(KeyManagerError::NoSuchKey(_)) => Code::NotFound,
        Err(KeyManagerError::UnsupportedKeyType(_)) => Code::InvalidArgument,
        Err(_) => Code::Internal,
    }
}

#[tonic::async_trait]
impl KeyManager for MeteredKeys {
    async fn generate_key(
        &self,
        id: &str,
        key_type: KeyType,
    ) -> std::result::Result<PublicKey, KeyManagerError> {
        self.rotations.key_wanted(id);
        metered!(self.generate, key_code, self.inner.generate_key(id, key_type))
    }

    async fn public_key(&self, id: &str) -> std::result::Result<Option<PublicKey>, KeyManagerError> {
        metered!(self.one, key_code, self.inner.public_key(id))
    }

    async fn public_keys(&self) -> std::result::Result<Vec<(String, PublicKey)>, KeyManagerError> {
        metered!(self.all, key_code, self.inner.public_keys())
    }

    async fn sign(
        &self,
        id: &str,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> std::result::Result<Vec<u8>, KeyManagerError> {
        metered!(self.sign, key_code, self.inner.sign(id, algorithm, data))
    }
}

/// What rotations of authorities did.
pub struct Rotations {
    x509_prepare: CallMetric,
    jwt_prepare: CallMetric,
    x509_wanted: AtomicBool,
    jwt_wanted: AtomicBool,
    active: std::sync::Mutex<(Option<String>, Option<String>)>,
}

impl Rotations {
    pub fn new() -> Self {
        Self {
            x509_prepare: CallMetric::new("ca.manager.x509_ca.prepare"),
            jwt_prepare: CallMetric::new("ca.manager.jwt_key.prepare"),
            x509_wanted: AtomicBool::new(false),
            jwt_wanted: AtomicBool::new(false),
            active: std::sync::Mutex::default(),
        }
    }

    /// Before a rotation; give it to [`Self::done`].
    pub fn start(&self) -> Duration {
        self.x509_prepare.start()
    }

    /// After a rotation that made `ca` what it is now.
    pub fn done(&self, start: Duration, ca: Option<&CaManager>, now: i64) {
        let code = if ca.is_some() { Code::Ok } else { Code::Internal };
        if self.x509_wanted.swap(false, Ordering::Relaxed) {
            self.x509_prepare.done(start, code);
        }
        if self.jwt_wanted.swap(false, Ordering::Relaxed) {
            self.jwt_prepare.done(start, code);
        }
        let Some(ca) = ca else { return };
        let (x509, jwt) = (ca.x509_authority_id(), ca.jwt_authority_id());
        let mut active = self.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if x509.is_some() && active.0 != x509 {
            metrics::counter!("ca.manager.x509_ca.activate").increment(1);
        }
        if jwt.is_some() && active.1 != jwt {
            metrics::counter!("manager.jwt_key.activate").increment(1);
        }
        if let Some(expires_at) = x509.as_deref().and_then(|id| expiry(ca, id)) {
            let td = ca.config().trust_domain.id_string();
            metrics::gauge!("manager.x509_ca.rotate.expiration", "trust_domain_id" => td.clone())
                .set(expires_at as f64);
            metrics::gauge!("manager.x509_ca.rotate.ttl", "trust_domain_id" => td)
                .set((expires_at - now) as f64);
        }
        *active = (x509, jwt);
    }

    fn key_wanted(&self, id: &str) {
        if id.starts_with("x509-CA-") {
            self.x509_wanted.store(true, Ordering::Relaxed);
        } else if id.starts_with("JWT-Signer-") {
            self.jwt_wanted.store(true, Ordering::Relaxed);
        }
    }
}

/// When the authority with this subject key id ends.
fn expiry(ca: &CaManager, id: &str) -> Option<i64> {
    let hex = |key_id: Vec<u8>| steeple_server_api::hash::hex(&key_id);
    let bundle = ca.watch_bundle().borrow().clone();
    let certificates = bundle.x509_authorities.iter().map(|authority| &authority.certificate);
    let mut found =
        certificates.filter(|certificate| certificate.subject_key_id().map(hex).as_deref() == Some(id));
    found.next().map(steeple_spiffe::Certificate::not_after)
}

#[cfg(test)]
mod tests;
