//! Carries out what the state machine decides, and signs with the authority in use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use steeple_datastore::Datastore;
use steeple_plugin::KeyManager;
use steeple_spiffe::bundle::{JwtAuthority, X509Authority};
use steeple_spiffe::{Bundle, PublicKey, SpiffeId};
use tokio::sync::watch;

use super::journal::{self, Journal};
use super::sign::{Desk, LeafParams, Signer, random_kid};
use super::state::{Authority, Effect, Event, Kind, State};
use super::{
    AgentX509Params, CaConfig, CaError, DownstreamCaParams, JwtParams, SignedJwt, SignedX509,
    WorkloadX509Params,
};
use crate::admission::{Admission, Priority};

/// The bundle keeps an authority this long after it expired.
const BUNDLE_SAFETY: i64 = 24 * 3600;
const PRUNE_BUNDLE_EVERY: i64 = 6 * 3600;
/// Journals of servers that are gone are kept this long after their last authority expired.
const JOURNAL_SAFETY: i64 = 14 * 24 * 3600;
const PRUNE_JOURNALS_EVERY: i64 = 8 * 3600;

/// A server's certificate authority. Shared by every service; [`CaManager::rotate`] is called every ten seconds.
pub struct CaManager {
    desk: Desk,
    store: Arc<dyn Datastore>,
    x509: ArcSwapOption<Signer>,
    jwt: ArcSwapOption<Signer>,
    /// Signers that may still be signing, by key id.
    retired: Mutex<HashMap<String, Weak<Signer>>>,
    bundle: watch::Sender<Arc<Bundle>>,
    /// One rotation at a time. Signing does not look here.
    rotation: tokio::sync::Mutex<Rotation>,
}

struct Rotation {
    state: State,
    bundle_pruned: i64,
    journals_pruned: i64,
}

impl CaManager {
    /// Takes up the authorities that the journal and the key manager hold, or makes the first ones. Once it
    /// returns, there is something to sign with.
    pub async fn load(
        config: CaConfig,
        keys: Arc<dyn KeyManager>,
        store: Arc<dyn Datastore>,
        now: i64,
    ) -> Result<Self, CaError> {
        if config.ca_ttl < 1 {
            return Err(CaError::BadTtl(config.ca_ttl));
        }
        let known = keys.public_keys().await?;
        let journal = journal::find(&store.list_ca_journals().await?, &known)?;
        let stored = store.fetch_bundle(&config.trust_domain).await?;
        let state = loaded_state(&config, journal, &known, stored.as_ref(), now);
        let bundle = stored.unwrap_or_else(|| Bundle::new(config.trust_domain.clone()));
        let desk = Desk { config: Arc::new(config), keys, admission: Admission::per_core() };
        let rotation = Rotation { state: state.clone(), bundle_pruned: now, journals_pruned: now };
        let ca = Self {
            desk,
            store,
            x509: ArcSwapOption::empty(),
            jwt: ArcSwapOption::empty(),
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

    /// Prepares and activates authorities whose time has come, prunes what nobody needs any more, and reads the
    /// bundle again if others changed it. After an error everything goes on as before; the next call tries again.
    pub async fn rotate(&self, now: i64) -> Result<(), CaError> {
        let mut rotation = self.rotation.lock().await;
        self.advance(&mut rotation.state, now).await?;
        if now - rotation.bundle_pruned >= PRUNE_BUNDLE_EVERY {
            self.prune_bundle(now).await?;
            rotation.bundle_pruned = now;
        }
        if now - rotation.journals_pruned >= PRUNE_JOURNALS_EVERY {
            self.prune_journals(rotation.state.journal().row, now).await?;
            rotation.journals_pruned = now;
        }
        self.refresh_bundle().await
    }

    /// One rotation. A kind that fails does not keep the other from its turn; the first error is returned.
    async fn advance(&self, state: &mut State, now: i64) -> Result<(), CaError> {
        let mut event = Event::Tick;
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
                };
                let public_key = self.desk.keys.generate_key(&key_id, key_type).await?;
                Ok(Some(Event::KeyGenerated { public_key, kid }))
            }
            Effect::SignRoot { slot, public_key, not_after } => {
                let root = self.desk.root(&Kind::X509.key_id(slot), &public_key, not_after, now).await?;
                Ok(Some(Event::RootSigned(root)))
            }
            Effect::Publish(authority) => {
                let bundle = self.store.append_bundle(with_authority(config, &authority), now).await?;
                self.set_bundle(bundle);
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
            (Kind::Jwt, _) => (&self.jwt, Signer::jwt(authority)?),
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

    fn set_bundle(&self, bundle: Bundle) {
        self.bundle.send_if_modified(|current| {
            let changed = **current != bundle;
            if changed {
                *current = Arc::new(bundle);
            }
            changed
        });
    }

    /// The own trust domain's bundle: up to date with what this server publishes, and with what others do within
    /// one rotation interval.
    pub fn watch_bundle(&self) -> watch::Receiver<Arc<Bundle>> {
        self.bundle.subscribe()
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

    /// `kid` of the JWT authority in use.
    pub fn jwt_authority_id(&self) -> Option<String> {
        self.jwt.load().as_ref().map(|signer| signer.authority_id.clone())
    }

    fn x509_signer(&self, now: i64) -> Result<Arc<Signer>, CaError> {
        self.x509.load_full().filter(|signer| signer.not_after > now).ok_or(CaError::X509NotReady)
    }

    /// A workload's X.509-SVID, its lifetime capped by the authority's.
    pub async fn sign_workload_x509(
        &self,
        params: WorkloadX509Params,
        now: i64,
    ) -> Result<SignedX509, CaError> {
        let ttl = if params.ttl > 0 { i64::from(params.ttl) } else { self.desk.config.default_x509_svid_ttl };
        let leaf = LeafParams {
            spiffe_id: params.spiffe_id,
            public_key: params.public_key,
            dns_names: params.dns_names,
            ttl,
            subject: params.subject,
            priority: params.priority,
        };
        self.sign_leaf(leaf, now).await
    }

    /// An agent's X.509-SVID; it lives `agent_ttl`.
    pub async fn sign_agent_x509(&self, params: AgentX509Params, now: i64) -> Result<SignedX509, CaError> {
        self.sign_own(params.spiffe_id, params.public_key, self.desk.config.agent_ttl, now).await
    }

    /// The X.509-SVID of `spiffe://<trust domain>/spire/server`.
    pub async fn sign_server_x509(&self, public_key: PublicKey, now: i64) -> Result<SignedX509, CaError> {
        let config = &self.desk.config;
        let id = SpiffeId::from_parts(&config.trust_domain, "/spire/server")
            .map_err(|reason| CaError::InvalidX509Id(reason.to_string()))?;
        self.sign_own(id, public_key, config.default_x509_svid_ttl, now).await
    }

    async fn sign_own(
        &self,
        spiffe_id: SpiffeId,
        public_key: PublicKey,
        ttl: i64,
        now: i64,
    ) -> Result<SignedX509, CaError> {
        let (dns_names, subject, priority) = (Vec::new(), None, Priority::Waiting);
        self.sign_leaf(LeafParams { spiffe_id, public_key, dns_names, ttl, subject, priority }, now).await
    }

    async fn sign_leaf(&self, leaf: LeafParams, now: i64) -> Result<SignedX509, CaError> {
        let signer = self.x509_signer(now)?;
        self.desk.leaf(&signer, leaf, now).await
    }

    /// A signing certificate for a downstream server, its lifetime capped by the authority's.
    pub async fn sign_downstream_ca(
        &self,
        params: DownstreamCaParams,
        now: i64,
    ) -> Result<SignedX509, CaError> {
        let signer = self.x509_signer(now)?;
        self.desk.downstream(&signer, params, now).await
    }

    /// A JWT-SVID, its `exp` capped by the key's lifetime.
    pub async fn sign_jwt(&self, params: JwtParams, now: i64) -> Result<SignedJwt, CaError> {
        if self.desk.config.disable_jwt_svids {
            return Err(CaError::JwtDisabled);
        }
        let signer =
            self.jwt.load_full().filter(|signer| signer.not_after > now).ok_or(CaError::JwtNotReady)?;
        self.desk.token(&signer, params, now).await
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
    };
    let x509 = authority.kind == Kind::X509;
    tracing::info!(
        subsystem_name = "ca_manager",
        slot = authority.slot.as_str(),
        issued_at = go_time(authority.issued_at),
        expiration = go_time(authority.not_after),
        local_authority_id = %authority.id,
        self_signed = (x509 && matches!(stage, Stage::Prepared)).then_some(true),
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

fn loaded_state(
    config: &CaConfig,
    journal: Journal,
    keys: &[(String, PublicKey)],
    bundle: Option<&Bundle>,
    now: i64,
) -> State {
    tracing::info!(
        subsystem_name = "ca_manager",
        x509_cas = journal.len(Kind::X509),
        jwt_keys = journal.len(Kind::Jwt),
        "Journal loaded"
    );
    let loaded = journal::load(&journal, keys, bundle, now);
    for (id, reason) in &loaded.unusable {
        tracing::warn!(subsystem_name = "ca_manager", local_authority_id = %id, error = %reason, "Slot unusable");
    }
    State::new(config.ca_ttl, !config.disable_jwt_svids, journal, loaded.x509, loaded.jwt)
}

/// A bundle of this one authority, to be appended.
fn with_authority(config: &CaConfig, authority: &Authority) -> Bundle {
    let mut bundle = Bundle::new(config.trust_domain.clone());
    match (&authority.certificate, authority.kind) {
        (Some(certificate), Kind::X509) => {
            bundle.x509_authorities.push(X509Authority { certificate: certificate.clone(), tainted: false });
        }
        (_, Kind::Jwt) => bundle.jwt_authorities.push(JwtAuthority {
            key_id: authority.id.clone(),
            public_key: authority.public_key.clone(),
            expires_at: authority.not_after,
            tainted: false,
        }),
        (None, Kind::X509) => {}
    }
    bundle
}

#[cfg(test)]
mod tests;
