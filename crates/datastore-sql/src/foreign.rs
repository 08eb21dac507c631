//! What a SPIRE server wrote on the same database, told to the log.
//!
//! SPIRE leaves a row in an event table for each change of an entry or agent; a bundle's row changes its `updated_at`.
//! Where that does not tell all (event rows were pruned before we saw them; a deleted bundle may have taken entries
//! with it, without events), the log restarts and its followers take a snapshot.
//!
//! Database servers give out ids before the commit: an event may appear after one with a higher id, or never. Ids that
//! are missing below the newest event seen are kept in `steeple_event_gaps` for as long as SPIRE waits for them.

use std::collections::BTreeSet;

use steeple_datastore::{Change, Result, Revision};
use steeple_spiffe::{SpiffeId, TrustDomain};

use crate::changes::{self, Tx};
use crate::conn::{Conn, Dialect, args};
use crate::rows::insert_many;
use crate::{agents, bundles, entries};

/// One of SPIRE's event tables.
struct Events {
    /// In `steeple_event_gaps`.
    kind: i64,
    table: &'static str,
    /// Column of the changed row's name.
    name: &'static str,
    /// Column of `steeple_meta` with the newest event that the log knows of.
    seen: &'static str,
}

const ENTRIES: Events =
    Events { kind: 0, table: "registered_entries_events", name: "entry_id", seen: "entries_event" };
const AGENTS: Events =
    Events { kind: 1, table: "attested_node_entries_events", name: "spiffe_id", seen: "agents_event" };

/// Events that are told one by one at most, and missing ids that are waited for: a snapshot is cheaper than more.
const MANY: usize = 10_000;

/// Seconds that a missing id is waited for: SPIRE's `event_timeout`.
const GAP_PATIENCE: i64 = 900;

/// Where the log stands.
pub(crate) struct State {
    pub head: Revision,
    pub log_id: String,
    /// Others wrote what the log does not know.
    pub pending: bool,
}

/// One row, by indexes: what a server asks for when nothing happens.
pub(crate) fn state(conn: &Conn) -> Result<State> {
    let dialect = conn.dialect();
    let mark = dialect.bundle_mark();
    let mut pending = Vec::new();
    for Events { kind, table, seen, .. } in [ENTRIES, AGENTS] {
        let last = dialect.last_id_of(table);
        if dialect == Dialect::Sqlite {
            pending.push(format!("{last} <> M.{seen}"));
        } else {
            pending.push(format!("{last} > M.{seen}"));
            pending.push(format!(
                "EXISTS (SELECT 1 FROM steeple_event_gaps G INNER JOIN {table} E ON E.id = G.event_id \
                 WHERE G.kind = {kind})"
            ));
        }
    }
    let sql = format!(
        "SELECT M.head, M.log_id, {} OR EXISTS (SELECT 1 FROM bundles B LEFT JOIN steeple_bundle_marks K \
         ON K.trust_domain = B.trust_domain WHERE K.mark IS NULL OR K.mark <> {mark}) \
         OR EXISTS (SELECT 1 FROM steeple_bundle_marks K LEFT JOIN bundles B ON K.trust_domain = B.trust_domain \
         WHERE B.id IS NULL) FROM steeple_meta M",
        pending.join(" OR ")
    );
    let state = conn.first(&sql, &[], |row| {
        Ok(State {
            head: Revision(row.int(0)? as u64),
            log_id: row.text(1)?.to_owned(),
            pending: row.flag(2)?,
        })
    })?;
    state.ok_or_else(|| steeple_datastore::Error::Internal("steeple_meta is empty".into()))
}

/// Logs what others wrote. Runs first in a write transaction, so that later revisions are later writes.
pub(crate) fn reconcile(tx: &mut Tx<'_>) -> Result<()> {
    let conn = tx.conn;
    let entry_ids = events(conn, &ENTRIES)?;
    let agent_ids = events(conn, &AGENTS)?;
    let gone = gone_bundles(conn)?;
    let (Some(entry_ids), Some(agent_ids), true) = (entry_ids, agent_ids, gone.is_empty()) else {
        tracing::warn!(
            subsystem_name = "sql",
            "Another server changed the database in a way that cannot be followed; all views are read anew"
        );
        return restart(conn);
    };
    for id in entry_ids {
        tx.changed(match entries::fetch(conn, &id) {
            Ok(Some(entry)) => Change::EntrySet(Box::new(entry)),
            Ok(None) => Change::EntryGone { id },
            Err(steeple_datastore::Error::Internal(reason)) => {
                tracing::warn!(
                    subsystem_name = "sql",
                    entry_id = id,
                    reason,
                    "Entry written by another server is left out"
                );
                Change::EntryGone { id }
            }
            Err(error) => return Err(error),
        });
    }
    for id in agent_ids {
        let Ok(id) = SpiffeId::parse(&id) else {
            tracing::warn!(
                subsystem_name = "sql",
                spiffe_id = id,
                "Agent written by another server is left out: its ID is malformed"
            );
            continue;
        };
        tx.changed(match agents::fetch(conn, &id)? {
            Some(agent) => Change::AgentSet(Box::new(agent)),
            None => Change::AgentGone { id },
        });
    }
    for id in changed_bundles(conn)? {
        mark(conn, &id)?;
        match TrustDomain::new(&id) {
            Ok(trust_domain) => {
                if let Some(bundle) = bundles::fetch(conn, &trust_domain)? {
                    tx.changed(Change::bundle_set(&bundle));
                }
            }
            Err(reason) => {
                tracing::warn!(
                    subsystem_name = "sql",
                    trust_domain_id = id,
                    %reason,
                    "Bundle written by another server is left out"
                );
            }
        }
    }
    Ok(())
}

/// Remembers how a bundle looks now.
pub(crate) fn mark(conn: &Conn, trust_domain_id: &str) -> Result<()> {
    conn.exec("DELETE FROM steeple_bundle_marks WHERE trust_domain = ?", &args![trust_domain_id])?;
    conn.exec(
        &format!(
            "INSERT INTO steeple_bundle_marks (trust_domain, mark) SELECT trust_domain, {} FROM bundles \
             WHERE trust_domain = ?",
            conn.dialect().bundle_mark()
        ),
        &args![trust_domain_id],
    )?;
    Ok(())
}

/// Remembers how all bundles look now.
pub(crate) fn mark_all(conn: &Conn) -> Result<()> {
    conn.exec("DELETE FROM steeple_bundle_marks", &[])?;
    let mark = conn.dialect().bundle_mark();
    conn.exec(
        &format!(
            "INSERT INTO steeple_bundle_marks (trust_domain, mark) SELECT trust_domain, {mark} FROM bundles"
        ),
        &[],
    )?;
    Ok(())
}

/// Names in the events that the log does not know of, each once, which it then knows of; `None` if some of those
/// events are gone.
fn events(conn: &Conn, of: &Events) -> Result<Option<Vec<String>>> {
    let Events { kind, table, seen, .. } = *of;
    let known = seen_event(conn, of)?;
    let found = if conn.dialect() == Dialect::Sqlite {
        let last = conn
            .first(&format!("SELECT {}", conn.dialect().last_id_of(table)), &[], |row| row.int(0))?
            .unwrap_or_default();
        if last == known {
            return Ok(Some(Vec::new()));
        }
        let found = events_after(conn, of, known)?;
        // SQLite gives out ids without gaps.
        if found.len() as i64 != last - known {
            return Ok(None);
        }
        found
    } else {
        let found = events_after(conn, of, known)?;
        if found.len() > MANY || !is_whole(conn, of, known, &found)? {
            return Ok(None);
        }
        let there: Vec<i64> = found.iter().map(|event| event.0).collect();
        note_gaps(conn, of, known, &there)?;
        let mut appeared = appeared(conn, of)?;
        for (id, _) in &appeared {
            conn.exec("DELETE FROM steeple_event_gaps WHERE kind = ? AND event_id = ?", &args![kind, *id])?;
        }
        appeared.extend(found);
        appeared
    };
    if let Some(last) = found.iter().map(|event| event.0).max().filter(|last| *last > known) {
        conn.exec(&format!("UPDATE steeple_meta SET {seen} = ?"), &args![last])?;
    }
    // The last event of a name counts.
    let mut told = BTreeSet::new();
    let mut names: Vec<String> =
        found.into_iter().rev().map(|event| event.1).filter(|name| told.insert(name.clone())).collect();
    names.reverse();
    Ok(Some(names))
}

fn seen_event(conn: &Conn, of: &Events) -> Result<i64> {
    let sql = format!("SELECT {} FROM steeple_meta", of.seen);
    Ok(conn.first(&sql, &[], |row| row.int(0))?.unwrap_or_default())
}

/// More than [`MANY`] mean that there are too many.
fn events_after(conn: &Conn, of: &Events, known: i64) -> Result<Vec<(i64, String)>> {
    let sql = format!("SELECT id, {} FROM {} WHERE id > ? ORDER BY id LIMIT ?", of.name, of.table);
    let limit = if conn.dialect() == Dialect::Sqlite { i64::MAX } else { MANY as i64 + 1 };
    conn.rows(&sql, &args![known, limit], |row| Ok((row.int(0)?, row.text(1)?.to_owned())))
}

/// Whether ids that are missing right after the known event are gaps. If no older event is there, they may have been
/// pruned as well.
fn is_whole(conn: &Conn, of: &Events, known: i64, found: &[(i64, String)]) -> Result<bool> {
    if found.first().is_none_or(|first| first.0 == known + 1) {
        return Ok(true);
    }
    let sql = format!("SELECT id FROM {} WHERE id <= ? ORDER BY id DESC LIMIT 1", of.table);
    Ok(conn.first(&sql, &args![known], |row| row.int(0))?.is_some())
}

/// Keeps the ids between the known event and the newest of `there` (ascending) that are not in it.
fn note_gaps(conn: &Conn, of: &Events, known: i64, there: &[i64]) -> Result<()> {
    let Some(last) = there.last().copied().filter(|last| *last > known) else { return Ok(()) };
    if there.iter().filter(|id| **id > known).count() as i64 == last - known {
        return Ok(());
    }
    let there: BTreeSet<i64> = there.iter().copied().collect();
    let gaps: Vec<i64> = (known + 1..last).filter(|id| !there.contains(id)).take(MANY + 1).collect();
    if gaps.len() > MANY {
        tracing::warn!(
            subsystem_name = "sql",
            table = of.table,
            "Ids of events jump; a SPIRE server's writes of this moment may be noticed late"
        );
        return Ok(());
    }
    let now = conn
        .first(&format!("SELECT {}", conn.dialect().unix_now()), &[], |row| row.int(0))?
        .unwrap_or_default();
    insert_many(conn, "INSERT INTO steeple_event_gaps (kind, event_id, since)", &gaps, |id| {
        args![of.kind, *id, now]
    })
}

/// Events whose ids were missing.
fn appeared(conn: &Conn, of: &Events) -> Result<Vec<(i64, String)>> {
    let sql = format!(
        "SELECT E.id, E.{} FROM steeple_event_gaps G INNER JOIN {} E ON E.id = G.event_id WHERE G.kind = ? \
         ORDER BY E.id",
        of.name, of.table
    );
    conn.rows(&sql, &args![of.kind], |row| Ok((row.int(0)?, row.text(1)?.to_owned())))
}

/// Ids that were missing for too long belong to writes that were undone.
pub(crate) fn forget_old_gaps(conn: &Conn) -> Result<()> {
    if conn.dialect() != Dialect::Sqlite {
        let sql = format!("DELETE FROM steeple_event_gaps WHERE since < {} - ?", conn.dialect().unix_now());
        conn.exec(&sql, &args![GAP_PATIENCE])?;
    }
    Ok(())
}

/// The log knows of the events that a transaction leaves itself.
pub(crate) fn count_own_events(tx: &mut Tx<'_>) -> Result<()> {
    let conn = tx.conn;
    let own =
        [(ENTRIES, std::mem::take(&mut tx.entry_events)), (AGENTS, std::mem::take(&mut tx.agent_events))];
    for (of, mut ids) in own {
        ids.sort_unstable();
        let Some(mut last) = ids.last().copied() else { continue };
        if conn.dialect() == Dialect::Sqlite {
            let sql = format!("SELECT {}", conn.dialect().last_id_of(of.table));
            last = conn.first(&sql, &[], |row| row.int(0))?.unwrap_or_default();
        } else {
            note_gaps(conn, &of, seen_event(conn, &of)?, &ids)?;
        }
        conn.exec(&format!("UPDATE steeple_meta SET {} = ?", of.seen), &args![last])?;
    }
    Ok(())
}

fn changed_bundles(conn: &Conn) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT B.trust_domain FROM bundles B LEFT JOIN steeple_bundle_marks M \
         ON M.trust_domain = B.trust_domain WHERE M.mark IS NULL OR M.mark <> {} ORDER BY B.id",
        conn.dialect().bundle_mark()
    );
    conn.rows(&sql, &[], |row| Ok(row.text(0)?.to_owned()))
}

fn gone_bundles(conn: &Conn) -> Result<Vec<String>> {
    conn.rows(
        "SELECT M.trust_domain FROM steeple_bundle_marks M LEFT JOIN bundles B \
         ON M.trust_domain = B.trust_domain WHERE B.id IS NULL",
        &[],
        |row| Ok(row.text(0)?.to_owned()),
    )
}

/// Goes on from what is stored now: followers take a snapshot.
pub(crate) fn restart(conn: &Conn) -> Result<()> {
    mark_all(conn)?;
    for of in [ENTRIES, AGENTS] {
        let last = conn.dialect().last_id_of(of.table);
        conn.exec(&format!("UPDATE steeple_meta SET {} = {last}", of.seen), &[])?;
    }
    if conn.dialect() != Dialect::Sqlite {
        conn.exec("DELETE FROM steeple_event_gaps", &[])?;
    }
    changes::restart(conn)
}
