//! Registration entries: `registered_entries`, `selectors`, `dns_names`, `federated_registration_entries`.

mod create;
mod filter;
mod write;

use prost::Message;
use steeple_datastore::model::{AdditionalAttributes, Entry, Selector};
use steeple_datastore::{EntryFilter, Page, PageRequest, Result};
use steeple_proto::spire::common;
use steeple_proto::spire::common::registration_entry;
use steeple_spiffe::{IdError, SpiffeId, TrustDomain};

use crate::conn::{Arg, Conn, Row, args};
use crate::error::corrupt;
use crate::rows::{Cursor, InOrder, lookups};
use filter::Condition;

pub(crate) use create::create;
pub(crate) use write::{delete, delete_rows, dissociate, prune_batch, rotate, update};

/// An entry and the id of its row.
pub(crate) struct Stored {
    pub row: i64,
    pub entry: Entry,
}

const COLUMNS: &str = "E.id, E.entry_id, E.spiffe_id, E.parent_id, E.ttl, E.jwt_svid_ttl, E.admin, E.downstream, \
                       E.expiry, E.store_svid, E.hint, E.revision_number, E.created_at, E.additional_attributes";

pub(crate) fn fetch(conn: &Conn, id: &str) -> Result<Option<Entry>> {
    Ok(fetch_stored(conn, id, "")?.map(|stored| stored.entry))
}

/// To be written: a SPIRE server on the same database waits.
pub(crate) fn lock(conn: &Conn, id: &str) -> Result<Option<Stored>> {
    fetch_stored(conn, id, conn.dialect().for_update())
}

fn fetch_stored(conn: &Conn, id: &str, lock: &str) -> Result<Option<Stored>> {
    let sql = format!("SELECT {COLUMNS} FROM registered_entries E WHERE E.entry_id = ?{lock}");
    let stored =
        conn.first(&sql, &args![id], |row| read(row).map_err(|reason| corrupt("entry", id, reason)))?;
    // MySQL compares without regard to case.
    let mut stored: Vec<Stored> = stored.into_iter().filter(|stored| stored.entry.id == id).collect();
    add_children(conn, &mut stored)?;
    Ok(stored.pop())
}

pub(crate) fn list(conn: &Conn, filter: &EntryFilter, page: &PageRequest) -> Result<Page<Entry>> {
    let condition = Condition::of(filter, conn.dialect())?;
    let mut entries = Vec::new();
    let mut after = page.after()?;
    // A page of everything is read in steps as well, so that its rows are not held twice.
    let limit = if page.size == 0 { u64::from(STEP) } else { u64::from(page.size) };
    loop {
        let (stored, last) = list_step(conn, &condition, after, limit)?;
        entries.extend(stored);
        match last {
            None => return Ok(Page { items: entries, next_token: String::new() }),
            Some(row) if page.size == 0 => after = row,
            Some(row) => return Ok(Page { items: entries, next_token: row.to_string() }),
        }
    }
}

const STEP: u32 = 2000;

/// At most `limit` entries, and the last row if more follow.
fn list_step(
    conn: &Conn,
    condition: &Condition<'_>,
    after: u64,
    limit: u64,
) -> Result<(impl Iterator<Item = Entry>, Option<u64>)> {
    let sql = format!(
        "SELECT {COLUMNS} FROM registered_entries E WHERE E.id > ?{} ORDER BY E.id LIMIT ?",
        condition.sql
    );
    let mut args = vec![Arg::from(after)];
    args.extend(&condition.args);
    args.push(Arg::from(limit + 1));
    let mut stored: Vec<Stored> = Vec::new();
    let mut seen = 0;
    let mut last = 0;
    let mut more = false;
    conn.each(&sql, &args, |row| {
        if seen == limit {
            more = true;
            return Ok(());
        }
        seen += 1;
        last = row.int(0)? as u64;
        match read(row) {
            Ok(one) => stored.push(one),
            // One bad row must not hide the others.
            Err(reason) => {
                let entry_id = row.text(1)?;
                tracing::warn!(subsystem_name = "sql", entry_id, %reason, "Stored entry is left out");
            }
        }
        Ok(())
    })?;
    add_children(conn, &mut stored)?;
    Ok((stored.into_iter().map(|stored| stored.entry), more.then_some(last)))
}

/// As [`list`], without reading the entries.
pub(crate) fn list_ids(conn: &Conn, filter: &EntryFilter, page: &PageRequest) -> Result<Page<String>> {
    let condition = Condition::of(filter, conn.dialect())?;
    let mut sql = format!(
        "SELECT E.id, E.entry_id FROM registered_entries E WHERE E.id > ?{} ORDER BY E.id",
        condition.sql
    );
    let mut args = vec![Arg::from(page.after()?)];
    args.extend(&condition.args);
    let limit = if page.size == 0 { usize::MAX } else { page.size as usize };
    if page.size != 0 {
        sql.push_str(" LIMIT ?");
        args.push(Arg::from(u64::from(page.size) + 1));
    }
    let (mut ids, mut last, mut more) = (Vec::new(), 0, false);
    conn.each(&sql, &args, |row| {
        if ids.len() == limit {
            more = true;
        } else {
            last = row.int(0)?;
            ids.push(row.text(1)?.to_owned());
        }
        Ok(())
    })?;
    Ok(Page { items: ids, next_token: if more { last.to_string() } else { String::new() } })
}

pub(crate) fn count(conn: &Conn, filter: &EntryFilter) -> Result<u64> {
    let condition = Condition::of(filter, conn.dialect())?;
    // Without a condition the engine counts the smallest index.
    let sql = match condition.sql.strip_prefix(" AND ") {
        Some(condition) => format!("SELECT COUNT(*) FROM registered_entries E WHERE {condition}"),
        None => "SELECT COUNT(*) FROM registered_entries".to_owned(),
    };
    Ok(conn.first(&sql, &condition.args, |row| row.int(0))?.unwrap_or_default() as u64)
}

/// Reads a row of [`COLUMNS`].
fn read(row: &Row<'_>) -> Result<Stored> {
    let wrong = |what: &str, reason: IdError| corrupt(what, row.text(1).unwrap_or_default(), reason);
    Ok(Stored {
        row: row.int(0)?,
        entry: Entry {
            id: row.text(1)?.to_owned(),
            spiffe_id: SpiffeId::parse(row.text(2)?).map_err(|reason| wrong("SPIFFE ID of entry", reason))?,
            parent_id: SpiffeId::parse(row.text(3)?).map_err(|reason| wrong("parent ID of entry", reason))?,
            selectors: Vec::new(),
            x509_svid_ttl: row.int(4)? as i32,
            jwt_svid_ttl: row.int(5)? as i32,
            federates_with: Vec::new(),
            admin: row.flag(6)?,
            downstream: row.flag(7)?,
            expires_at: row.int(8)?,
            dns_names: Vec::new(),
            revision_number: row.int(11)?,
            store_svid: row.flag(9)?,
            hint: row.text(10)?.to_owned(),
            created_at: row.nearest_second(12)?,
            additional: read_additional(row.blob(13)?),
        },
    })
}

/// Unknown or damaged attributes are as good as none.
fn read_additional(blob: &[u8]) -> Option<AdditionalAttributes> {
    if blob.is_empty() {
        return None;
    }
    let message = registration_entry::AdditionalAttributes::decode(blob).ok()?;
    Some(additional_from_message(message))
}

/// Selectors, DNS names and trust domains of entries whose rows are in ascending order.
pub(crate) fn add_children(conn: &Conn, stored: &mut [Stored]) -> Result<()> {
    let ids: Vec<i64> = stored.iter().map(|stored| stored.row).collect();
    for lookup in lookups(&ids) {
        let args = lookup.args();
        let condition = lookup.condition("registered_entry_id");
        let mut cursor = Cursor::new(stored);
        let mut order = InOrder::default();
        let sql = format!(
            "SELECT registered_entry_id, id, type, value FROM selectors WHERE {condition} ORDER BY registered_entry_id"
        );
        conn.each(&sql, &args, |row| {
            if let Some(stored) = cursor.seek(row.int(0)?, |stored| stored.row) {
                let selector = Selector::new(row.text(2)?, row.text(3)?);
                order.insert(&mut stored.entry.selectors, row.int(1)?, selector);
            }
            Ok(())
        })?;
        let mut cursor = Cursor::new(stored);
        let mut order = InOrder::default();
        let sql = format!(
            "SELECT registered_entry_id, id, value FROM dns_names WHERE {condition} ORDER BY registered_entry_id"
        );
        conn.each(&sql, &args, |row| {
            if let Some(stored) = cursor.seek(row.int(0)?, |stored| stored.row) {
                order.insert(&mut stored.entry.dns_names, row.int(1)?, row.text(2)?.to_owned());
            }
            Ok(())
        })?;
        let mut cursor = Cursor::new(stored);
        let sql = format!(
            "SELECT F.registered_entry_id, B.trust_domain FROM federated_registration_entries F \
             INNER JOIN bundles B ON B.id = F.bundle_id WHERE {} ORDER BY F.registered_entry_id, B.trust_domain",
            lookup.condition("F.registered_entry_id")
        );
        conn.each(&sql, &args, |row| {
            let Some(stored) = cursor.seek(row.int(0)?, |stored| stored.row) else {
                return Ok(());
            };
            let name = row.text(1)?;
            let trust_domain =
                TrustDomain::new(name).map_err(|reason| corrupt("trust domain of bundle", name, reason))?;
            stored.entry.federates_with.push(trust_domain);
            Ok(())
        })?;
    }
    Ok(())
}

/// An entry as the log holds it.
pub(crate) fn to_message(entry: &Entry) -> common::RegistrationEntry {
    common::RegistrationEntry {
        selectors: entry
            .selectors
            .iter()
            .map(|s| common::Selector { r#type: s.kind.clone(), value: s.value.clone() })
            .collect(),
        parent_id: entry.parent_id.as_str().to_owned(),
        spiffe_id: entry.spiffe_id.as_str().to_owned(),
        x509_svid_ttl: entry.x509_svid_ttl,
        federates_with: entry.federates_with.iter().map(TrustDomain::id_string).collect(),
        entry_id: entry.id.clone(),
        admin: entry.admin,
        downstream: entry.downstream,
        entry_expiry: entry.expires_at,
        dns_names: entry.dns_names.clone(),
        revision_number: entry.revision_number,
        store_svid: entry.store_svid,
        jwt_svid_ttl: entry.jwt_svid_ttl,
        hint: entry.hint.clone(),
        created_at: entry.created_at,
        additional_attributes: entry.additional.map(additional_to_message),
    }
}

pub(crate) fn from_message(message: common::RegistrationEntry) -> std::result::Result<Entry, IdError> {
    Ok(Entry {
        id: message.entry_id,
        spiffe_id: SpiffeId::parse(&message.spiffe_id)?,
        parent_id: SpiffeId::parse(&message.parent_id)?,
        selectors: message
            .selectors
            .into_iter()
            .map(|s| Selector { kind: s.r#type, value: s.value })
            .collect(),
        x509_svid_ttl: message.x509_svid_ttl,
        jwt_svid_ttl: message.jwt_svid_ttl,
        federates_with: message
            .federates_with
            .iter()
            .map(|id| TrustDomain::new(id))
            .collect::<std::result::Result<_, _>>()?,
        admin: message.admin,
        downstream: message.downstream,
        expires_at: message.entry_expiry,
        dns_names: message.dns_names,
        revision_number: message.revision_number,
        store_svid: message.store_svid,
        hint: message.hint,
        created_at: message.created_at,
        additional: message.additional_attributes.map(additional_from_message),
    })
}

fn additional_to_message(attributes: AdditionalAttributes) -> registration_entry::AdditionalAttributes {
    registration_entry::AdditionalAttributes {
        disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
        jwt_svid_include_jti: attributes.jwt_svid_include_jti,
    }
}

fn additional_from_message(message: registration_entry::AdditionalAttributes) -> AdditionalAttributes {
    AdditionalAttributes {
        disable_x509_svid_prefetch: message.disable_x509_svid_prefetch,
        jwt_svid_include_jti: message.jwt_svid_include_jti,
    }
}
