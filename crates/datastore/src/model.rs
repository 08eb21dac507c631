//! Entries, agents, tokens, journals. Bundles are [`steeple_spiffe::bundle::Bundle`]. Times are Unix seconds.

use std::fmt;

use steeple_spiffe::{SpiffeId, TrustDomain};

/// A fact about a workload or node. `kind` is SPIRE's selector `type` and holds no `:`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    pub kind: String,
    pub value: String,
}

impl Selector {
    pub fn new(kind: impl Into<String>, value: impl Into<String>) -> Self {
        Self { kind: kind.into(), value: value.into() }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

/// A registration entry: which workload, under which parent, gets which identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// ≤ 255 characters of `[-._0-9A-Za-z]`; empty on create lets the store pick a UUID.
    pub id: String,
    pub spiffe_id: SpiffeId,
    pub parent_id: SpiffeId,
    /// In database order (SPIRE does not sort them).
    pub selectors: Vec<Selector>,
    /// Seconds; 0 = the server's default.
    pub x509_svid_ttl: i32,
    /// Seconds; 0 = the server's default.
    pub jwt_svid_ttl: i32,
    /// Foreign trust domains whose bundles the workload receives.
    pub federates_with: Vec<TrustDomain>,
    pub admin: bool,
    pub downstream: bool,
    /// Unix seconds; 0 = never.
    pub expires_at: i64,
    pub dns_names: Vec<String>,
    /// SPIRE's per-entry counter: 0 on create, +1 on each update.
    pub revision_number: i64,
    pub store_svid: bool,
    pub hint: String,
    pub created_at: i64,
    /// `None` where SPIRE stores NULL.
    pub additional: Option<AdditionalAttributes>,
}

/// `registered_entries.additional_attributes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdditionalAttributes {
    pub disable_x509_svid_prefetch: bool,
    pub jwt_svid_include_jti: bool,
}

/// An attested node. A banned one keeps its row with an empty serial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    pub id: SpiffeId,
    pub attestation_type: String,
    /// Decimal; empty = banned.
    pub serial_number: String,
    pub expires_at: i64,
    /// Issued by the last renewal, promoted when the agent first uses it; empty if none.
    pub new_serial_number: String,
    pub new_expires_at: i64,
    pub can_reattest: bool,
    pub agent_version: String,
    pub selectors: Vec<Selector>,
}

impl Agent {
    /// Ban = serial cleared (SPIRE).
    pub fn is_banned(&self) -> bool {
        self.serial_number.is_empty()
    }
}

/// Single-use secret of the join_token attestor.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub token: String,
    pub expires_at: i64,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// One server's record of its authorities; `data` is the journal protobuf.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaJournal {
    /// Row id; 0 = not stored yet.
    pub id: u64,
    pub data: Vec<u8>,
    pub active_x509_authority_id: String,
    pub active_jwt_authority_id: String,
}
