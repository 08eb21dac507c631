//! What a SPIRE server wrote on the same database, told to the log.
//!
//! SPIRE leaves a row in an event table for each change of an entry or agent; a bundle's row changes its `updated_at`.
//! Where that does not tell all (event rows were pruned before we saw them; a deleted bundle may have taken entries
//! with it, without events), the log restarts and its followers take a snapshot.

use steeple_datastore::{Change, Result};
use steeple_spiffe::{SpiffeId, TrustDomain};

use crate::changes::{self, Tx};
use crate::conn::{Conn, args, last_id_of};
use crate::{agents, bundles, entries};

/// How a row of `bundles` looks: it changes with every write of a SPIRE server.
pub(crate) const MARK: &str = "COALESCE(updated_at, '') || '/' || LENGTH(data)";

/// Whether others wrote what the log does not know. Cheap; asked when another connection committed.
pub(crate) fn is_pending(conn: &Conn) -> Result<bool> {
    let sql = format!(
        "SELECT entries_event <> {} OR agents_event <> {} FROM steeple_meta",
        last_id_of("registered_entries_events"),
        last_id_of("attested_node_entries_events"),
    );
    let events = conn.first(&sql, &[], |row| row.flag(0))?.unwrap_or_default();
    Ok(events || !changed_bundles(conn)?.is_empty() || !gone_bundles(conn)?.is_empty())
}

/// SPIRE servers on this database keep the bundles of these trust domains fresh; we do not.
pub(crate) fn federation_relationships(conn: &Conn) -> Result<Vec<String>> {
    let mut names = Vec::new();
    conn.each("SELECT trust_domain FROM federated_trust_domains ORDER BY trust_domain", &[], |row| {
        names.push(row.text(0)?.to_owned());
        Ok(())
    })?;
    Ok(names)
}

/// Told once, at start: bundles that grow old in silence end in refused peers.
pub(crate) fn warn_of_federation(conn: &Conn) -> Result<()> {
    let names = federation_relationships(conn)?;
    if !names.is_empty() {
        tracing::warn!(
            subsystem_name = "sql",
            trust_domains = names.join(","),
            "The database has federation relationships, and this version does not refresh their bundles; keep them \
             up to date with `spire-server bundle set`"
        );
    }
    Ok(())
}

/// Logs what others wrote. Runs first in a write transaction, so that later revisions are later writes.
pub(crate) fn reconcile(tx: &mut Tx<'_>) -> Result<()> {
    let conn = tx.conn;
    let (seen_entry, seen_agent) = conn
        .first("SELECT entries_event, agents_event FROM steeple_meta", &[], |row| {
            Ok((row.int(0)?, row.int(1)?))
        })?
        .unwrap_or_default();
    let entry_ids = events(conn, "registered_entries_events", "entry_id", seen_entry)?;
    let agent_ids = events(conn, "attested_node_entries_events", "spiffe_id", seen_agent)?;
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
            "INSERT INTO steeple_bundle_marks (trust_domain, mark) SELECT trust_domain, {MARK} FROM bundles \
             WHERE trust_domain = ?"
        ),
        &args![trust_domain_id],
    )?;
    Ok(())
}

/// Names in the events after `seen`, each once; `None` if some of those events are gone.
fn events(conn: &Conn, table: &str, column: &str, seen: i64) -> Result<Option<Vec<String>>> {
    let last =
        conn.first(&format!("SELECT {}", last_id_of(table)), &[], |row| row.int(0))?.unwrap_or_default();
    if last == seen {
        return Ok(Some(Vec::new()));
    }
    let sql = format!("SELECT COUNT(*) FROM {table} WHERE id > ?");
    let there = conn.first(&sql, &args![seen], |row| row.int(0))?.unwrap_or_default();
    if there != last - seen {
        return Ok(None);
    }
    let sql = format!("SELECT {column} FROM {table} WHERE id > ? GROUP BY {column} ORDER BY MAX(id)");
    conn.rows(&sql, &args![seen], |row| Ok(row.text(0)?.to_owned())).map(Some)
}

fn changed_bundles(conn: &Conn) -> Result<Vec<String>> {
    let sql = format!(
        "SELECT B.trust_domain FROM bundles B LEFT JOIN steeple_bundle_marks M \
         ON M.trust_domain = B.trust_domain WHERE M.mark IS NULL OR M.mark <> {MARK} ORDER BY B.id"
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

fn restart(conn: &Conn) -> Result<()> {
    conn.exec("DELETE FROM steeple_bundle_marks", &[])?;
    conn.exec(
        &format!(
            "INSERT INTO steeple_bundle_marks (trust_domain, mark) SELECT trust_domain, {MARK} FROM bundles"
        ),
        &[],
    )?;
    conn.exec(
        &format!(
            "UPDATE steeple_meta SET entries_event = {}, agents_event = {}",
            last_id_of("registered_entries_events"),
            last_id_of("attested_node_entries_events"),
        ),
        &[],
    )?;
    changes::restart(conn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Target;
    use crate::schema;

    #[test]
    fn federation_relationships_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite3").display().to_string();
        let conn = Conn::open(&Target::parse(&path).unwrap()).unwrap();
        schema::create(&conn).unwrap();
        assert!(federation_relationships(&conn).unwrap().is_empty());
        for name in ["other.org", "another.org"] {
            conn.exec("INSERT INTO federated_trust_domains (trust_domain) VALUES (?)", &args![name]).unwrap();
        }
        assert_eq!(federation_relationships(&conn).unwrap(), ["another.org", "other.org"]);
        warn_of_federation(&conn).unwrap();
    }
}
