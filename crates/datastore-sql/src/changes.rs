//! The change log: rows of `steeple_changes`, numbered by `steeple_meta.head`.

use prost::Message;
use steeple_datastore::model::Agent;
use steeple_datastore::{Change, ChangedBundle, Error, Logged, Result, Revision, RotatedAgent};
use steeple_proto::spire::common;
use steeple_spiffe::{SpiffeId, TrustDomain};

use crate::conn::{Arg, Conn, Row, args};
use crate::error::corrupt;
use crate::rows::insert_many;
use crate::{agents, entries, foreign};

/// A write transaction: what it changes is gathered and numbered at its end. The row of `steeple_meta` is locked from its
/// start, so that servers write one after another, and the order of commits is that of the revisions.
pub(crate) struct Tx<'a> {
    pub conn: &'a Conn,
    changes: Vec<Change>,
    /// Event rows that this transaction left, also those it rolled back: their ids are used up.
    pub(crate) entry_events: Vec<i64>,
    pub(crate) agent_events: Vec<i64>,
}

impl<'a> Tx<'a> {
    pub fn new(conn: &'a Conn) -> Self {
        Self { conn, changes: Vec::new(), entry_events: Vec::new(), agent_events: Vec::new() }
    }

    /// Where the gathered changes stand; see [`Tx::forget`].
    pub fn mark(&self) -> usize {
        self.changes.len()
    }

    /// Forgets the changes after a mark: what made them was rolled back.
    pub fn forget(&mut self, mark: usize) {
        self.changes.truncate(mark);
    }

    pub fn changed(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Leaves SPIRE's event row too.
    pub fn entry_changed(&mut self, entry_id: &str, change: Change) -> Result<()> {
        let id = self.event("registered_entries_events", "entry_id", entry_id)?;
        self.entry_events.push(id);
        self.changed(change);
        Ok(())
    }

    /// As [`Tx::entry_changed`], of several.
    pub fn entries_changed(&mut self, changed: Vec<(String, Change)>) -> Result<()> {
        if let [_] = changed[..] {
            return changed.into_iter().try_for_each(|(id, change)| self.entry_changed(&id, change));
        }
        let now = self.conn.dialect().now();
        for some in changed.chunks(256) {
            let sql = format!(
                "INSERT INTO registered_entries_events (created_at, updated_at, entry_id) VALUES {}",
                vec![format!("({now}, {now}, ?)"); some.len()].join(", ")
            );
            let args: Vec<Arg<'_>> = some.iter().map(|(id, _)| Arg::from(id)).collect();
            self.entry_events.extend(self.conn.insert_each(&sql, &args, some.len())?);
        }
        self.changes.extend(changed.into_iter().map(|(_, change)| change));
        Ok(())
    }

    /// As [`Tx::entry_changed`].
    pub fn agent_changed(&mut self, id: &SpiffeId, change: Change) -> Result<()> {
        let id = self.event("attested_node_entries_events", "spiffe_id", id.as_str())?;
        self.agent_events.push(id);
        self.changed(change);
        Ok(())
    }

    fn event(&self, table: &str, column: &str, name: &str) -> Result<i64> {
        let now = self.conn.dialect().now();
        let sql = format!("INSERT INTO {table} (created_at, updated_at, {column}) VALUES ({now}, {now}, ?)");
        self.conn.insert(&sql, &args![name])
    }

    /// What was changed, oldest first.
    pub fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    /// Takes the revisions, last of all, and writes the log. `None` if there is nothing to write.
    pub fn number(&mut self) -> Result<Option<Revision>> {
        foreign::count_own_events(self)?;
        if self.changes.is_empty() {
            return Ok(None);
        }
        let count = self.changes.len() as u64;
        self.conn.exec("UPDATE steeple_meta SET head = head + ?", &args![count])?;
        let head = head(self.conn)?;
        let encoded: Vec<_> = (head.0 - count + 1..)
            .zip(&self.changes)
            .map(|(revision, change)| {
                let (kind, name, data) = encode(change);
                (revision, kind, name, data)
            })
            .collect();
        insert_many(
            self.conn,
            "INSERT INTO steeple_changes (revision, kind, name, data)",
            &encoded,
            |(revision, kind, name, data)| args![*revision, *kind, *name, data.as_deref()],
        )?;
        Ok(Some(head))
    }
}

pub(crate) fn head(conn: &Conn) -> Result<Revision> {
    let head = conn.first("SELECT head FROM steeple_meta", &[], |row| row.int(0))?;
    head.map(|head| Revision(head as u64)).ok_or_else(|| Error::Internal("steeple_meta is empty".into()))
}

pub(crate) fn log_id(conn: &Conn) -> Result<String> {
    Ok(conn
        .first("SELECT log_id FROM steeple_meta", &[], |row| Ok(row.text(0)?.to_owned()))?
        .unwrap_or_default())
}

/// The log after a revision. `log`: the log's id as its follower knows it.
pub(crate) fn since(conn: &Conn, log: &str, after: Revision, limit: usize) -> Result<Vec<Logged>> {
    let (head, trimmed, same) = conn
        .first("SELECT head, trimmed, log_id FROM steeple_meta", &[], |row| {
            Ok((row.int(0)? as u64, row.int(1)? as u64, row.text(2)? == log))
        })?
        .unwrap_or_default();
    if after.0 < trimmed || after.0 > head || !same {
        return Err(Error::LogTruncated(after.0.saturating_add(1)));
    }
    if after.0 == head {
        return Ok(Vec::new());
    }
    conn.rows(
        "SELECT revision, kind, name, data FROM steeple_changes WHERE revision > ? ORDER BY revision LIMIT ?",
        &args![after.0, limit as u64],
        |row| Ok(Logged { revision: Revision(row.int(0)? as u64), change: decode(row)? }),
    )
}

/// The orders to agents that the log still holds, oldest first.
pub(crate) fn rotated_agents(conn: &Conn) -> Result<Vec<RotatedAgent>> {
    let changes = conn.rows(
        "SELECT revision, kind, name, data FROM steeple_changes WHERE kind = ? ORDER BY revision",
        &args![AGENT_ROTATED],
        decode,
    )?;
    let orders = changes.into_iter().filter_map(|change| match change {
        Change::AgentRotated(order) => Some(order),
        _ => None,
    });
    Ok(orders.collect())
}

/// Rows that one trimming transaction deletes at most, of each table.
pub(crate) const TRIM_BATCH: u64 = 5000;

/// Drops the log's oldest rows, some of those that are not among the newest `keep`; also some of SPIRE's event rows that
/// are 12 hours older than the newest (SPIRE keeps them as long). Returns how many rows of the log went, and whether
/// there may be more.
pub(crate) fn trim_batch(conn: &Conn, keep: u64) -> Result<(u64, bool)> {
    let lowest =
        "SELECT head, trimmed, COALESCE((SELECT MIN(revision) FROM steeple_changes), 0) FROM steeple_meta";
    let (head, trimmed, lowest) = conn
        .first(lowest, &[], |row| Ok((row.int(0)? as u64, row.int(1)? as u64, row.int(2)? as u64)))?
        .unwrap_or_default();
    let goal = head.saturating_sub(keep).max(trimmed);
    let upto = if lowest == 0 { goal } else { goal.min(lowest.saturating_add(TRIM_BATCH - 1)) };
    let mut gone = 0;
    if lowest != 0 && lowest <= upto {
        gone = conn.exec("DELETE FROM steeple_changes WHERE revision <= ?", &args![upto])?;
    }
    if upto > trimmed {
        conn.exec("UPDATE steeple_meta SET trimmed = ?", &args![upto])?;
    }
    let mut more = upto < goal;
    for table in ["registered_entries_events", "attested_node_entries_events"] {
        let sql = format!(
            "SELECT COALESCE(MAX(id), 0), COUNT(*) FROM (SELECT id, created_at FROM {table} ORDER BY id LIMIT ?) T \
             WHERE created_at < (SELECT {} FROM {table} ORDER BY id DESC LIMIT 1)",
            conn.dialect().less_twelve_hours("created_at")
        );
        let old = conn.first(&sql, &args![TRIM_BATCH], |row| Ok((row.int(0)?, row.int(1)?)))?;
        if let Some((last, count)) = old.filter(|(last, _)| *last > 0) {
            conn.exec(&format!("DELETE FROM {table} WHERE id <= ?"), &args![last])?;
            more |= count as u64 == TRIM_BATCH;
        }
    }
    foreign::forget_old_gaps(conn)?;
    Ok((gone, more))
}

/// Makes every follower take a snapshot: what was written cannot be told change by change. The rows go when the log is
/// trimmed.
pub(crate) fn restart(conn: &Conn) -> Result<()> {
    // In this order: MySQL's right-hand sides see what was assigned before.
    conn.exec("UPDATE steeple_meta SET trimmed = head + 1, head = head + 1", &[])?;
    Ok(())
}

/// Goes on under a new id, after `past`: the database is not the one that the old id stood for.
pub(crate) fn renew(conn: &Conn, past: Revision) -> Result<()> {
    conn.exec(
        "UPDATE steeple_meta SET log_id = ?, head = CASE WHEN head < ? THEN ? ELSE head END",
        &args![&uuid::Uuid::new_v4().to_string(), past.0, past.0],
    )?;
    restart(conn)
}

const OTHER: i64 = 0;
const ENTRY_SET: i64 = 1;
const ENTRY_GONE: i64 = 2;
const AGENT_SET: i64 = 3;
const AGENT_GONE: i64 = 4;
const BUNDLE_SET: i64 = 5;
const BUNDLE_GONE: i64 = 6;
const ENTRY_ROTATED: i64 = 7;
const AGENT_ROTATED: i64 = 8;
const FEDERATION: i64 = 9;

/// Values are SPIRE's messages: a later version can read them.
fn encode(change: &Change) -> (i64, &str, Option<Vec<u8>>) {
    match change {
        Change::Other => (OTHER, "", None),
        Change::EntrySet(entry) => (ENTRY_SET, &entry.id, Some(entries::to_message(entry).encode_to_vec())),
        Change::EntryRotated(entry) => {
            (ENTRY_ROTATED, &entry.id, Some(entries::to_message(entry).encode_to_vec()))
        }
        Change::EntryGone { id } => (ENTRY_GONE, id, None),
        Change::AgentSet(agent) => {
            (AGENT_SET, agent.id.as_str(), Some(agents::to_message(agent).encode_to_vec()))
        }
        Change::AgentGone { id } => (AGENT_GONE, id.as_str(), None),
        Change::AgentRotated(order) => {
            (AGENT_ROTATED, order.id.as_str(), Some(order.ordered_at.to_be_bytes().to_vec()))
        }
        Change::BundleSet(changed) => {
            let message = common::Bundle { sequence_number: changed.sequence_number, ..Default::default() };
            (BUNDLE_SET, changed.trust_domain.as_id_str(), Some(message.encode_to_vec()))
        }
        Change::BundleGone { trust_domain } => (BUNDLE_GONE, trust_domain.as_id_str(), None),
        Change::Federation { trust_domain } => (FEDERATION, trust_domain.as_id_str(), None),
    }
}

fn decode(row: &Row<'_>) -> Result<Change> {
    let name = row.text(2)?;
    let data = row.blob(3)?;
    let wrong = |reason: &dyn std::fmt::Display| corrupt("change of", name, reason);
    let trust_domain = || TrustDomain::new(name).map_err(|reason| wrong(&reason));
    Ok(match row.int(1)? {
        OTHER => Change::Other,
        kind @ (ENTRY_SET | ENTRY_ROTATED) => {
            let message = common::RegistrationEntry::decode(data).map_err(|reason| wrong(&reason))?;
            let entry = Box::new(entries::from_message(message).map_err(|reason| wrong(&reason))?);
            if kind == ENTRY_SET { Change::EntrySet(entry) } else { Change::EntryRotated(entry) }
        }
        ENTRY_GONE => Change::EntryGone { id: name.to_owned() },
        AGENT_SET => {
            let message = common::AttestedNode::decode(data).map_err(|reason| wrong(&reason))?;
            let agent: Agent = agents::from_message(message).map_err(|reason| wrong(&reason))?;
            Change::AgentSet(Box::new(agent))
        }
        AGENT_GONE => Change::AgentGone { id: SpiffeId::parse(name).map_err(|reason| wrong(&reason))? },
        BUNDLE_SET => Change::BundleSet(ChangedBundle {
            trust_domain: trust_domain()?,
            sequence_number: common::Bundle::decode(data).map_err(|reason| wrong(&reason))?.sequence_number,
        }),
        BUNDLE_GONE => Change::BundleGone { trust_domain: trust_domain()? },
        FEDERATION => Change::Federation { trust_domain: trust_domain()? },
        AGENT_ROTATED => Change::AgentRotated(RotatedAgent {
            id: SpiffeId::parse(name).map_err(|reason| wrong(&reason))?,
            ordered_at: i64::from_be_bytes(data.try_into().map_err(|reason| wrong(&reason))?),
        }),
        other => return Err(wrong(&format!("unknown kind {other}"))),
    })
}
