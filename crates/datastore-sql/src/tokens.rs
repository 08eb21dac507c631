//! Join tokens: `join_tokens`.

use steeple_datastore::model::JoinToken;
use steeple_datastore::{Change, Result, validate};

use crate::changes::Tx;
use crate::conn::args;
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

/// Single use: who deletes the row has the token.
pub(crate) fn take(tx: &mut Tx<'_>, token: &str) -> Result<Option<JoinToken>> {
    let found =
        tx.conn.first("SELECT id, expiry, token FROM join_tokens WHERE token = ?", &args![token], |row| {
            // MySQL compares without regard to case.
            Ok((row.int(0)?, row.int(1)?, row.text(2)? == token))
        })?;
    let Some((row, expires_at, true)) = found else {
        return Ok(None);
    };
    if tx.conn.exec("DELETE FROM join_tokens WHERE id = ?", &args![row])? != 1 {
        return Ok(None);
    }
    tx.changed(Change::Other);
    Ok(Some(JoinToken { token: token.to_owned(), expires_at }))
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
