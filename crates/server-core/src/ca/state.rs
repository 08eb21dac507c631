//! What happens to authorities, as a pure state machine. [`State::step`] takes what has happened and the time and
//! answers what to do next; whoever drives it reports each effect's outcome as the next event.
//!
//! The order that keeps verifiers safe, whatever crashes in between:
//!
//! 1. make a key in the slot that is not in use;
//! 2. X.509: get its certificate, self-signed or from the upstream authority, whose roots are published first;
//! 3. publish the authority in the trust bundle;
//! 4. write it to the journal as prepared;
//! 5. later, write it to the journal as active, and only then sign with it.
//!
//! A crash before 4 leaves an authority in the bundle that never signed anything: harmless, it expires.

mod authority;

use std::collections::HashSet;

use steeple_spiffe::{Certificate, PublicKey};

pub(super) use authority::chain_leads_to;
pub use authority::{Authority, Kind, SlotId, Slots};

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

/// What has happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed; begins a rotation. What a rotation before left unanswered is given up.
    Tick,
    /// An operator wants a new authority in the place of the next one, now. Begins as [`Event::Tick`] does.
    Prepare(Kind),
    /// An operator wants the next authority to take over now. Begins as [`Event::Tick`] does.
    Activate(Kind),
    /// [`Effect::GenerateKey`] is done. `kid` is what a JWT or WIT authority is to be called.
    KeyGenerated { public_key: PublicKey, kid: String },
    /// [`Effect::SignCa`] is done. `upstream_chain` as in [`Authority`].
    CaSigned { certificate: Certificate, upstream_chain: Vec<Certificate> },
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
    /// Make the CA certificate of a new key. If an upstream authority does, its roots are to be published too.
    SignCa { slot: SlotId, public_key: PublicKey, not_after: i64 },
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
    Signing { slot: SlotId, public_key: PublicKey, issued_at: i64 },
    Publishing(Authority),
    Saving,
}

/// What an operator asked for.
#[derive(Clone, Copy, Debug)]
enum Order {
    Prepare(Kind),
    Activate(Kind),
}

/// The authorities of one server.
#[derive(Clone, Debug)]
pub struct State {
    ttl: i64,
    /// Those that there are.
    kinds: Vec<Kind>,
    slots: [Slots; 3],
    /// Ids of authorities that must not sign any longer than it takes to replace them.
    distrusted: HashSet<String>,
    order: Option<Order>,
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
    /// As loaded: `journal` and the slots, in the order of [`Kind::ALL`], that [`super::journal::load`] found usable.
    /// `ttl` > 0 in seconds.
    pub fn new(ttl: i64, kinds: Vec<Kind>, journal: Journal, slots: [Slots; 3]) -> Self {
        Self {
            ttl,
            kinds,
            slots,
            distrusted: HashSet::new(),
            order: None,
            journal,
            unsaved: false,
            taking_over: Vec::new(),
            work: None,
            given_up: Vec::new(),
        }
    }

    pub fn slots(&self, kind: Kind) -> &Slots {
        &self.slots[kind.index()]
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Authorities of these ids, and none but these, are to be replaced: the next rotation does it whatever the time.
    pub fn distrust(&mut self, ids: HashSet<String>) {
        self.distrusted = ids;
    }

    fn slots_mut(&mut self, kind: Kind) -> &mut Slots {
        &mut self.slots[kind.index()]
    }

    /// An event that does not fit what is under way changes nothing.
    #[must_use]
    pub fn step(mut self, event: Event, now: i64) -> (Self, Vec<Effect>) {
        let effects = match (event, self.work.take()) {
            (Event::Tick, _) => self.begin(None, now),
            (Event::Prepare(kind), _) => self.begin(Some(Order::Prepare(kind)), now),
            (Event::Activate(kind), _) => self.begin(Some(Order::Activate(kind)), now),
            (Event::Failed, Some(work)) => self.failed(&work, now),
            (Event::KeyGenerated { public_key, kid }, Some(Work::Generating { kind, slot })) => {
                self.key_generated(kind, slot, public_key, kid, now)
            }
            (
                Event::CaSigned { certificate, upstream_chain },
                Some(Work::Signing { slot, public_key, issued_at }),
            ) => self.publish(Authority {
                kind: Kind::X509,
                slot,
                id: hex(&certificate.subject_key_id().unwrap_or_default()),
                issued_at,
                // An upstream authority may have given less than it was asked for.
                not_after: certificate.not_after(),
                public_key,
                certificate: Some(certificate),
                upstream_chain,
            }),
            (Event::Published, Some(Work::Publishing(authority))) => self.published(authority),
            (Event::JournalSaved { row }, Some(Work::Saving)) => self.saved(row, now),
            (_, work) => {
                self.work = work;
                Vec::new()
            }
        };
        (self, effects)
    }

    fn begin(&mut self, order: Option<Order>, now: i64) -> Vec<Effect> {
        self.given_up.clear();
        self.order = order;
        self.plan(now)
    }

    fn plan(&mut self, now: i64) -> Vec<Effect> {
        if self.unsaved {
            return self.save();
        }
        let ordered = match self.order.take() {
            Some(Order::Prepare(kind)) => self.prepare(kind),
            Some(Order::Activate(kind)) => self.activate(kind),
            None => Vec::new(),
        };
        if !ordered.is_empty() {
            return ordered;
        }
        for kind in self.kinds.clone() {
            // The journal is found by the X.509 authority: without one, another key could not be recorded.
            if kind != Kind::X509 && self.slots(Kind::X509).current.is_none() {
                break;
            }
            if self.given_up.contains(&kind) {
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
            Work::Saving => {
                self.order = None;
                return Vec::new();
            }
        };
        self.given_up.push(kind);
        self.order = None;
        self.plan(now)
    }

    fn plan_kind(&mut self, kind: Kind, now: i64) -> Vec<Effect> {
        let Self { distrusted, slots, .. } = self;
        let slots = &mut slots[kind.index()];
        let must_go =
            |authority: &Authority| distrusted.contains(&authority.id) || authority.is_not_yet_valid(now);
        if slots.next.as_ref().is_some_and(|next| next.is_expired(now) || must_go(next)) {
            slots.next = None;
        }
        match (&slots.current, &slots.next) {
            (None, Some(_)) => self.activate(kind),
            (None, None) => self.prepare(kind),
            (Some(current), None)
                if must_go(current) || current.left_is_within(preparation_threshold, now) =>
            {
                self.prepare(kind)
            }
            (Some(current), Some(_))
                if must_go(current) || current.left_is_within(activation_threshold, now) =>
            {
                self.activate(kind)
            }
            (Some(_), _) => Vec::new(),
        }
    }

    /// In the slot that is not in use.
    fn prepare(&mut self, kind: Kind) -> Vec<Effect> {
        let slots = self.slots(kind);
        let in_use = slots.current.as_ref().or(slots.old.as_ref());
        let slot = in_use.map_or(SlotId::A, |authority| authority.slot.other());
        self.generate(kind, slot)
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
        // Its key is gone.
        self.slots_mut(kind).next = None;
        if kind == Kind::X509 {
            let effect = Effect::SignCa { slot, public_key: public_key.clone(), not_after };
            self.work = Some(Work::Signing { slot, public_key, issued_at });
            return vec![effect];
        }
        self.publish(Authority {
            kind,
            slot,
            id: kid,
            issued_at,
            not_after,
            public_key,
            certificate: None,
            upstream_chain: Vec::new(),
        })
    }

    fn publish(&mut self, authority: Authority) -> Vec<Effect> {
        self.work = Some(Work::Publishing(authority.clone()));
        vec![Effect::Publish(authority)]
    }

    fn published(&mut self, authority: Authority) -> Vec<Effect> {
        let kind = authority.kind;
        self.journal.add(&authority);
        let slots = self.slots_mut(kind);
        slots.next = Some(authority);
        slots.old = None;
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
        let slots = self.slots_mut(kind);
        slots.old = slots.current.replace(next);
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
