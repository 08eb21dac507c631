//! What a backup holds: the tables and columns of SPIRE's schema, version 25. `migrations` is in the header.

/// What a column holds, on every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Flag,
    Text,
    Time,
    Blob,
}

pub(super) struct Table {
    pub name: &'static str,
    /// In the order of the schema; a table with ids starts with `id`.
    pub columns: &'static [(&'static str, Kind)],
}

impl Table {
    pub fn has_id(&self) -> bool {
        self.columns[0].0 == "id"
    }

    /// What rows are ordered by, so that two backups of one state are the same.
    pub fn order(&self) -> &'static str {
        if self.has_id() { "id" } else { "bundle_id, registered_entry_id" }
    }

    /// The columns' names for a statement: `type` and `value` are words of SQL, which every engine takes as names.
    pub fn names(&self) -> String {
        self.columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    pub fn find(name: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.name == name)
    }
}

use Kind::{Blob, Flag, Int, Text, Time};

#[rustfmt::skip]
pub(super) const TABLES: &[Table] = &[
    Table { name: "bundles", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("trust_domain", Text), ("data", Blob),
    ] },
    Table { name: "federated_trust_domains", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("trust_domain", Text), ("bundle_endpoint_url", Text),
        ("bundle_endpoint_profile", Text), ("endpoint_spiffe_id", Text), ("implicit", Flag),
    ] },
    Table { name: "ca_journals", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("data", Blob), ("active_x509_authority_id", Text),
        ("active_jwt_authority_id", Text),
    ] },
    Table { name: "join_tokens", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("token", Text), ("expiry", Int),
    ] },
    Table { name: "attested_node_entries", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("spiffe_id", Text), ("data_type", Text),
        ("serial_number", Text), ("expires_at", Time), ("new_serial_number", Text), ("new_expires_at", Time),
        ("can_reattest", Flag), ("agent_version", Text),
    ] },
    Table { name: "node_resolver_map_entries", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("spiffe_id", Text), ("type", Text), ("value", Text),
    ] },
    Table { name: "registered_entries", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("entry_id", Text), ("spiffe_id", Text),
        ("parent_id", Text), ("ttl", Int), ("admin", Flag), ("downstream", Flag), ("expiry", Int),
        ("revision_number", Int), ("store_svid", Flag), ("hint", Text), ("jwt_svid_ttl", Int),
        ("additional_attributes", Blob),
    ] },
    Table { name: "selectors", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("registered_entry_id", Int), ("type", Text),
        ("value", Text),
    ] },
    Table { name: "dns_names", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("registered_entry_id", Int), ("value", Text),
    ] },
    Table { name: "federated_registration_entries", columns: &[
        ("bundle_id", Int), ("registered_entry_id", Int),
    ] },
    // SPIRE's own change log of the last hours: servers of SPIRE's that start on the restored database go on behind it.
    Table { name: "attested_node_entries_events", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("spiffe_id", Text),
    ] },
    Table { name: "registered_entries_events", columns: &[
        ("id", Int), ("created_at", Time), ("updated_at", Time), ("entry_id", Text),
    ] },
];
