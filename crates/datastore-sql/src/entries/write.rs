//! Changing and deleting entries.

use std::collections::HashMap;

use prost::Message;
use steeple_datastore::model::{AdditionalAttributes, Entry, Selector};
use steeple_datastore::{Change, EntryMask, Error, Result, merge, validate};
use steeple_spiffe::TrustDomain;

use super::create::names;
use super::{Stored, additional_to_message, lock};
use crate::changes::Tx;
use crate::conn::{Arg, Conn, args};
use crate::rows::{padded, placeholders};
use crate::time::{self, Stamp};

/// Rows of the bundles to federate with, each once. The first unknown one, in the order given, is what a refusal names.
fn bundle_rows(conn: &Conn, trust_domains: &[TrustDomain]) -> Result<Result<Vec<i64>>> {
    let mut rows = Vec::new();
    for trust_domain in trust_domains {
        let row = conn.first(
            "SELECT id FROM bundles WHERE trust_domain = ?",
            &args![trust_domain.as_id_str()],
            |row| row.int(0),
        )?;
        match row {
            None => return Ok(Err(Error::UnknownFederatedBundle(trust_domain.clone()))),
            Some(row) if !rows.contains(&row) => rows.push(row),
            Some(_) => {}
        }
    }
    Ok(Ok(rows))
}

pub(crate) fn update(tx: &mut Tx<'_>, new: Entry, mask: EntryMask, now: i64) -> Result<Option<Entry>> {
    validate::entry_update(&new, mask)?;
    let Some(Stored { row, entry: stored }) = lock(tx.conn, &new.id)? else {
        return Ok(None);
    };
    let mut entry = stored.clone();
    merge::update_entry(&mut entry, new, mask);
    validate::updated_entry(&entry)?;
    let bundles = bundle_rows(tx.conn, &entry.federates_with)??;
    validate::entry_children(&entry)?;
    drop_empty_attributes(&mut entry);
    let stamp = time::stamp(now);
    let additional = additional_blob(&entry);
    tx.conn.exec(
        "UPDATE registered_entries SET updated_at = ?, spiffe_id = ?, parent_id = ?, ttl = ?, admin = ?, \
         downstream = ?, expiry = ?, revision_number = ?, store_svid = ?, hint = ?, jwt_svid_ttl = ?, \
         additional_attributes = ? WHERE id = ?",
        &args![
            stamp,
            entry.spiffe_id.as_str(),
            entry.parent_id.as_str(),
            entry.x509_svid_ttl,
            entry.admin,
            entry.downstream,
            entry.expires_at,
            entry.revision_number,
            entry.store_svid,
            &entry.hint,
            entry.jwt_svid_ttl,
            additional.as_deref(),
            row,
        ],
    )?;
    if entry.federates_with != stored.federates_with {
        unlink(tx.conn, row)?;
        link(tx.conn, row, &bundles)?;
    }
    if entry.selectors != stored.selectors {
        tx.conn.exec("DELETE FROM selectors WHERE registered_entry_id = ?", &args![row])?;
        insert_selectors(tx.conn, row, &entry.selectors, stamp)?;
    }
    if entry.dns_names != stored.dns_names {
        tx.conn.exec("DELETE FROM dns_names WHERE registered_entry_id = ?", &args![row])?;
        insert_dns_names(tx.conn, row, &entry.dns_names, stamp)?;
    }
    tx.entry_changed(&entry.id, Change::EntrySet(Box::new(entry.clone())))?;
    Ok(Some(merge::as_answered(entry)))
}

/// Raises the revision number, so that agents replace the entry's SVIDs. Whether there is such an entry.
pub(crate) fn rotate(tx: &mut Tx<'_>, id: &str, now: i64) -> Result<bool> {
    let Some(Stored { row, mut entry }) = lock(tx.conn, id)? else {
        return Ok(false);
    };
    entry.revision_number += 1;
    tx.conn.exec(
        "UPDATE registered_entries SET updated_at = ?, revision_number = ? WHERE id = ?",
        &args![time::stamp(now), entry.revision_number, row],
    )?;
    tx.entry_changed(id, Change::EntryRotated(Box::new(entry)))?;
    Ok(true)
}

/// Entries that are looked up and deleted together at most.
const CHUNK: usize = 256;

/// Whether each was there; of an id that is given twice, the first was.
pub(crate) fn delete(tx: &mut Tx<'_>, ids: &[String]) -> Result<Vec<bool>> {
    let mut were_there = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(CHUNK) {
        let asked: Vec<&str> = chunk.iter().map(String::as_str).collect();
        let lock = tx.conn.dialect().for_update();
        let mut stored: HashMap<String, i64> =
            names(tx.conn, "registered_entries", "entry_id", &asked, lock)?
                .into_iter()
                .map(|(row, id)| (id, row))
                .collect();
        let mut gone = Vec::with_capacity(stored.len());
        for id in asked {
            let row = stored.remove(id);
            were_there.push(row.is_some());
            gone.extend(row.map(|row| (row, id.to_owned())));
        }
        delete_rows(tx, &gone)?;
    }
    Ok(were_there)
}

/// Deletes entries, given by row and id, with all that hangs on them.
pub(crate) fn delete_rows(tx: &mut Tx<'_>, gone: &[(i64, String)]) -> Result<()> {
    for chunk in gone.chunks(CHUNK) {
        let rows = padded(chunk.iter().map(|(row, _)| *row).collect());
        let list = placeholders(rows.len());
        let args: Vec<Arg<'_>> = rows.into_iter().map(Arg::from).collect();
        for (table, column) in [
            ("federated_registration_entries", "registered_entry_id"),
            ("registered_entries", "id"),
            ("selectors", "registered_entry_id"),
            ("dns_names", "registered_entry_id"),
        ] {
            tx.conn.exec(&format!("DELETE FROM {table} WHERE {column} IN ({list})"), &args)?;
        }
        let changed = chunk.iter().map(|(_, id)| (id.clone(), Change::EntryGone { id: id.clone() }));
        tx.entries_changed(changed.collect())?;
    }
    Ok(())
}

/// Takes a trust domain, whose bundle is about to go, out of an entry.
pub(crate) fn dissociate(
    tx: &mut Tx<'_>,
    id: &str,
    trust_domain: &TrustDomain,
    bundle_row: i64,
) -> Result<()> {
    let Some(Stored { row, mut entry }) = lock(tx.conn, id)? else {
        return Ok(());
    };
    entry.federates_with.retain(|other| other != trust_domain);
    entry.revision_number += 1;
    tx.conn.exec(
        "DELETE FROM federated_registration_entries WHERE registered_entry_id = ? AND bundle_id = ?",
        &args![row, bundle_row],
    )?;
    tx.conn.exec(
        "UPDATE registered_entries SET revision_number = ? WHERE id = ?",
        &args![entry.revision_number, row],
    )?;
    tx.entry_changed(id, Change::EntrySet(Box::new(entry)))
}

/// Deletes some of the entries that expired before `before`; returns how many.
pub(crate) fn prune_batch(tx: &mut Tx<'_>, before: i64, limit: u64) -> Result<u64> {
    let expired = tx.conn.rows(
        "SELECT id, entry_id, spiffe_id, parent_id FROM registered_entries WHERE expiry <> 0 AND expiry < ? \
         ORDER BY id LIMIT ?",
        &args![before, limit],
        |row| {
            let named = (row.int(0)?, row.text(1)?.to_owned());
            Ok((named, row.text(2)?.to_owned(), row.text(3)?.to_owned()))
        },
    )?;
    let gone: Vec<(i64, String)> = expired.iter().map(|(named, ..)| named.clone()).collect();
    delete_rows(tx, &gone)?;
    for ((_, id), spiffe_id, parent_id) in &expired {
        tracing::info!(
            subsystem_name = "sql",
            spiffe_id,
            parent_id,
            entry_id = id,
            "Pruned an expired registration"
        );
    }
    Ok(expired.len() as u64)
}

fn link(conn: &Conn, row: i64, bundles: &[i64]) -> Result<()> {
    for bundle in bundles {
        conn.exec(
            "INSERT INTO federated_registration_entries (bundle_id, registered_entry_id) VALUES (?, ?)",
            &args![*bundle, row],
        )?;
    }
    Ok(())
}

fn unlink(conn: &Conn, row: i64) -> Result<()> {
    conn.exec("DELETE FROM federated_registration_entries WHERE registered_entry_id = ?", &args![row])?;
    Ok(())
}

fn insert_selectors(conn: &Conn, row: i64, selectors: &[Selector], stamp: Stamp) -> Result<()> {
    for selector in selectors {
        conn.exec(
            "INSERT INTO selectors (created_at, updated_at, registered_entry_id, type, value) VALUES (?, ?, ?, ?, ?)",
            &args![stamp, stamp, row, &selector.kind, &selector.value],
        )?;
    }
    Ok(())
}

fn insert_dns_names(conn: &Conn, row: i64, names: &[String], stamp: Stamp) -> Result<()> {
    for name in names {
        conn.exec(
            "INSERT INTO dns_names (created_at, updated_at, registered_entry_id, value) VALUES (?, ?, ?, ?)",
            &args![stamp, stamp, row, name],
        )?;
    }
    Ok(())
}

/// SPIRE reads attributes that are all unset as none.
pub(super) fn drop_empty_attributes(entry: &mut Entry) {
    entry.additional = entry.additional.filter(|attributes| *attributes != AdditionalAttributes::default());
}

pub(super) fn additional_blob(entry: &Entry) -> Option<Vec<u8>> {
    entry.additional.map(|attributes| additional_to_message(attributes).encode_to_vec())
}
