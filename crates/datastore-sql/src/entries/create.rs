//! Creating entries, many in few statements: on a database server each statement is a journey.

use std::collections::{HashMap, HashSet};

use steeple_datastore::model::Entry;
use steeple_datastore::{Change, Created, Error, Match, Result, merge, validate};
use steeple_spiffe::TrustDomain;

use super::write::{additional_blob, drop_empty_attributes};
use super::{COLUMNS, Stored, add_children, read};
use crate::changes::Tx;
use crate::conn::{Arg, Conn, Dialect, args};
use crate::error::corrupt;
use crate::rows::{insert_many, padded, placeholders};
use crate::time::{self, Stamp};

/// Entries that are looked up and written together at most.
const CHUNK: usize = 256;

/// The inner results are the items': each was refused before anything was written, so the transaction may go on. The outer
/// one is the engine's.
pub(crate) fn create(tx: &mut Tx<'_>, entries: &[Entry], now: i64) -> Result<Vec<Result<Created>>> {
    let mut results = Vec::with_capacity(entries.len());
    for chunk in entries.chunks(CHUNK) {
        let mut known = Known::of(tx.conn, chunk)?;
        let mut new = Vec::new();
        for entry in chunk {
            results.push(known.admit(entry.clone(), now).map(|admitted| match admitted {
                Admitted::Existing(entry) => Created::Existing(entry),
                Admitted::New(entry, bundles) => {
                    let answer = merge::as_answered((*entry).clone());
                    new.push((entry, bundles));
                    Created::New(answer)
                }
            }));
        }
        insert(tx, new, time::stamp(now))?;
    }
    Ok(results)
}

enum Admitted {
    Existing(Entry),
    /// With the rows of its bundles.
    New(Box<Entry>, Vec<i64>),
}

/// What is stored, as far as it matters to the entries that come; and those of them that were admitted.
struct Known {
    /// By SPIFFE ID and parent, in the order of their rows.
    similar: HashMap<(String, String), Vec<Entry>>,
    ids: HashSet<String>,
    bundles: HashMap<String, i64>,
    dialect: Dialect,
}

impl Known {
    fn of(conn: &Conn, entries: &[Entry]) -> Result<Self> {
        let dialect = conn.dialect();
        let mut known =
            Self { similar: HashMap::new(), ids: HashSet::new(), bundles: HashMap::new(), dialect };
        let pairs = padded(entries.iter().collect());
        let list = dialect.pairs(pairs.len());
        let sql = if dialect == Dialect::Postgres {
            // Each pair by the index: of a table that grew since it was looked at, PostgreSQL would rather read all rows.
            format!(
                "SELECT {COLUMNS} FROM ({list}) V (spiffe_id, parent_id) CROSS JOIN LATERAL (SELECT * FROM \
                 registered_entries R WHERE R.spiffe_id = V.spiffe_id AND R.parent_id = V.parent_id OFFSET 0) E \
                 ORDER BY E.id"
            )
        } else {
            format!(
                "SELECT {COLUMNS} FROM registered_entries E WHERE (E.spiffe_id, E.parent_id) IN ({list}) ORDER BY E.id"
            )
        };
        let args: Vec<Arg<'_>> = pairs
            .iter()
            .flat_map(|entry| args![entry.spiffe_id.as_str(), entry.parent_id.as_str()])
            .collect();
        let mut stored: Vec<Stored> = conn.rows(&sql, &args, |row| {
            read(row).map_err(|reason| corrupt("entry", row.text(1).unwrap_or_default(), reason))
        })?;
        // A pair that was asked for twice.
        stored.dedup_by_key(|stored| stored.row);
        add_children(conn, &mut stored)?;
        for Stored { entry, .. } in stored {
            known.similar.entry(identity(&entry)).or_default().push(entry);
        }
        let ids: Vec<&str> =
            entries.iter().map(|entry| entry.id.as_str()).filter(|id| !id.is_empty()).collect();
        known.ids = names(conn, "registered_entries", "entry_id", &ids, "")?
            .into_iter()
            .map(|(_, id)| known.unique(&id))
            .collect();
        let mut bundles: Vec<&str> =
            entries.iter().flat_map(|entry| &entry.federates_with).map(TrustDomain::as_id_str).collect();
        bundles.sort_unstable();
        bundles.dedup();
        for some in bundles.chunks(CHUNK) {
            let rows = names(conn, "bundles", "trust_domain", some, "")?;
            known.bundles.extend(rows.into_iter().map(|(row, name)| (name, row)));
        }
        Ok(known)
    }

    /// MySQL's unique key knows no case.
    fn unique(&self, id: &str) -> String {
        if self.dialect == Dialect::MySql { id.to_lowercase() } else { id.to_owned() }
    }

    fn admit(&mut self, mut entry: Entry, now: i64) -> Result<Admitted> {
        validate::new_entry(&entry)?;
        let similar = self.similar.entry(identity(&entry)).or_default();
        // The first entry with the same SPIFFE ID, parent and set of selectors.
        if let Some(found) =
            similar.iter().find(|stored| Match::Exact.holds(&stored.selectors, &entry.selectors))
        {
            return Ok(Admitted::Existing(found.clone()));
        }
        if entry.id.is_empty() {
            entry.id = uuid::Uuid::new_v4().to_string();
        } else if self.ids.contains(&self.unique(&entry.id)) {
            return validate::taken("registered_entries.entry_id");
        }
        let bundles = self.bundle_rows(&entry.federates_with)?;
        validate::entry_children(&entry)?;
        merge::normalize_federates_with(&mut entry);
        drop_empty_attributes(&mut entry);
        entry.revision_number = 0;
        entry.created_at = now;
        self.ids.insert(self.unique(&entry.id));
        self.similar.entry(identity(&entry)).or_default().push(entry.clone());
        Ok(Admitted::New(Box::new(entry), bundles))
    }

    /// Rows of the bundles to federate with, each once. The first unknown one, in the order given, is what a refusal
    /// names.
    fn bundle_rows(&self, trust_domains: &[TrustDomain]) -> Result<Vec<i64>> {
        let mut rows = Vec::new();
        for trust_domain in trust_domains {
            match self.bundles.get(trust_domain.as_id_str()) {
                None => return Err(Error::UnknownFederatedBundle(trust_domain.clone())),
                Some(row) if !rows.contains(row) => rows.push(*row),
                Some(_) => {}
            }
        }
        Ok(rows)
    }
}

fn identity(entry: &Entry) -> (String, String) {
    (entry.spiffe_id.as_str().to_owned(), entry.parent_id.as_str().to_owned())
}

/// Row and name of those that are stored; `lock` ends the statement.
pub(super) fn names(
    conn: &Conn,
    table: &str,
    column: &str,
    asked: &[&str],
    lock: &str,
) -> Result<Vec<(i64, String)>> {
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let asked = padded(asked.to_vec());
    let list = placeholders(asked.len());
    let args: Vec<Arg<'_>> = asked.into_iter().map(Arg::from).collect();
    let sql = format!("SELECT id, {column} FROM {table} WHERE {column} IN ({list}){lock}");
    conn.rows(&sql, &args, |row| Ok((row.int(0)?, row.text(1)?.to_owned())))
}

fn insert(tx: &mut Tx<'_>, new: Vec<(Box<Entry>, Vec<i64>)>, stamp: Stamp) -> Result<()> {
    let rows = insert_entries(tx.conn, &new, stamp)?;
    let (mut links, mut selectors, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for ((entry, bundles), row) in new.iter().zip(&rows) {
        links.extend(bundles.iter().map(|bundle| (*bundle, *row)));
        selectors.extend(entry.selectors.iter().map(|selector| (*row, selector)));
        names.extend(entry.dns_names.iter().map(|name| (*row, name)));
    }
    insert_many(
        tx.conn,
        "INSERT INTO federated_registration_entries (bundle_id, registered_entry_id)",
        &links,
        |(bundle, row)| args![*bundle, *row],
    )?;
    insert_many(
        tx.conn,
        "INSERT INTO selectors (created_at, updated_at, registered_entry_id, type, value)",
        &selectors,
        |(row, selector)| args![stamp, stamp, *row, &selector.kind, &selector.value],
    )?;
    insert_many(
        tx.conn,
        "INSERT INTO dns_names (created_at, updated_at, registered_entry_id, value)",
        &names,
        |(row, name)| args![stamp, stamp, *row, *name],
    )?;
    let changed = new.into_iter().map(|(entry, _)| (entry.id.clone(), Change::EntrySet(entry)));
    tx.entries_changed(changed.collect())
}

/// Returns the rows' ids, in the order of the entries.
fn insert_entries(conn: &Conn, new: &[(Box<Entry>, Vec<i64>)], stamp: Stamp) -> Result<Vec<i64>> {
    let into = "INSERT INTO registered_entries (created_at, updated_at, entry_id, spiffe_id, parent_id, ttl, admin, \
                downstream, expiry, revision_number, store_svid, hint, jwt_svid_ttl, additional_attributes)";
    let blobs: Vec<Option<Vec<u8>>> = new.iter().map(|(entry, _)| additional_blob(entry)).collect();
    let all: Vec<(&Entry, Option<&[u8]>)> =
        new.iter().zip(&blobs).map(|((entry, _), blob)| (&**entry, blob.as_deref())).collect();
    if let [(entry, blob)] = all[..] {
        let sql = format!("{into} VALUES ({})", placeholders(14));
        return Ok(vec![conn.insert(&sql, &columns(entry, blob, stamp))?]);
    }
    insert_many(conn, into, &all, |(entry, blob)| columns(entry, *blob, stamp))?;
    let ids: Vec<&str> = all.iter().map(|(entry, _)| entry.id.as_str()).collect();
    let rows: HashMap<String, i64> = names(conn, "registered_entries", "entry_id", &ids, "")?
        .into_iter()
        .map(|(row, id)| (id, row))
        .collect();
    ids.iter()
        .map(|id| {
            let lost = || Error::Internal(format!("entry {id:?} is not there after its insert"));
            rows.get(*id).copied().ok_or_else(lost)
        })
        .collect()
}

fn columns<'a>(entry: &'a Entry, blob: Option<&'a [u8]>, stamp: Stamp) -> [Arg<'a>; 14] {
    args![
        stamp,
        stamp,
        &entry.id,
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
        blob,
    ]
}
