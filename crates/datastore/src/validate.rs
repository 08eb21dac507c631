//! What can be stored at all. Every implementation asks here first, so that the refusals are worded alike.

use crate::error::{Error, Result};
use crate::model::{Entry, Selector};
use crate::port::EntryMask;

/// Longest entry id, in bytes.
pub const MAX_ENTRY_ID_LEN: usize = 255;

/// An entry to be created. The texts are SPIRE's: they reach API clients.
pub fn new_entry(entry: &Entry) -> Result<()> {
    if entry.selectors.is_empty() {
        return invalid("invalid registration entry: missing selector list");
    }
    if entry.store_svid {
        storable(&entry.selectors, entry)?;
    }
    if entry.id.len() > MAX_ENTRY_ID_LEN {
        return invalid("invalid registration entry: entry ID too long");
    }
    if !entry.id.bytes().all(is_entry_id_char) {
        return invalid("invalid registration entry: entry ID contains invalid characters");
    }
    ttls(entry, EntryMask::ALL)
}

/// What an update takes from `entry`.
pub fn entry_update(entry: &Entry, mask: EntryMask) -> Result<()> {
    if mask.selectors && entry.selectors.is_empty() {
        return invalid("invalid registration entry: missing selector list");
    }
    ttls(entry, mask)
}

/// The entry as an update would leave it.
pub fn updated_entry(entry: &Entry) -> Result<()> {
    if entry.store_svid { storable(&entry.selectors, entry) } else { Ok(()) }
}

/// What hangs on an entry is there once. SPIRE refuses duplicates where its database does, and shows the database's text.
pub fn entry_children(entry: &Entry) -> Result<()> {
    if has_duplicates(&entry.selectors) {
        return taken("selectors.registered_entry_id, selectors.type, selectors.value");
    }
    if has_duplicates(&entry.dns_names) {
        return taken("dns_names.registered_entry_id, dns_names.value");
    }
    Ok(())
}

/// As [`entry_children`].
pub fn agent_selectors(selectors: &[Selector]) -> Result<()> {
    if has_duplicates(selectors) {
        return taken(
            "node_resolver_map_entries.spiffe_id, node_resolver_map_entries.type, node_resolver_map_entries.value",
        );
    }
    Ok(())
}

/// A unique key is taken, in SQLite's words.
pub fn taken<T>(columns: &str) -> Result<T> {
    Err(Error::AlreadyExists(format!("UNIQUE constraint failed: {columns}")))
}

/// A join token to be stored.
pub fn new_join_token(token: &str, expires_at: i64) -> Result<()> {
    if token.is_empty() || expires_at == 0 {
        return invalid("token and expiry are required");
    }
    Ok(())
}

/// A filter by selectors or trust domains needs one at least.
pub fn filter_set(is_empty: bool, what: &str) -> Result<()> {
    if is_empty { Err(Error::Invalid(format!("cannot list by empty {what} set"))) } else { Ok(()) }
}

/// SVIDs that are written to a store come from selectors of one kind, and are made ahead of time.
fn storable(selectors: &[Selector], entry: &Entry) -> Result<()> {
    if entry.additional.is_some_and(|a| a.disable_x509_svid_prefetch) {
        return invalid("specifying cache behaviour is incompatible with storable SVIDs");
    }
    if selectors.windows(2).any(|pair| pair[0].kind != pair[1].kind) {
        return invalid(
            "invalid registration entry: selector types must be the same when store SVID is enabled",
        );
    }
    Ok(())
}

fn ttls(entry: &Entry, mask: EntryMask) -> Result<()> {
    if mask.x509_svid_ttl && entry.x509_svid_ttl < 0 {
        return invalid("invalid registration entry: X509SvidTtl is not set");
    }
    if mask.jwt_svid_ttl && entry.jwt_svid_ttl < 0 {
        return invalid("invalid registration entry: JwtSvidTtl is not set");
    }
    Ok(())
}

fn has_duplicates<T: Ord>(items: &[T]) -> bool {
    let mut sorted: Vec<&T> = items.iter().collect();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| pair[0] == pair[1])
}

fn invalid<T>(text: &str) -> Result<T> {
    Err(Error::Invalid(text.into()))
}

fn is_entry_id_char(c: u8) -> bool {
    matches!(c, b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}
