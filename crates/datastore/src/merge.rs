//! How stored bundles and entries change: pure functions that every implementation shares.

use steeple_spiffe::bundle::{Bundle, JwtAuthority};

use crate::model::Entry;
use crate::port::{BundleMask, EntryMask};

/// Takes the masked parts of `new`.
pub fn update_bundle(stored: &mut Bundle, new: Bundle, mask: BundleMask) {
    if mask.x509_authorities {
        stored.x509_authorities = new.x509_authorities;
    }
    if mask.jwt_authorities {
        stored.jwt_authorities = new.jwt_authorities;
    }
    if mask.wit_authorities {
        stored.wit_authorities = new.wit_authorities;
    }
    if mask.refresh_hint {
        stored.refresh_hint = new.refresh_hint;
    }
    if mask.sequence_number {
        stored.sequence_number = new.sequence_number;
    }
}

/// Adds the authorities that `stored` has not got and says if there were any; then its sequence number has risen.
/// An X.509 authority is its certificate, a JWT authority is its key id and key: one that is tainted is not added
/// again untainted.
pub fn append_bundle(stored: &mut Bundle, new: Bundle) -> bool {
    let mut changed = false;
    for authority in new.x509_authorities {
        if !stored.has_x509_authority(&authority.certificate) {
            stored.x509_authorities.push(authority);
            changed = true;
        }
    }
    changed |= append_keys(&mut stored.jwt_authorities, new.jwt_authorities);
    changed |= append_keys(&mut stored.wit_authorities, new.wit_authorities);
    if changed {
        stored.sequence_number += 1;
    }
    changed
}

/// What [`prune_bundle`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruned {
    Unchanged,
    Changed,
    /// All authorities of a kind have expired: nothing was dropped.
    Refused,
}

/// Drops what expired at or before `before`; a key without an expiry stays. SPIRE stops as a whole when no X.509
/// authority, or none of the JWT authorities that were there, would be left.
pub fn prune_bundle(stored: &mut Bundle, before: i64) -> Pruned {
    let mut left = stored.clone();
    left.x509_authorities.retain(|authority| authority.certificate.not_after() > before);
    left.jwt_authorities.retain(|key| is_fresh(key, before));
    left.wit_authorities.retain(|key| is_fresh(key, before));
    if left == *stored {
        return Pruned::Unchanged;
    }
    let no_x509 = left.x509_authorities.is_empty();
    let no_jwt = left.jwt_authorities.is_empty() && !stored.jwt_authorities.is_empty();
    if no_x509 || no_jwt {
        return Pruned::Refused;
    }
    left.sequence_number += 1;
    *stored = left;
    Pruned::Changed
}

/// Takes the masked fields of `new` and raises the revision number.
pub fn update_entry(stored: &mut Entry, new: Entry, mask: EntryMask) {
    if mask.spiffe_id {
        stored.spiffe_id = new.spiffe_id;
    }
    if mask.parent_id {
        stored.parent_id = new.parent_id;
    }
    if mask.selectors {
        stored.selectors = new.selectors;
    }
    if mask.x509_svid_ttl {
        stored.x509_svid_ttl = new.x509_svid_ttl;
    }
    if mask.jwt_svid_ttl {
        stored.jwt_svid_ttl = new.jwt_svid_ttl;
    }
    if mask.federates_with {
        stored.federates_with = new.federates_with;
        normalize_federates_with(stored);
    }
    if mask.admin {
        stored.admin = new.admin;
    }
    if mask.downstream {
        stored.downstream = new.downstream;
    }
    if mask.expires_at {
        stored.expires_at = new.expires_at;
    }
    if mask.dns_names {
        stored.dns_names = new.dns_names;
    }
    if mask.store_svid {
        stored.store_svid = new.store_svid;
    }
    if mask.hint {
        stored.hint = new.hint;
    }
    if mask.additional {
        stored.additional = new.additional;
    }
    stored.revision_number += 1;
}

/// Sorted, each trust domain once.
pub fn normalize_federates_with(entry: &mut Entry) {
    entry.federates_with.sort();
    entry.federates_with.dedup();
}

/// An entry as SPIRE answers a create or update with: selectors and DNS names sorted.
pub fn as_answered(mut entry: Entry) -> Entry {
    entry.selectors.sort();
    entry.dns_names.sort();
    entry
}

fn append_keys(stored: &mut Vec<JwtAuthority>, new: Vec<JwtAuthority>) -> bool {
    let before = stored.len();
    for key in new {
        let known =
            stored.iter().any(|known| known.key_id == key.key_id && known.public_key == key.public_key);
        if !known {
            stored.push(key);
        }
    }
    stored.len() != before
}

fn is_fresh(key: &JwtAuthority, before: i64) -> bool {
    key.expires_at == 0 || key.expires_at > before
}
