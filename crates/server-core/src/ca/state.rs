//! What happens to authorities, as a pure state machine. [`State::step`] takes what has happened and the time and
//! answers what to do next; whoever drives it reports each effect's outcome as the next event.
//!
//! The order that keeps verifiers safe, whatever crashes in between:
//!
//! 1. make a key in the slot that is not in use;
//! 2. X.509: sign its root certificate;
//! 3. publish the authority in the trust bundle;
//! 4. write it to the journal as prepared;
//! 5. later, write it to the journal as active, and only then sign with it.
//!
//! A crash before 4 leaves an authority in the bundle that never signed anything: harmless, it expires.

use steeple_spiffe::{Certificate, PublicKey};

use super::journal::Journal;

/// Seconds.
const DAY: i64 = 24 * 3600;

/// The next authority is made when no more than this is left of one that lives `lifetime` seconds.
pub fn preparation_threshold(lifetime: i64) -> i64 {
    (lifetime / 2).min(30 * DAY)
}

/// The next authority takes over when no more than this is left of one that lives `lifetime` seconds.
pub fn activation_threshold(lifetime: i64) -> i64 {
    (lifetime / 6).min(7 * DAY)
}

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    X509,
    Jwt,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::X509, Self::Jwt];

    /// Where the key manager keeps the key of a slot; SPIRE's names.
    pub fn key_id(self, slot: SlotId) -> String {
        match self {
            Self::X509 => format!("x509-CA-{}", slot.as_str()),
            Self::Jwt => format!("JWT-Signer-{}", slot.as_str()),
        }
    }
}

/// One of a kind's two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotId {
    A,
    B,
}

impl SlotId {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }

    pub fn parse(id: &str) -> Option<Self> {
        match id {
            "A" => Some(Self::A),
            "B" => Some(Self::B),
            _ => None,
        }
    }

    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A key that signs, or is about to.
#[derive(Clone, Debug)]
pub struct Authority {
    pub kind: Kind,
    pub slot: SlotId,
    /// X.509: the subject key id in lowercase hex. JWT: the `kid`.
    pub id: String,
    /// Unix seconds.
    pub issued_at: i64,
    /// Unix seconds.
    pub not_after: i64,
    pub public_key: PublicKey,
    /// X.509 only: the self-signed root.
    pub certificate: Option<Certificate>,
}

impl Authority {
    pub fn key_id(&self) -> String {
        self.kind.key_id(self.slot)
    }

    /// X.509: who signed it, as the certificate says, in lowercase hex; empty for a root and for JWT keys.
    pub(super) fn upstream_id(&self) -> String {
        let certificate = self.certificate.as_ref();
        certificate.and_then(Certificate::authority_key_id).map(|id| hex(&id)).unwrap_or_default()
    }

    fn is_expired(&self, now: i64) -> bool {
        self.not_after <= now
    }

    fn left_is_within(&self, threshold: fn(i64) -> i64, now: i64) -> bool {
        self.not_after - now <= threshold(self.not_after - self.issued_at)
    }
}

/// Both places of one kind.
#[derive(Clone, Debug)]
pub struct Slots {
    /// Signs. `None` until the first one is made.
    pub current: Option<Authority>,
    /// Published and journaled, waits for its turn.
    pub next: Option<Authority>,
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed; begins a rotation. What a rotation before left unanswered is given up.
    Tick,
    /// [`Effect::GenerateKey`] is done. `kid` is what a JWT authority is to be called.
    KeyGenerated { public_key: PublicKey, kid: String },
    /// [`Effect::SignRoot`] is done.
    RootSigned(Certificate),
    /// [`Effect::Publish`] is done.
    Published,
    /// [`Effect::SaveJournal`] is done.
    JournalSaved { row: u64 },
    /// The last effect failed; whether it took place is unknown. Its kind waits for the next rotation.
    Failed,
}

/// What to do next. At most one effect that is answered by an event is under way.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Make a new key; an old one under the same id is replaced.
    GenerateKey { kind: Kind, slot: SlotId },
    /// Make the root certificate of a new key.
    SignRoot { slot: SlotId, public_key: PublicKey, not_after: i64 },
    /// Append the authority to the trust bundle.
    Publish(Authority),
    /// Make the journal durable.
    SaveJournal(Journal),
    /// Sign with this authority from now on. Needs no answer.
    Use(Authority),
}

#[derive(Clone, Debug)]
enum Work {
    Generating { kind: Kind, slot: SlotId },
    Signing { slot: SlotId, public_key: PublicKey, issued_at: i64, not_after: i64 },
    Publishing(Authority),
    Saving,
}

/// The authorities of one server.
#[derive(Clone, Debug)]
pub struct State {
    ttl: i64,
    jwt: bool,
    x509_slots: Slots,
    jwt_slots: Slots,
    journal: Journal,
    /// The journal has changed since it was last saved: nothing else happens until it is.
    unsaved: bool,
    /// Take over once the journal is saved.
    taking_over: Vec<Kind>,
    work: Option<Work>,
    /// Kinds that failed in this rotation.
    given_up: Vec<Kind>,
}

impl State {
    /// As loaded: `journal` and the slots that [`super::journal::load`] found usable. `ttl` > 0 in seconds.
    pub fn new(ttl: i64, jwt: bool, journal: Journal, x509_slots: Slots, jwt_slots: Slots) -> Self {
        Self {
            ttl,
            jwt,
            x509_slots,
            jwt_slots,
            journal,
            unsaved: false,
            taking_over: Vec::new(),
            work: None,
            given_up: Vec::new(),
        }
    }

    pub fn slots(&self, kind: Kind) -> &Slots {
        match kind {
            Kind::X509 => &self.x509_slots,
            Kind::Jwt => &self.jwt_slots,
        }
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    fn slots_mut(&mut self, kind: Kind) -> &mut Slots {
        match kind {
            Kind::X509 => &mut self.x509_slots,
            Kind::Jwt => &mut self.jwt_slots,
        }
    }

    /// An event that does not fit what is under way changes nothing.
    #[must_use]
    pub fn step(mut self, event: Event, now: i64) -> (Self, Vec<Effect>) {
        let effects = match (event, self.work.take()) {
            (Event::Tick, _) => {
                self.given_up.clear();
                self.plan(now)
            }
            (Event::Failed, Some(work)) => self.failed(&work, now),
            (Event::KeyGenerated { public_key, kid }, Some(Work::Generating { kind, slot })) => {
                self.key_generated(kind, slot, public_key, kid, now)
            }
            (
                Event::RootSigned(certificate),
                Some(Work::Signing { slot, public_key, issued_at, not_after }),
            ) => {
                let id = hex(&certificate.subject_key_id().unwrap_or_default());
                self.publish(Authority {
                    kind: Kind::X509,
                    slot,
                    id,
                    issued_at,
                    not_after,
                    public_key,
                    certificate: Some(certificate),
                })
            }
            (Event::Published, Some(Work::Publishing(authority))) => self.published(authority),
            (Event::JournalSaved { row }, Some(Work::Saving)) => self.saved(row, now),
            (_, work) => {
                self.work = work;
                Vec::new()
            }
        };
        (self, effects)
    }

    fn plan(&mut self, now: i64) -> Vec<Effect> {
        if self.unsaved {
            return self.save();
        }
        for kind in Kind::ALL {
            // The journal is found by the X.509 authority: without one, a JWT key could not be recorded.
            if kind == Kind::Jwt && self.x509_slots.current.is_none() {
                break;
            }
            let wanted = kind == Kind::X509 || self.jwt;
            if !wanted || self.given_up.contains(&kind) {
                continue;
            }
            let effects = self.plan_kind(kind, now);
            if !effects.is_empty() {
                return effects;
            }
        }
        Vec::new()
    }

    fn failed(&mut self, work: &Work, now: i64) -> Vec<Effect> {
        let kind = match work {
            Work::Generating { kind, .. } => *kind,
            Work::Signing { .. } => Kind::X509,
            Work::Publishing(authority) => authority.kind,
            // The store does not work: nothing else would.
            Work::Saving => return Vec::new(),
        };
        self.given_up.push(kind);
        self.plan(now)
    }

    fn plan_kind(&mut self, kind: Kind, now: i64) -> Vec<Effect> {
        let slots = self.slots_mut(kind);
        if slots.next.as_ref().is_some_and(|next| next.is_expired(now)) {
            slots.next = None;
        }
        match (&slots.current, &slots.next) {
            (None, None) => self.generate(kind, SlotId::A),
            (None, Some(_)) => self.activate(kind),
            (Some(current), None) if current.left_is_within(preparation_threshold, now) => {
                let slot = current.slot.other();
                self.generate(kind, slot)
            }
            (Some(current), Some(_)) if current.left_is_within(activation_threshold, now) => {
                self.activate(kind)
            }
            (Some(_), _) => Vec::new(),
        }
    }

    fn generate(&mut self, kind: Kind, slot: SlotId) -> Vec<Effect> {
        self.work = Some(Work::Generating { kind, slot });
        vec![Effect::GenerateKey { kind, slot }]
    }

    fn key_generated(
        &mut self,
        kind: Kind,
        slot: SlotId,
        public_key: PublicKey,
        kid: String,
        now: i64,
    ) -> Vec<Effect> {
        let (issued_at, not_after) = (now, now.saturating_add(self.ttl));
        match kind {
            Kind::X509 => {
                let effect = Effect::SignRoot { slot, public_key: public_key.clone(), not_after };
                self.work = Some(Work::Signing { slot, public_key, issued_at, not_after });
                vec![effect]
            }
            Kind::Jwt => self.publish(Authority {
                kind,
                slot,
                id: kid,
                issued_at,
                not_after,
                public_key,
                certificate: None,
            }),
        }
    }

    fn publish(&mut self, authority: Authority) -> Vec<Effect> {
        self.work = Some(Work::Publishing(authority.clone()));
        vec![Effect::Publish(authority)]
    }

    fn published(&mut self, authority: Authority) -> Vec<Effect> {
        let kind = authority.kind;
        self.journal.add(&authority);
        self.slots_mut(kind).next = Some(authority);
        if self.slots(kind).current.is_none() {
            // The very first one: prepared and active in one write, since the journal is found by the active one.
            return self.activate(kind);
        }
        self.unsaved = true;
        self.save()
    }

    fn activate(&mut self, kind: Kind) -> Vec<Effect> {
        let slots = self.slots_mut(kind);
        let Some(next) = slots.next.take() else { return Vec::new() };
        self.journal.activate(kind, &next.id);
        self.slots_mut(kind).current = Some(next);
        self.unsaved = true;
        self.taking_over.push(kind);
        self.save()
    }

    fn save(&mut self) -> Vec<Effect> {
        self.work = Some(Work::Saving);
        vec![Effect::SaveJournal(self.journal.clone())]
    }

    fn saved(&mut self, row: u64, now: i64) -> Vec<Effect> {
        self.journal.row = row;
        self.unsaved = false;
        let kinds = std::mem::take(&mut self.taking_over);
        let mut effects: Vec<Effect> =
            kinds.into_iter().filter_map(|kind| self.slots(kind).current.clone()).map(Effect::Use).collect();
        effects.extend(self.plan(now));
        effects
    }
}

/// Lowercase hex, as SPIRE writes authority ids.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
