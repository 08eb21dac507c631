//! Attested nodes: `attested_node_entries`, `node_resolver_map_entries`.

use steeple_datastore::model::{Agent, Selector};
use steeple_datastore::{
    AgentFilter, AgentUpdate, Change, Page, PageRequest, Result, RotatedAgent, validate,
};
use steeple_proto::spire::common;
use steeple_spiffe::{IdError, SpiffeId};

use crate::changes::Tx;
use crate::conn::{Arg, Conn, Dialect, Row, args};
use crate::entries;
use crate::error::corrupt;
use crate::rows::{Cursor, lookups};
use crate::selectors::{SetTable, selector_args, set_conditions};
use crate::time::{self, Stamp};

struct Stored {
    row: i64,
    agent: Agent,
}

const COLUMNS: &str = "N.id, N.spiffe_id, N.data_type, N.serial_number, N.expires_at, N.new_serial_number, \
                       N.new_expires_at, N.can_reattest, N.agent_version";

pub(crate) fn fetch(conn: &Conn, id: &SpiffeId) -> Result<Option<Agent>> {
    Ok(fetch_stored(conn, id, "")?.map(|stored| stored.agent))
}

/// To be written: a SPIRE server on the same database waits.
fn lock(conn: &Conn, id: &SpiffeId) -> Result<Option<Stored>> {
    fetch_stored(conn, id, conn.dialect().for_update())
}

fn fetch_stored(conn: &Conn, id: &SpiffeId, lock: &str) -> Result<Option<Stored>> {
    let sql = format!("SELECT {COLUMNS} FROM attested_node_entries N WHERE N.spiffe_id = ?{lock}");
    let found = conn.first(&sql, &args![id.as_str()], read)?;
    // MySQL compares without regard to case.
    let mut stored: Vec<Stored> = found.into_iter().filter(|stored| stored.agent.id == *id).collect();
    add_selectors(conn, &mut stored)?;
    Ok(stored.pop())
}

pub(crate) fn list(conn: &Conn, filter: &AgentFilter, page: &PageRequest) -> Result<Page<Agent>> {
    let (condition, mut args) = condition(filter, conn.dialect())?;
    let limit = if page.size == 0 { i64::MAX as u64 - 1 } else { u64::from(page.size) };
    let sql = format!(
        "SELECT {COLUMNS} FROM attested_node_entries N WHERE N.id > ?{condition} ORDER BY N.id LIMIT ?"
    );
    args.insert(0, Arg::from(page.after()?));
    args.push(Arg::from(limit + 1));
    let (mut stored, mut seen, mut last) = (Vec::new(), 0, 0);
    let mut next_token = String::new();
    conn.each(&sql, &args, |row| {
        if seen == limit {
            next_token = i64::to_string(&last);
            return Ok(());
        }
        seen += 1;
        last = row.int(0)?;
        match read(row) {
            Ok(one) => stored.push(one),
            // One bad row must not hide the others.
            Err(reason) => {
                let agent_id = row.text(1)?;
                tracing::warn!(subsystem_name = "sql", agent_id, %reason, "Stored agent is left out");
            }
        }
        Ok(())
    })?;
    add_selectors(conn, &mut stored)?;
    Ok(Page { items: stored.into_iter().map(|stored| stored.agent).collect(), next_token })
}

pub(crate) fn count(conn: &Conn, filter: &AgentFilter) -> Result<u64> {
    let (condition, args) = condition(filter, conn.dialect())?;
    let sql = format!("SELECT COUNT(*) FROM attested_node_entries N WHERE N.id > 0{condition}");
    Ok(conn.first(&sql, &args, |row| row.int(0))?.unwrap_or_default() as u64)
}

/// ` AND …` on `attested_node_entries N`, or nothing.
fn condition(filter: &AgentFilter, dialect: Dialect) -> Result<(String, Vec<Arg<'_>>)> {
    let mut conditions = Vec::new();
    let mut args = Vec::new();
    if let Some(kind) = &filter.attestation_type {
        conditions.push("N.data_type = ?".into());
        args.push(Arg::from(kind));
    }
    match filter.banned {
        Some(true) => conditions.push("N.serial_number = ''".into()),
        Some(false) => conditions.push("N.serial_number <> ''".into()),
        None => {}
    }
    if let Some(can_reattest) = filter.can_reattest {
        conditions.push("N.can_reattest = ?".into());
        args.push(Arg::from(can_reattest));
    }
    if let Some(before) = filter.expires_before {
        let (condition, before) = dialect.earlier("N.expires_at", before);
        conditions.push(condition);
        args.push(before);
    }
    if let Some((selectors, how)) = &filter.selectors {
        validate::filter_set(selectors.is_empty(), "selectors")?;
        let asked = selector_args(selectors);
        let table = SetTable {
            table: "node_resolver_map_entries",
            id: "spiffe_id",
            item: "(type, value)",
            outer: "N.spiffe_id",
        };
        let count = asked.len() / 2;
        for (condition, times) in set_conditions(&table, dialect, &dialect.pairs(count), count, *how) {
            conditions.push(condition);
            args.extend(asked.repeat(times));
        }
    }
    conditions.insert(0, String::new());
    Ok((conditions.join(" AND "), args))
}

/// Reads a row of [`COLUMNS`].
fn read(row: &Row<'_>) -> Result<Stored> {
    let id = row.text(1)?;
    Ok(Stored {
        row: row.int(0)?,
        agent: Agent {
            id: SpiffeId::parse(id).map_err(|reason| corrupt("agent", id, reason))?,
            attestation_type: row.text(2)?.to_owned(),
            serial_number: row.text(3)?.to_owned(),
            expires_at: row.seconds(4)?,
            new_serial_number: row.text(5)?.to_owned(),
            new_expires_at: row.seconds(6)?,
            can_reattest: row.flag(7)?,
            agent_version: row.text(8)?.to_owned(),
            selectors: Vec::new(),
        },
    })
}

/// Selectors of agents whose rows are in ascending order.
fn add_selectors(conn: &Conn, stored: &mut [Stored]) -> Result<()> {
    let ids: Vec<i64> = stored.iter().map(|stored| stored.row).collect();
    for lookup in lookups(&ids) {
        let sql = format!(
            "SELECT N.id, S.type, S.value FROM attested_node_entries N INNER JOIN node_resolver_map_entries S \
             ON S.spiffe_id = N.spiffe_id WHERE {} ORDER BY N.id, S.id",
            lookup.condition("N.id")
        );
        let mut cursor = Cursor::new(stored);
        conn.each(&sql, &lookup.args(), |row| {
            if let Some(stored) = cursor.seek(row.int(0)?, |stored| stored.row) {
                stored.agent.selectors.push(Selector::new(row.text(1)?, row.text(2)?));
            }
            Ok(())
        })?;
    }
    Ok(())
}

pub(crate) fn put(tx: &mut Tx<'_>, mut agent: Agent, now: i64) -> Result<()> {
    validate::agent_selectors(&agent.selectors)?;
    let stamp = time::stamp(now);
    let stored = lock(tx.conn, &agent.id)?;
    if let Some(stored) = &stored {
        agent.replaces(&stored.agent)?;
    }
    let id = agent.id.as_str();
    if let Some(stored) = &stored {
        write_columns(tx.conn, stored.row, &agent, stamp)?;
    } else {
        let row = tx.conn.insert(
            "INSERT INTO attested_node_entries (created_at, spiffe_id) VALUES (?, ?)",
            &args![stamp, id],
        )?;
        write_columns(tx.conn, row, &agent, stamp)?;
    }
    if stored.is_none_or(|stored| stored.agent.selectors != agent.selectors) {
        delete_selectors(tx.conn, id)?;
        for selector in &agent.selectors {
            tx.conn.exec(
                "INSERT INTO node_resolver_map_entries (created_at, updated_at, spiffe_id, type, value) \
                 VALUES (?, ?, ?, ?, ?)",
                &args![stamp, stamp, id, &selector.kind, &selector.value],
            )?;
        }
    }
    let id = agent.id.clone();
    tx.agent_changed(&id, Change::AgentSet(Box::new(agent)))
}

pub(crate) fn update(tx: &mut Tx<'_>, id: &SpiffeId, update: AgentUpdate, now: i64) -> Result<Option<Agent>> {
    let Some(Stored { row, agent: stored }) = lock(tx.conn, id)? else {
        return Ok(None);
    };
    let agent = update.apply(stored.clone());
    if agent != stored {
        write_columns(tx.conn, row, &agent, time::stamp(now))?;
        tx.agent_changed(id, Change::AgentSet(Box::new(agent.clone())))?;
    }
    Ok(Some(agent))
}

pub(crate) fn promote_serial(
    tx: &mut Tx<'_>,
    id: &SpiffeId,
    serial: &str,
    now: i64,
) -> Result<Option<Agent>> {
    let Some(Stored { row, agent: stored }) = lock(tx.conn, id)? else {
        return Ok(None);
    };
    let Some(agent) = stored.promoted(serial) else {
        return Ok(None);
    };
    write_columns(tx.conn, row, &agent, time::stamp(now))?;
    tx.agent_changed(id, Change::AgentSet(Box::new(agent.clone())))?;
    Ok(Some(agent))
}

/// Tells the agent to renew all it holds; the log alone carries that.
pub(crate) fn rotate(tx: &mut Tx<'_>, id: &SpiffeId, now: i64) -> Result<Option<Agent>> {
    let agent = fetch(tx.conn, id)?;
    if agent.as_ref().is_some_and(|agent| !agent.is_banned()) {
        tx.changed(Change::AgentRotated(RotatedAgent { id: id.clone(), ordered_at: now }));
    }
    Ok(agent)
}

fn write_columns(conn: &Conn, row: i64, agent: &Agent, stamp: Stamp) -> Result<()> {
    let expires_at = time::stamp(agent.expires_at);
    let new_expires_at = (agent.new_expires_at != 0).then(|| time::stamp(agent.new_expires_at));
    conn.exec(
        "UPDATE attested_node_entries SET updated_at = ?, data_type = ?, serial_number = ?, expires_at = ?, \
         new_serial_number = ?, new_expires_at = ?, can_reattest = ?, agent_version = ? WHERE id = ?",
        &args![
            stamp,
            &agent.attestation_type,
            &agent.serial_number,
            expires_at,
            &agent.new_serial_number,
            new_expires_at,
            agent.can_reattest,
            &agent.agent_version,
            row,
        ],
    )?;
    Ok(())
}

/// The agent, its selectors, and the alias entry that `token generate -spiffeID` made for it: parented to the agent of
/// the token, with the one selector `spiffe_id:<that agent>`.
pub(crate) fn delete(tx: &mut Tx<'_>, id: &SpiffeId) -> Result<Option<Agent>> {
    let Some(Stored { row, agent }) = lock(tx.conn, id)? else {
        return Ok(None);
    };
    if agent.attestation_type == "join_token" {
        let aliases = tx.conn.rows(
            "SELECT E.id, E.entry_id, E.spiffe_id FROM registered_entries E WHERE E.parent_id = ? \
             AND EXISTS (SELECT 1 FROM selectors S WHERE S.registered_entry_id = E.id AND S.type = 'spiffe_id' \
             AND S.value = E.parent_id) \
             AND (SELECT COUNT(*) FROM selectors S WHERE S.registered_entry_id = E.id) = 1 ORDER BY E.id",
            &args![id.as_str()],
            |row| Ok(((row.int(0)?, row.text(1)?.to_owned()), row.text(2)?.to_owned())),
        )?;
        for (alias, spiffe_id) in aliases {
            entries::delete_rows(tx, std::slice::from_ref(&alias))?;
            let (_, entry_id) = alias;
            tracing::info!(
                subsystem_name = "sql",
                spiffe_id,
                parent_id = id.as_str(),
                entry_id,
                "Cascade-deleted registration entry on attested node deletion"
            );
        }
    }
    delete_selectors(tx.conn, id.as_str())?;
    tx.conn.exec("DELETE FROM attested_node_entries WHERE id = ?", &args![row])?;
    tx.agent_changed(id, Change::AgentGone { id: id.clone() })?;
    Ok(Some(agent))
}

fn delete_selectors(conn: &Conn, id: &str) -> Result<()> {
    conn.exec("DELETE FROM node_resolver_map_entries WHERE spiffe_id = ?", &args![id])?;
    Ok(())
}

pub(crate) fn prune(tx: &mut Tx<'_>, before: i64, include_non_reattestable: bool, limit: u32) -> Result<u64> {
    let (expired, before) = tx.conn.dialect().earlier("expires_at", before);
    let mut args = vec![before];
    let reattestable = if include_non_reattestable {
        ""
    } else {
        args.push(Arg::from(true));
        " AND can_reattest = ?"
    };
    args.push(Arg::from(u64::from(limit)));
    let sql = format!(
        "SELECT spiffe_id FROM attested_node_entries WHERE {expired} AND serial_number <> ''{reattestable} \
         ORDER BY id LIMIT ?"
    );
    let expired = tx.conn.rows(&sql, &args, |row| Ok(row.text(0)?.to_owned()))?;
    let mut gone = 0;
    for id in expired.iter().filter_map(|id| SpiffeId::parse(id).ok()) {
        gone += u64::from(delete(tx, &id)?.is_some());
    }
    Ok(gone)
}

/// An agent as the log holds it.
pub(crate) fn to_message(agent: &Agent) -> common::AttestedNode {
    common::AttestedNode {
        spiffe_id: agent.id.as_str().to_owned(),
        attestation_data_type: agent.attestation_type.clone(),
        cert_serial_number: agent.serial_number.clone(),
        cert_not_after: agent.expires_at,
        new_cert_serial_number: agent.new_serial_number.clone(),
        new_cert_not_after: agent.new_expires_at,
        selectors: agent
            .selectors
            .iter()
            .map(|s| common::Selector { r#type: s.kind.clone(), value: s.value.clone() })
            .collect(),
        can_reattest: agent.can_reattest,
        agent_version: agent.agent_version.clone(),
    }
}

pub(crate) fn from_message(message: common::AttestedNode) -> std::result::Result<Agent, IdError> {
    Ok(Agent {
        id: SpiffeId::parse(&message.spiffe_id)?,
        attestation_type: message.attestation_data_type,
        serial_number: message.cert_serial_number,
        expires_at: message.cert_not_after,
        new_serial_number: message.new_cert_serial_number,
        new_expires_at: message.new_cert_not_after,
        can_reattest: message.can_reattest,
        agent_version: message.agent_version,
        selectors: message
            .selectors
            .into_iter()
            .map(|s| Selector { kind: s.r#type, value: s.value })
            .collect(),
    })
}
