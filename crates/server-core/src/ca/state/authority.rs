//! What the state machine is about: kinds of authorities, their slots, and who sits in them.

use std::collections::HashSet;

use steeple_spiffe::{Certificate, PublicKey};

use super::super::sign::BACKDATE;
use super::hex;

/// What an authority signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    X509,
    Jwt,
    Wit,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::X509, Self::Jwt, Self::Wit];

    /// Where the key manager keeps the key of a slot; SPIRE's names.
    pub fn key_id(self, slot: SlotId) -> String {
        match self {
            Self::X509 => format!("x509-CA-{}", slot.as_str()),
            Self::Jwt => format!("JWT-Signer-{}", slot.as_str()),
            Self::Wit => format!("WIT-Signer-{}", slot.as_str()),
        }
    }

    pub(in crate::ca) fn index(self) -> usize {
        match self {
            Self::X509 => 0,
            Self::Jwt => 1,
            Self::Wit => 2,
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

/// A key that signs, did, or is about to.
#[derive(Clone, Debug)]
pub struct Authority {
    pub kind: Kind,
    pub slot: SlotId,
    /// X.509: the subject key id in lowercase hex. JWT and WIT: the `kid`.
    pub id: String,
    /// Unix seconds.
    pub issued_at: i64,
    /// Unix seconds.
    pub not_after: i64,
    pub public_key: PublicKey,
    /// X.509 only.
    pub certificate: Option<Certificate>,
    /// X.509 signed by an upstream authority: `certificate`, then what leads to a root. Empty for a root of our own.
    pub upstream_chain: Vec<Certificate>,
}

impl Authority {
    pub fn key_id(&self) -> String {
        self.kind.key_id(self.slot)
    }

    /// X.509: who signed it, as the certificate says, in lowercase hex; empty for a root and for other kinds.
    pub fn upstream_id(&self) -> String {
        let certificate = self.certificate.as_ref();
        certificate.and_then(Certificate::authority_key_id).map(|id| hex(&id)).unwrap_or_default()
    }

    /// X.509: whether it is, or was signed under, one of these authorities (subject key ids).
    pub fn leads_to(&self, authorities: &HashSet<Vec<u8>>) -> bool {
        let is_one = |certificate: &Certificate| {
            certificate.subject_key_id().is_some_and(|id| authorities.contains(&id))
        };
        self.certificate.as_ref().is_some_and(is_one) || chain_leads_to(&self.upstream_chain, authorities)
    }

    pub(super) fn is_expired(&self, now: i64) -> bool {
        self.not_after <= now
    }

    /// The clock went back: verifiers would take this certificate for one of the future.
    pub(super) fn is_not_yet_valid(&self, now: i64) -> bool {
        self.certificate.is_some() && self.issued_at - BACKDATE > now
    }

    pub(super) fn left_is_within(&self, threshold: fn(i64) -> i64, now: i64) -> bool {
        self.not_after - now <= threshold(self.not_after - self.issued_at)
    }
}

/// Whether one of these authorities (subject key ids) signed a part of the chain, or is part of it.
pub(in crate::ca) fn chain_leads_to(chain: &[Certificate], authorities: &HashSet<Vec<u8>>) -> bool {
    let is_one = |id: Option<Vec<u8>>| id.is_some_and(|id| authorities.contains(&id));
    chain.iter().any(|part| is_one(part.authority_key_id()) || is_one(part.subject_key_id()))
}

/// Both places of one kind. There is never both a `next` and an `old` one: they share a slot.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// Signs. `None` until the first one is made.
    pub current: Option<Authority>,
    /// Published and journaled, waits for its turn.
    pub next: Option<Authority>,
    /// Signed before `current` did; only such a one can be tainted or revoked.
    pub old: Option<Authority>,
}
