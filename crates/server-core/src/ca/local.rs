//! What operators may ask of this server's authorities: see them, prepare, activate, taint and revoke (spire.md §1.9).
//! Conditions, their order and their texts are SPIRE's.

use std::fmt;

use steeple_datastore::{AuthorityAction, AuthorityChange, AuthorityKind};
use steeple_spiffe::Bundle;

use super::manager::CaManager;
use super::state::{Authority, Event, Kind, Slots, State};
use super::{CaError, state};

/// One authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityState {
    pub id: String,
    /// Unix seconds; 0 where SPIRE does not say.
    pub expires_at: i64,
    /// X.509: who signed it, in lowercase hex; empty for a root.
    pub upstream_id: String,
}

/// All of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityStates {
    pub active: AuthorityState,
    pub prepared: Option<AuthorityState>,
    pub old: Option<AuthorityState>,
}

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("JWT functionality is disabled")]
    JwtDisabled,
    #[error("WIT functionality is disabled")]
    WitDisabled,
    #[error("server is initializing")]
    Initializing,
    #[error("failed to prepare {0} authority: {1}")]
    Prepare(Name, #[source] CaError),
    #[error("failed to activate {0} authority: {1}")]
    Activate(Name, #[source] CaError),
    #[error("no authority ID provided")]
    NoId,
    #[error("unexpected authority ID")]
    UnexpectedId,
    #[error("only Prepared authorities can be activated: {0}")]
    NotPrepared(#[source] Refusal),
    #[error("unable to taint current local authority")]
    TaintCurrent,
    #[error("only Old local authorities can be tainted: {0}")]
    NotOld(#[source] Refusal),
    #[error("local authority can't be {0} if there is an upstream authority")]
    HasUpstream(&'static str),
    #[error("upstream authority is not configured")]
    NoUpstream,
    #[error("{0}: {1}")]
    Invalid(&'static str, #[source] Refusal),
    /// The store refused or failed.
    #[error("{0}: {1}")]
    Store(String, #[source] steeple_datastore::Error),
}

/// A condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub &'static str);

/// A kind as SPIRE's messages call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub Kind);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::X509 => "X.509",
            Kind::Jwt => "JWT",
            Kind::Wit => "WIT",
        })
    }
}

impl CaManager {
    /// The authorities of a kind.
    pub fn authorities(&self, kind: Kind) -> Result<AuthorityStates, LocalError> {
        self.check_enabled(kind)?;
        let slots = &self.slots.load()[kind.index()];
        let active = slots.current.as_ref().ok_or(LocalError::Initializing)?;
        Ok(AuthorityStates {
            active: active.into(),
            prepared: slots.next.as_ref().map(Into::into),
            old: slots.old.as_ref().map(Into::into),
        })
    }

    /// A new authority, in the place of the next one if there is one already. It is published when this returns.
    pub async fn prepare_authority(&self, kind: Kind, now: i64) -> Result<AuthorityState, LocalError> {
        self.check_enabled(kind)?;
        let mut rotation = self.rotation.lock().await;
        if rotation.state.slots(kind).current.is_none() {
            return Err(LocalError::Initializing);
        }
        let before = id_of(rotation.state.slots(kind).next.as_ref()).to_owned();
        let outcome = self.advance(&mut rotation.state, Event::Prepare(kind), now).await;
        match (rotation.state.slots(kind).next.as_ref(), outcome) {
            // What else failed meanwhile is tried again by the next rotation.
            (Some(next), _) if next.id != before => Ok(next.into()),
            (_, Err(reason)) => Err(LocalError::Prepare(Name(kind), reason)),
            // Prepared, and activated at once since the active one is at its end.
            (_, Ok(())) => {
                let current = rotation.state.slots(kind).current.as_ref();
                current.map(Into::into).ok_or(LocalError::Initializing)
            }
        }
    }

    /// The prepared authority signs from now on.
    pub async fn activate_authority(
        &self,
        kind: Kind,
        id: &str,
        now: i64,
    ) -> Result<AuthorityState, LocalError> {
        self.check_enabled(kind)?;
        let mut rotation = self.rotation.lock().await;
        let slots = rotation.state.slots(kind);
        if id.is_empty() {
            return Err(LocalError::NoId);
        }
        if id == id_of(slots.old.as_ref()) {
            return Err(LocalError::NotPrepared(OLD));
        }
        if id != id_of(slots.next.as_ref()) {
            return Err(LocalError::UnexpectedId);
        }
        let outcome = self.advance(&mut rotation.state, Event::Activate(kind), now).await;
        let current = rotation.state.slots(kind).current.as_ref().filter(|current| current.id == id);
        match (current, outcome) {
            (Some(current), Ok(())) => Ok(current.into()),
            (Some(current), Err(_)) if self.signs_with(kind, id) => Ok(current.into()),
            (_, Err(reason)) => Err(LocalError::Activate(Name(kind), reason)),
            (None, Ok(())) => Err(LocalError::UnexpectedId),
        }
    }

    /// Whoever holds something that this old authority signed is to get another one.
    pub async fn taint_authority(
        &self,
        kind: Kind,
        id: &str,
        now: i64,
    ) -> Result<AuthorityState, LocalError> {
        self.check_enabled(kind)?;
        self.check_local(kind, "tainted")?;
        let rotation = self.rotation.lock().await;
        let slots = rotation.state.slots(kind);
        if id.is_empty() {
            return Err(LocalError::NoId);
        }
        // An activation that is not in the journal yet has not changed who signs.
        if id == id_of(slots.current.as_ref()) || self.signs_with(kind, id) {
            return Err(LocalError::TaintCurrent);
        }
        if id == id_of(slots.next.as_ref()) {
            return Err(LocalError::NotOld(PREPARED));
        }
        let old = slots.old.as_ref().filter(|old| old.id == id).ok_or(LocalError::UnexpectedId)?;
        let state = AuthorityState::from(old);
        let what = format!("failed to taint {} authority", Name(kind));
        self.change(kind, AuthorityAction::Taint, id, what, now).await?;
        Ok(AuthorityState { expires_at: if kind == Kind::X509 { state.expires_at } else { 0 }, ..state })
    }

    /// A tainted authority leaves the bundle: nothing that it signed is believed any more.
    pub async fn revoke_authority(
        &self,
        kind: Kind,
        id: &str,
        now: i64,
    ) -> Result<AuthorityState, LocalError> {
        self.check_enabled(kind)?;
        self.check_local(kind, "revoked")?;
        let rotation = self.rotation.lock().await;
        let invalid = |reason| LocalError::Invalid("invalid authority ID", Refusal(reason));
        self.check_revocable(kind, id, &rotation.state).map_err(invalid)?;
        let what = format!("failed to revoke {} authority", Name(kind));
        self.change(kind, AuthorityAction::Revoke, id, what, now).await?;
        Ok(AuthorityState { id: id.to_owned(), expires_at: 0, upstream_id: String::new() })
    }

    /// Taints the upstream authority (subject key id in hex) that signed our old X.509 CA.
    pub async fn taint_upstream(&self, subject_key_id: &str, now: i64) -> Result<String, LocalError> {
        self.change_upstream(
            AuthorityAction::Taint,
            subject_key_id,
            ("provided subject key id is not valid", "failed to taint upstream authority"),
            now,
        )
        .await
    }

    /// Revokes the tainted upstream authority (subject key id in hex) that signed our old X.509 CA.
    pub async fn revoke_upstream(&self, subject_key_id: &str, now: i64) -> Result<String, LocalError> {
        self.change_upstream(
            AuthorityAction::Revoke,
            subject_key_id,
            ("invalid subject key ID", "failed to revoke X.509 upstream authority"),
            now,
        )
        .await
    }

    async fn change_upstream(
        &self,
        action: AuthorityAction,
        subject_key_id: &str,
        (invalid, failed): (&'static str, &'static str),
        now: i64,
    ) -> Result<String, LocalError> {
        if self.upstream.is_none() {
            return Err(LocalError::NoUpstream);
        }
        let id = subject_key_id.to_lowercase();
        let rotation = self.rotation.lock().await;
        check_upstream(&id, rotation.state.slots(Kind::X509))
            .map_err(|reason| LocalError::Invalid(invalid, Refusal(reason)))?;
        self.change(Kind::X509, action, &id, failed.to_owned(), now).await?;
        Ok(id)
    }

    async fn change(
        &self,
        kind: Kind,
        action: AuthorityAction,
        id: &str,
        what: String,
        now: i64,
    ) -> Result<(), LocalError> {
        let kind = match kind {
            Kind::X509 => AuthorityKind::X509,
            Kind::Jwt => AuthorityKind::Jwt,
            Kind::Wit => AuthorityKind::Wit,
        };
        let change = AuthorityChange { kind, id: id.to_owned(), action };
        let missing = || steeple_datastore::Error::Authority("trust domain bundle is missing".to_owned());
        let changed = self.store.change_authority(&self.desk.config.trust_domain, change, now).await;
        match changed.and_then(|bundle| bundle.ok_or_else(missing)) {
            Ok(bundle) => {
                self.set_bundle(bundle);
                Ok(())
            }
            Err(reason) => Err(LocalError::Store(what, reason)),
        }
    }

    fn check_enabled(&self, kind: Kind) -> Result<(), LocalError> {
        match kind {
            Kind::Jwt if self.desk.config.disable_jwt_svids => Err(LocalError::JwtDisabled),
            Kind::Wit if self.desk.config.wit.is_none() => Err(LocalError::WitDisabled),
            _ => Ok(()),
        }
    }

    fn check_local(&self, kind: Kind, what: &'static str) -> Result<(), LocalError> {
        if kind == Kind::X509 && self.upstream.is_some() {
            return Err(LocalError::HasUpstream(what));
        }
        Ok(())
    }

    /// An X.509 authority has to be our old one; a key may be any of the bundle that we do not use, other servers' too.
    fn check_revocable(&self, kind: Kind, id: &str, state: &State) -> Result<(), &'static str> {
        let slots = state.slots(kind);
        if id.is_empty() {
            return Err("no authority ID provided");
        }
        if id == id_of(slots.current.as_ref()) || self.signs_with(kind, id) {
            return Err("unable to use current authority");
        }
        if id == id_of(slots.old.as_ref()) {
            return Ok(());
        }
        if kind == Kind::X509 {
            return Err("only Old local authority can be revoked");
        }
        if id == id_of(slots.next.as_ref()) {
            return Err("unable to use a prepared key");
        }
        let bundle: std::sync::Arc<Bundle> = self.bundle();
        let keys = if kind == Kind::Wit { &bundle.wit_authorities } else { &bundle.jwt_authorities };
        if keys.iter().any(|key| key.key_id == id) {
            return Ok(());
        }
        Err(match kind {
            Kind::Wit => "no WIT authority found with provided authority ID",
            _ => "no JWT authority found with provided authority ID",
        })
    }

    pub(super) fn signs_with(&self, kind: Kind, id: &str) -> bool {
        let signs = match kind {
            Kind::X509 => self.x509_authority_id(),
            Kind::Jwt => self.jwt_authority_id(),
            Kind::Wit => self.wit_authority_id(),
        };
        signs.as_deref() == Some(id)
    }
}

fn check_upstream(id: &str, slots: &Slots) -> Result<(), &'static str> {
    let upstream_of = |authority: &Option<Authority>| authority.as_ref().map(Authority::upstream_id);
    let is_of = |authority: &Option<Authority>| upstream_of(authority).as_deref() == Some(id);
    if id.is_empty() {
        return Err("no subject key ID provided");
    }
    if is_of(&slots.current) {
        return Err("unable to use upstream authority singing current authority");
    }
    if is_of(&slots.next) {
        return Err("only upstream authorities signing an old authority can be used");
    }
    if !is_of(&slots.old) {
        return Err("upstream authority didn't sign the old local authority");
    }
    Ok(())
}

impl From<&state::Authority> for AuthorityState {
    fn from(authority: &Authority) -> Self {
        Self {
            id: authority.id.clone(),
            expires_at: authority.not_after,
            upstream_id: authority.upstream_id(),
        }
    }
}

fn id_of(authority: Option<&Authority>) -> &str {
    authority.map(|authority| authority.id.as_str()).unwrap_or_default()
}

const OLD: Refusal = Refusal("unsupported local authority status: OLD");
const PREPARED: Refusal = Refusal("unsupported local authority status: PREPARED");
