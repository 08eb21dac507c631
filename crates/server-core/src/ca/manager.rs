//! Carries out what the state machine decides, and signs with the authority in use.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use steeple_datastore::Datastore;
use steeple_plugin::{KeyManager, UpstreamAuthority};
use steeple_spiffe::bundle::{JwtAuthority, X509Authority};
use steeple_spiffe::{Bundle, Certificate};
use tokio::sync::watch;

use super::journal::{self, Journal, Surroundings};
use super::sign::{Desk, Signer, random_kid};
use super::state::{Authority, Effect, Event, Kind, Slots, State, chain_leads_to};
use super::{CaConfig, CaError, CaPlugins};
use crate::admission::Admission;

/// The bundle keeps an authority this long after it expired.
const BUNDLE_SAFETY: i64 = 24 * 3600;
const PRUNE_BUNDLE_EVERY: i64 = 6 * 3600;
/// Journals of servers that are gone are kept this long after their last authority expired.
const JOURNAL_SAFETY: i64 = 14 * 24 * 3600;
const PRUNE_JOURNALS_EVERY: i64 = 8 * 3600;

/// A server's certificate authority. Shared by every service; [`CaManager::rotate`] is called every ten seconds.
pub struct CaManager {
    pub(super) desk: Desk,
    pub(super) store: Arc<dyn Datastore>,
    pub(super) upstream: Option<Arc<dyn UpstreamAuthority>>,
    pub(super) x509: ArcSwapOption<Signer>,
    pub(super) jwt: ArcSwapOption<Signer>,
    pub(super) wit: ArcSwapOption<Signer>,
    /// What `rotation` holds, for those who only look.
    pub(super) slots: ArcSwap<[Slots; 3]>,
    /// Signers that may still be signing, by key id.
    retired: Mutex<HashMap<String, Weak<Signer>>>,
    bundle: watch::Sender<Arc<Bundle>>,
    /// One rotation at a time. Signing does not look here.
    pub(super) rotation: tokio::sync::Mutex<Rotation>,
}

pub(super) struct Rotation {
    pub state: State,
    bundle_pruned: i64,
    journals_pruned: i64,
    /// What the upstream authority had when it was last looked at.
    pub upstream_roots: Option<Vec<Certificate>>,
}

impl CaManager {
    /// A CA that is its own root and has no composers; see [`CaManager::load_with`].
    pub async fn load(
        config: CaConfig,
        keys: Arc<dyn KeyManager>,
        store: Arc<dyn Datastore>,
        now: i64,
    ) -> Result<Self, CaError> {
        Self::load_with(config, CaPlugins::new(keys), store, now).await
    }

    /// Takes up the authorities that the journal and the key manager hold, or makes the first ones. Once it
    /// returns, there is something to sign with.
    pub async fn load_with(
        config: CaConfig,
        plugins: CaPlugins,
        store: Arc<dyn Datastore>,
        now: i64,
    ) -> Result<Self, CaError> {
        if config.ca_ttl < 1 {
            return Err(CaError::BadTtl(config.ca_ttl));
        }
        let CaPlugins { keys, upstream, composers } = plugins;
        let known = keys.public_keys().await?;
        let journal = journal::find(&store.list_ca_journals().await?, &known)?;
        let stored = store.fetch_bundle(&config.trust_domain).await?;
        let around =
            Surroundings { keys: &known, bundle: stored.as_ref(), upstream: upstream.is_some(), now };
        let state = loaded_state(&config, journal, around);
        let bundle = stored.unwrap_or_else(|| Bundle::new(config.trust_domain.clone()));
        let desk = Desk { config: Arc::new(config), keys, composers, admission: Admission::per_core() };
        let rotation =
            Rotation { state: state.clone(), bundle_pruned: now, journals_pruned: now, upstream_roots: None };
        let ca = Self {
            desk,
            store,
            upstream,
            x509: ArcSwapOption::empty(),
            jwt: ArcSwapOption::empty(),
            wit: ArcSwapOption::empty(),
            slots: ArcSwap::from_pointee(Default::default()),
            retired: Mutex::default(),
            bundle: watch::Sender::new(Arc::new(bundle)),
            rotation: tokio::sync::Mutex::new(rotation),
        };
        for kind in Kind::ALL {
            if let Some(authority) = &state.slots(kind).current {
                ca.take_over(authority)?;
            }
        }
        ca.rotate(now).await?;
        Ok(ca)
    }

    /// Signatures that wait for their turn now.
    pub fn waiting_signatures(&self) -> usize {
        self.desk.admission.waiting()
    }

    /// Looks at the bundle for what others changed, prepares and activates authorities whose time has come or that are
    /// tainted, and prunes what nobody needs any more. After an error everything goes on as before; the next call tries
    /// again.
    pub async fn rotate(&self, now: i64) -> Result<(), CaError> {
        let mut rotation = self.rotation.lock().await;
        let refreshed = self.refresh_bundle().await;
        let synced = self.sync_upstream_roots(&mut rotation, now).await;
        self.advance(&mut rotation.state, Event::Tick, now).await?;
        refreshed?;
        synced?;
        if is_time(rotation.bundle_pruned, PRUNE_BUNDLE_EVERY, now) {
            self.prune_bundle(now).await?;
            rotation.bundle_pruned = now;
        }
        if is_time(rotation.journals_pruned, PRUNE_JOURNALS_EVERY, now) {
            self.prune_journals(rotation.state.journal().row, now).await?;
            rotation.journals_pruned = now;
        }
        Ok(())
    }

    /// One rotation, begun by `event`. A kind that fails does not keep the others from their turn; the first error is
    /// returned.
    pub(super) async fn advance(&self, state: &mut State, event: Event, now: i64) -> Result<(), CaError> {
        state.distrust(self.distrusted(state));
        let outcome = self.run(state, event, now).await;
        self.slots.store(Arc::new(Kind::ALL.map(|kind| state.slots(kind).clone())));
        outcome
    }

    async fn run(&self, state: &mut State, mut event: Event, now: i64) -> Result<(), CaError> {
        let mut first_error = None;
        loop {
            let (next, effects) = state.clone().step(event, now);
            *state = next;
            let mut answer = None;
            for effect in effects {
                match self.carry_out(effect, now).await {
                    Ok(None) => {}
                    Ok(done) => answer = done,
                    Err(error) => {
                        answer = Some(Event::Failed);
                        first_error.get_or_insert(error);
                    }
                }
            }
            match (answer, first_error) {
                (Some(answer), error) => (event, first_error) = (answer, error),
                (None, Some(error)) => return Err(error),
                (None, None) => return Ok(()),
            }
        }
    }

    async fn carry_out(&self, effect: Effect, now: i64) -> Result<Option<Event>, CaError> {
        let config = &self.desk.config;
        match effect {
            Effect::GenerateKey { kind, slot } => {
                let key_id = kind.key_id(slot);
                self.check_not_signing(&key_id)?;
                let (key_type, kid) = match kind {
                    Kind::X509 => (config.ca_key_type, String::new()),
                    Kind::Jwt => (config.jwt_key_type, random_kid()?),
                    Kind::Wit => {
                        let wit = config.wit.as_ref().ok_or(CaError::WitDisabled)?;
                        (wit.key_type, random_kid()?)
                    }
                };
                let public_key = self.desk.keys.generate_key(&key_id, key_type).await?;
                Ok(Some(Event::KeyGenerated { public_key, kid }))
            }
            Effect::SignCa { slot, public_key, not_after } => {
                let key_id = Kind::X509.key_id(slot);
                if self.upstream.is_some() {
                    let upstream_chain = self.mint(&key_id, &public_key, not_after - now, now).await?;
                    let certificate = upstream_chain.first().cloned().ok_or(CaError::X509NotReady)?;
                    return Ok(Some(Event::CaSigned { certificate, upstream_chain }));
                }
                let certificate = self.desk.root(&key_id, &public_key, not_after, now).await?;
                Ok(Some(Event::CaSigned { certificate, upstream_chain: Vec::new() }))
            }
            Effect::Publish(authority) => {
                // With an upstream authority its roots are published already.
                if authority.upstream_chain.is_empty() {
                    let bundle = self.store.append_bundle(with_authority(config, &authority), now).await?;
                    self.set_bundle(bundle);
                }
                log_authority(&authority, Stage::Prepared);
                Ok(Some(Event::Published))
            }
            Effect::SaveJournal(journal) => {
                let stored = self.store.put_ca_journal(journal.encode(), now).await?;
                Ok(Some(Event::JournalSaved { row: stored.id }))
            }
            Effect::Use(authority) => {
                self.take_over(&authority)?;
                Ok(None)
            }
        }
    }

    fn take_over(&self, authority: &Authority) -> Result<(), CaError> {
        let (place, signer) = match (authority.kind, &authority.certificate) {
            (Kind::X509, Some(certificate)) => (&self.x509, Signer::x509(authority, certificate)?),
            (Kind::X509, None) => return Err(CaError::X509NotReady),
            (Kind::Jwt, _) => (&self.jwt, Signer::token(authority)?),
            (Kind::Wit, _) => (&self.wit, Signer::token(authority)?),
        };
        log_authority(authority, Stage::Activated);
        let signer = Arc::new(signer);
        self.retired().insert(signer.key_id.clone(), Arc::downgrade(&signer));
        place.store(Some(signer));
        Ok(())
    }

    /// A signature in flight holds its signer, so the key behind it must not be replaced yet.
    fn check_not_signing(&self, key_id: &str) -> Result<(), CaError> {
        match self.retired().get(key_id).and_then(Weak::upgrade) {
            Some(signer) => Err(CaError::KeyInUse(signer.key_id.clone())),
            None => Ok(()),
        }
    }

    fn retired(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Signer>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn prune_bundle(&self, now: i64) -> Result<(), CaError> {
        let pruned =
            self.store.prune_bundle(&self.desk.config.trust_domain, now - BUNDLE_SAFETY, now).await?;
        if pruned.changed {
            tracing::debug!(
                subsystem_name = "ca_manager",
                "Expired certificates were successfully pruned from bundle"
            );
            self.refresh_bundle().await?;
        }
        Ok(())
    }

    async fn prune_journals(&self, own_row: u64, now: i64) -> Result<(), CaError> {
        for stored in self.store.list_ca_journals().await? {
            let old =
                Journal::decode(&stored).is_ok_and(|journal| journal.is_older_than(now - JOURNAL_SAFETY));
            if stored.id != own_row && old {
                self.store.delete_ca_journal(stored.id).await?;
            }
        }
        Ok(())
    }

    async fn refresh_bundle(&self) -> Result<(), CaError> {
        if let Some(bundle) = self.store.fetch_bundle(&self.desk.config.trust_domain).await? {
            self.set_bundle(bundle);
        }
        Ok(())
    }

    pub(super) fn set_bundle(&self, bundle: Bundle) {
        self.bundle.send_if_modified(|current| {
            let changed = **current != bundle;
            if changed {
                *current = Arc::new(bundle);
            }
            changed
        });
    }

    /// Which of the authorities in the slots are tainted, or stand under one that is.
    fn distrusted(&self, state: &State) -> HashSet<String> {
        let bundle = self.bundle.borrow().clone();
        let tainted = tainted_ids(&bundle);
        let keys = bundle.jwt_authorities.iter().chain(&bundle.wit_authorities);
        let mut ids: HashSet<String> = keys.filter(|key| key.tainted).map(|key| key.key_id.clone()).collect();
        let slots = state.slots(Kind::X509);
        if !tainted.is_empty() {
            let x509 = slots.current.iter().chain(&slots.next);
            ids.extend(
                x509.filter(|authority| authority.leads_to(&tainted)).map(|authority| authority.id.clone()),
            );
        }
        for authority in Kind::ALL.into_iter().filter_map(|kind| state.slots(kind).current.as_ref()) {
            if ids.contains(&authority.id) {
                tracing::info!(
                    subsystem_name = "ca_manager",
                    local_authority_id = %authority.id,
                    upstream_authority_id = authority.upstream_id(),
                    "Current authority is tainted, preparing rotation"
                );
            }
        }
        ids
    }

    /// Whether an X509-SVID stands under a tainted authority while there is an untainted one to sign another.
    pub fn is_to_be_replaced(&self, chain: &[Certificate]) -> bool {
        let tainted = tainted_ids(&self.bundle.borrow());
        let is_sound = |slots: &[Slots; 3]| {
            slots[0].current.as_ref().is_some_and(|authority| !authority.leads_to(&tainted))
        };
        !tainted.is_empty() && chain_leads_to(chain, &tainted) && is_sound(&self.slots.load())
    }

    /// The own trust domain's bundle: up to date with what this server publishes, and with what others do within
    /// one rotation interval.
    pub fn watch_bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        self.bundle.subscribe()
    }

    /// The own trust domain's bundle as this server last saw it.
    pub(super) fn bundle(&self) -> Arc<Bundle> {
        self.bundle.borrow().clone()
    }

    pub fn config(&self) -> &CaConfig {
        &self.desk.config
    }

    /// Whether there is an X.509 authority to sign with.
    pub fn x509_ready(&self) -> bool {
        self.x509.load().is_some()
    }

    /// Subject key id in hex of the X.509 authority in use.
    pub fn x509_authority_id(&self) -> Option<String> {
        self.x509.load().as_ref().map(|signer| signer.authority_id.clone())
    }

    /// `kid` of the WIT authority in use.
    pub fn wit_authority_id(&self) -> Option<String> {
        self.wit.load().as_ref().map(|signer| signer.authority_id.clone())
    }

    /// `kid` of the JWT authority in use.
    pub fn jwt_authority_id(&self) -> Option<String> {
        self.jwt.load().as_ref().map(|signer| signer.authority_id.clone())
    }
}

/// What becomes of an authority; logged under SPIRE's messages.
#[derive(Clone, Copy)]
enum Stage {
    Prepared,
    Activated,
}

fn log_authority(authority: &Authority, stage: Stage) {
    let message = match (authority.kind, stage) {
        (Kind::X509, Stage::Prepared) => "X509 CA prepared",
        (Kind::X509, Stage::Activated) => "X509 CA activated",
        (Kind::Jwt, Stage::Prepared) => "JWT key prepared",
        (Kind::Jwt, Stage::Activated) => "JWT key activated",
        (Kind::Wit, Stage::Prepared) => "WIT key prepared",
        (Kind::Wit, Stage::Activated) => "WIT key activated",
    };
    let x509 = authority.kind == Kind::X509;
    tracing::info!(
        subsystem_name = "ca_manager",
        slot = authority.slot.as_str(),
        issued_at = go_time(authority.issued_at),
        expiration = go_time(authority.not_after),
        local_authority_id = %authority.id,
        self_signed = (x509 && matches!(stage, Stage::Prepared)).then_some(authority.upstream_chain.is_empty()),
        upstream_authority_id = x509.then(|| authority.upstream_id()),
        "{message}",
    );
}

/// `2026-11-23 16:00:00 +0000 UTC`, as Go prints a time in whole seconds.
fn go_time(unix: i64) -> String {
    match jiff::Timestamp::from_second(unix) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string(),
        Err(_) => unix.to_string(),
    }
}

fn loaded_state(config: &CaConfig, journal: Journal, around: Surroundings<'_>) -> State {
    tracing::info!(
        subsystem_name = "ca_manager",
        x509_cas = journal.len(Kind::X509),
        jwt_keys = journal.len(Kind::Jwt),
        wit_keys = journal.len(Kind::Wit),
        "Journal loaded"
    );
    let loaded = journal::load(&journal, around);
    for (kind, id, reason) in &loaded.unusable {
        let message = match kind {
            Kind::X509 => "X509CA slot unusable",
            Kind::Jwt => "JWT key slot unusable",
            Kind::Wit => "WIT key slot unusable",
        };
        tracing::warn!(subsystem_name = "ca_manager", local_authority_id = %id, error = %reason, "{message}");
    }
    let mut kinds = vec![Kind::X509];
    kinds.extend((!config.disable_jwt_svids).then_some(Kind::Jwt));
    kinds.extend(config.wit.is_some().then_some(Kind::Wit));
    State::new(config.ca_ttl, kinds, journal, loaded.slots)
}

/// Subject key ids of tainted X.509 authorities.
pub(super) fn tainted_ids(bundle: &Bundle) -> HashSet<Vec<u8>> {
    let tainted = bundle.x509_authorities.iter().filter(|authority| authority.tainted);
    tainted.filter_map(|authority| authority.certificate.subject_key_id()).collect()
}

/// Whether a job is due; also if the clock went back.
fn is_time(last: i64, every: i64, now: i64) -> bool {
    now - last >= every || now < last
}

/// A bundle of this one authority, to be appended.
fn with_authority(config: &CaConfig, authority: &Authority) -> Bundle {
    let mut bundle = Bundle::new(config.trust_domain.clone());
    match (&authority.certificate, authority.kind) {
        (Some(certificate), Kind::X509) => {
            bundle.x509_authorities.push(X509Authority { certificate: certificate.clone(), tainted: false });
        }
        (_, Kind::Jwt) => bundle.jwt_authorities.push(key_authority(authority)),
        (_, Kind::Wit) => bundle.wit_authorities.push(key_authority(authority)),
        (None, Kind::X509) => {}
    }
    bundle
}

fn key_authority(authority: &Authority) -> JwtAuthority {
    JwtAuthority {
        key_id: authority.id.clone(),
        public_key: authority.public_key.clone(),
        expires_at: authority.not_after,
        tainted: false,
    }
}

#[cfg(test)]
mod tests;
