//! What a server remembers of its authorities, as SPIRE's protobuf in table `ca_journals`.

use prost::Message as _;
use steeple_datastore::model::CaJournal;
use steeple_proto::journal::{Entries, JwtKeyEntry, Status, WitKeyEntry, X509caEntry};
use steeple_spiffe::{Bundle, Certificate, PublicKey};

use super::CaError;
use super::state::{Authority, Kind, SlotId, Slots, hex};

/// Entries kept of each kind; SPIRE's number.
const CAP: usize = 10;

/// Authorities, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journal {
    /// Row id; 0 = not stored yet.
    pub row: u64,
    x509: Vec<X509caEntry>,
    jwt: Vec<JwtKeyEntry>,
    /// Has the fields of JWT keys.
    wit: Vec<JwtKeyEntry>,
}

impl Journal {
    /// Reads a stored row.
    pub fn decode(stored: &CaJournal) -> Result<Self, CaError> {
        let entries = Entries::decode(stored.data.as_slice())
            .map_err(|reason| CaError::Journal { row: stored.id, reason: reason.to_string() })?;
        let wit = entries.wit_keys.into_iter().map(from_wit).collect();
        Ok(Self { row: stored.id, x509: entries.x509_c_as, jwt: entries.jwt_keys, wit })
    }

    /// As it is stored. The row is found again by the id of the active X.509 authority.
    pub fn encode(&self) -> CaJournal {
        let entries = Entries {
            x509_c_as: self.x509.clone(),
            jwt_keys: self.jwt.clone(),
            wit_keys: self.wit.iter().cloned().map(to_wit).collect(),
        };
        CaJournal {
            id: self.row,
            data: entries.encode_to_vec(),
            active_x509_authority_id: self.active_x509().unwrap_or_default().to_owned(),
            // SPIRE leaves the column empty.
            active_jwt_authority_id: String::new(),
        }
    }

    pub fn active_x509(&self) -> Option<&str> {
        let active = self.x509.iter().rev().find(|entry| entry.status == Status::Active as i32);
        active.map(|entry| entry.authority_id.as_str())
    }

    /// Entries of one kind.
    pub fn len(&self, kind: Kind) -> usize {
        match kind {
            Kind::X509 => self.x509.len(),
            Kind::Jwt => self.jwt.len(),
            Kind::Wit => self.wit.len(),
        }
    }

    /// Whether every authority in it expired before `before` (Unix seconds).
    pub fn is_older_than(&self, before: i64) -> bool {
        let mut times = (self.x509.iter().map(|entry| entry.not_after))
            .chain(self.jwt.iter().map(|entry| entry.not_after))
            .chain(self.wit.iter().map(|entry| entry.not_after));
        times.all(|not_after| not_after < before)
    }

    /// A new authority, prepared. An earlier one that was prepared in the same slot and never used is old now:
    /// its key is gone.
    pub(super) fn add(&mut self, authority: &Authority) {
        let slot_id = authority.slot.as_str().to_owned();
        let status = Status::Prepared as i32;
        match authority.kind {
            Kind::X509 => {
                retire(&mut self.x509, &slot_id, |entry| (&entry.slot_id, &mut entry.status));
                let certificate = authority.certificate.as_ref();
                self.x509.push(X509caEntry {
                    slot_id,
                    issued_at: authority.issued_at,
                    certificate: certificate.map(|root| root.der().to_vec()).unwrap_or_default(),
                    upstream_chain: authority.upstream_chain.iter().map(|part| part.der().to_vec()).collect(),
                    status,
                    authority_id: authority.id.clone(),
                    not_after: authority.not_after,
                    upstream_authority_id: authority.upstream_id(),
                });
                trim(&mut self.x509, |entry| entry.status);
            }
            Kind::Jwt => add_key(&mut self.jwt, authority),
            Kind::Wit => add_key(&mut self.wit, authority),
        }
    }

    /// This authority signs from now on, the one before it is old.
    pub(super) fn activate(&mut self, kind: Kind, authority_id: &str) {
        match kind {
            Kind::X509 => {
                activate(&mut self.x509, authority_id, |entry| (&entry.authority_id, &mut entry.status));
            }
            Kind::Jwt => activate_key(&mut self.jwt, authority_id),
            Kind::Wit => activate_key(&mut self.wit, authority_id),
        }
    }
}

fn add_key(keys: &mut Vec<JwtKeyEntry>, authority: &Authority) {
    let slot_id = authority.slot.as_str().to_owned();
    retire(keys, &slot_id, |entry| (&entry.slot_id, &mut entry.status));
    keys.push(JwtKeyEntry {
        slot_id,
        issued_at: authority.issued_at,
        not_after: authority.not_after,
        kid: authority.id.clone(),
        public_key: authority.public_key.spki_der().to_vec(),
        status: Status::Prepared as i32,
        authority_id: authority.id.clone(),
    });
    trim(keys, |entry| entry.status);
}

fn activate_key(keys: &mut [JwtKeyEntry], authority_id: &str) {
    activate(keys, authority_id, |entry| (&entry.authority_id, &mut entry.status));
}

fn from_wit(key: WitKeyEntry) -> JwtKeyEntry {
    let WitKeyEntry { slot_id, issued_at, not_after, kid, public_key, status, authority_id } = key;
    JwtKeyEntry { slot_id, issued_at, not_after, kid, public_key, status, authority_id }
}

fn to_wit(key: JwtKeyEntry) -> WitKeyEntry {
    let JwtKeyEntry { slot_id, issued_at, not_after, kid, public_key, status, authority_id } = key;
    WitKeyEntry { slot_id, issued_at, not_after, kid, public_key, status, authority_id }
}

fn activate<T>(entries: &mut [T], authority_id: &str, parts: fn(&mut T) -> (&String, &mut i32)) {
    for entry in entries {
        let (of, status) = parts(entry);
        if of == authority_id {
            *status = Status::Active as i32;
        } else if *status == Status::Active as i32 {
            *status = Status::Old as i32;
        }
    }
}

fn retire<T>(entries: &mut [T], slot: &str, parts: fn(&mut T) -> (&String, &mut i32)) {
    for entry in entries {
        let (of, status) = parts(entry);
        if of == slot {
            *status = Status::Old as i32;
        }
    }
}

/// Drops the oldest entries beyond [`CAP`] that neither sign nor wait for their turn.
fn trim<T>(entries: &mut Vec<T>, status: fn(&T) -> i32) {
    while entries.len() > CAP {
        let in_use = |entry: &T| [Status::Active as i32, Status::Prepared as i32].contains(&status(entry));
        let oldest = entries.iter().position(|entry| !in_use(entry)).unwrap_or(0);
        entries.remove(oldest);
    }
}

/// The journal of the server that holds `keys`: the one whose active X.509 authority is one of them.
pub fn find(journals: &[CaJournal], keys: &[(String, PublicKey)]) -> Result<Journal, CaError> {
    let mine = keys.iter().find_map(|(_, key)| {
        let authority_id = hex(&key.subject_key_id());
        journals.iter().find(|journal| journal.active_x509_authority_id == authority_id)
    });
    mine.map_or_else(|| Ok(Journal::default()), Journal::decode)
}

/// Why an entry of the journal is not used any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("authority is not in the trust bundle")]
    NotInBundle,
    #[error("slot expired")]
    Expired,
    #[error("no slot id")]
    NoSlot,
    #[error("no key manager key")]
    NoKey,
    #[error("public key does not match key manager key")]
    OtherKey,
    #[error("signed by an upstream authority, and none is configured")]
    Upstream,
    #[error("upstream chain leads to no authority in the trust bundle")]
    UnknownUpstream,
    #[error("unreadable: {0}")]
    Unreadable(String),
}

/// What [`load`] found.
#[derive(Debug)]
pub struct Loaded {
    /// In the order of [`Kind::ALL`].
    pub slots: [Slots; 3],
    /// Kind, authority id and reason of entries that were not old and are not used.
    pub unusable: Vec<(Kind, String, Unusable)>,
}

/// What is there besides the journal.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    pub keys: &'a [(String, PublicKey)],
    pub bundle: Option<&'a Bundle>,
    /// Whether an upstream authority is configured.
    pub upstream: bool,
    /// Unix seconds.
    pub now: i64,
}

/// Which of the journal's authorities can go on: those whose key is still there and that verifiers can know.
pub fn load(journal: &Journal, around: Surroundings<'_>) -> Loaded {
    let mut unusable = Vec::new();
    let mut usable = |kind, id: &str, status: i32, result: Result<Authority, Unusable>| match result {
        Ok(authority) => Some((status, authority)),
        Err(reason) => {
            if status != Status::Old as i32 {
                unusable.push((kind, id.to_owned(), reason));
            }
            None
        }
    };
    let x509: Vec<_> = (journal.x509.iter())
        .filter_map(|entry| {
            usable(Kind::X509, &entry.authority_id, entry.status, x509_authority(entry, around))
        })
        .collect();
    let mut keys = |kind, entries: &[JwtKeyEntry]| -> Vec<_> {
        let entries = entries.iter();
        entries
            .filter_map(|entry| {
                usable(kind, &entry.authority_id, entry.status, key_authority(kind, entry, around))
            })
            .collect()
    };
    let (jwt, wit) = (keys(Kind::Jwt, &journal.jwt), keys(Kind::Wit, &journal.wit));
    Loaded { slots: [slots(x509), slots(jwt), slots(wit)], unusable }
}

fn x509_authority(entry: &X509caEntry, around: Surroundings<'_>) -> Result<Authority, Unusable> {
    let unreadable = |reason: steeple_spiffe::x509::X509Error| Unusable::Unreadable(reason.to_string());
    let chain = entry.upstream_chain.iter().map(|part| Certificate::from_der(part));
    let upstream_chain: Vec<Certificate> = chain.collect::<Result<_, _>>().map_err(unreadable)?;
    if !upstream_chain.is_empty() {
        if !around.upstream {
            return Err(Unusable::Upstream);
        }
        if !around.bundle.is_some_and(|bundle| is_known(&upstream_chain, bundle)) {
            return Err(Unusable::UnknownUpstream);
        }
    } else if !around.bundle.is_some_and(|bundle| is_published(&entry.certificate, bundle)) {
        return Err(Unusable::NotInBundle);
    }
    let certificate = Certificate::from_der(&entry.certificate).map_err(unreadable)?;
    let (slot, public_key) = own_key(Kind::X509, &entry.slot_id, &certificate.public_key(), around.keys)?;
    if entry.not_after < around.now {
        return Err(Unusable::Expired);
    }
    Ok(Authority {
        kind: Kind::X509,
        slot,
        id: hex(&certificate.subject_key_id().unwrap_or_default()),
        issued_at: entry.issued_at,
        not_after: certificate.not_after(),
        public_key,
        certificate: Some(certificate),
        upstream_chain,
    })
}

fn is_published(certificate: &[u8], bundle: &Bundle) -> bool {
    bundle.x509_authorities.iter().any(|known| known.certificate.der() == certificate)
}

/// Whether an authority of the bundle signed a part of the chain.
fn is_known(chain: &[Certificate], bundle: &Bundle) -> bool {
    bundle.x509_authorities.iter().any(|known| {
        let key = known.certificate.public_key();
        chain.iter().any(|part| part.verify_signature_by(&key).is_ok())
    })
}

fn key_authority(kind: Kind, entry: &JwtKeyEntry, around: Surroundings<'_>) -> Result<Authority, Unusable> {
    let published = |bundle: &Bundle| {
        let known = if kind == Kind::Wit { &bundle.wit_authorities } else { &bundle.jwt_authorities };
        known.iter().any(|known| known.key_id == entry.kid)
    };
    if !around.bundle.is_some_and(published) {
        return Err(Unusable::NotInBundle);
    }
    let stored = PublicKey::from_spki_der(&entry.public_key)
        .map_err(|reason| Unusable::Unreadable(reason.to_string()))?;
    let (slot, public_key) = own_key(kind, &entry.slot_id, &stored, around.keys)?;
    if entry.not_after < around.now {
        return Err(Unusable::Expired);
    }
    Ok(Authority {
        kind,
        slot,
        id: entry.kid.clone(),
        issued_at: entry.issued_at,
        not_after: entry.not_after,
        public_key,
        certificate: None,
        upstream_chain: Vec::new(),
    })
}

fn own_key(
    kind: Kind,
    slot: &str,
    public_key: &PublicKey,
    keys: &[(String, PublicKey)],
) -> Result<(SlotId, PublicKey), Unusable> {
    let slot = SlotId::parse(slot).ok_or(Unusable::NoSlot)?;
    let key_id = kind.key_id(slot);
    let (_, key) = keys.iter().find(|(id, _)| *id == key_id).ok_or(Unusable::NoKey)?;
    if key == public_key { Ok((slot, key.clone())) } else { Err(Unusable::OtherKey) }
}

/// The active one signs; the newest of the others is next, or was before it. Journals from before statuses were kept
/// (all unknown): the newest is next, and with no active one it takes over at once.
fn slots(usable: Vec<(i32, Authority)>) -> Slots {
    let mut slots = Slots::default();
    let mut others = 0;
    for (status, authority) in usable.into_iter().rev() {
        if status == Status::Active as i32 {
            slots.current.get_or_insert(authority);
            continue;
        }
        others += 1;
        if others == 1 {
            let place = if status == Status::Old as i32 { &mut slots.old } else { &mut slots.next };
            *place = Some(authority);
        }
    }
    // One key cannot be both: what signs wins.
    if let Some(current) = &slots.current {
        let slot = current.slot;
        slots.next.take_if(|next| next.slot == slot);
        slots.old.take_if(|old| old.slot == slot);
    }
    slots
}
