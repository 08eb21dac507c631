//! Join tokens: `join_tokens`.

use steeple_datastore::model::JoinToken;
use steeple_datastore::{Change, Result, validate};

use crate::changes::Tx;
use crate::conn::{Conn, args};
use crate::error::taken;
use crate::time;

pub(crate) fn create(tx: &mut Tx<'_>, token: &JoinToken, now: i64) -> Result<()> {
    validate::new_join_token(&token.token, token.expires_at)?;
    let stamp = time::stamp(now);
    let inserted = tx.conn.exec(
        "INSERT INTO join_tokens (created_at, updated_at, token, expiry) VALUES (?, ?, ?, ?)",
        &args![stamp, stamp, &token.token, token.expires_at],
    );
    taken(inserted, "join_tokens.token")?;
    tx.changed(Change::Other);
    Ok(())
}

pub(crate) fn fetch(conn: &Conn, token: &str) -> Result<Option<JoinToken>> {
    Ok(find(conn, token)?.map(|(_, token)| token))
}

/// With its row.
fn find(conn: &Conn, token: &str) -> Result<Option<(i64, JoinToken)>> {
    let found =
        conn.first("SELECT id, expiry, token FROM join_tokens WHERE token = ?", &args![token], |row| {
            Ok((row.int(0)?, JoinToken { token: row.text(2)?.to_owned(), expires_at: row.int(1)? }))
        })?;
    // MySQL compares without regard to case.
    Ok(found.filter(|(_, found)| found.token == token))
}

/// Single use: who deletes the row has the token.
pub(crate) fn take(tx: &mut Tx<'_>, token: &str) -> Result<Option<JoinToken>> {
    let Some((row, found)) = find(tx.conn, token)? else {
        return Ok(None);
    };
    if tx.conn.exec("DELETE FROM join_tokens WHERE id = ?", &args![row])? != 1 {
        return Ok(None);
    }
    tx.changed(Change::Other);
    Ok(Some(found))
}

/// Deletes some of the tokens that expired before `before`; returns how many.
pub(crate) fn prune_batch(tx: &mut Tx<'_>, before: i64, limit: u64) -> Result<u64> {
    let expired = tx.conn.rows(
        "SELECT id FROM join_tokens WHERE expiry < ? ORDER BY id LIMIT ?",
        &args![before, limit],
        |row| row.int(0),
    )?;
    for row in &expired {
        tx.conn.exec("DELETE FROM join_tokens WHERE id = ?", &args![*row])?;
    }
    if !expired.is_empty() {
        tx.changed(Change::Other);
    }
    Ok(expired.len() as u64)
}
