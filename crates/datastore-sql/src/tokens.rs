//! Join tokens: `join_tokens`.

use steeple_datastore::model::JoinToken;
use steeple_datastore::{Change, Result, validate};

use crate::changes::Tx;
use crate::conn::args;
use crate::time;

pub(crate) fn create(tx: &mut Tx<'_>, token: &JoinToken, now: i64) -> Result<()> {
    validate::new_join_token(&token.token, token.expires_at)?;
    let stamp = time::to_text(now);
    tx.conn.exec(
        "INSERT INTO join_tokens (created_at, updated_at, token, expiry) VALUES (?, ?, ?, ?)",
        &args![&stamp, &stamp, &token.token, token.expires_at],
    )?;
    tx.changed(Change::Other);
    Ok(())
}

/// Single use: who deletes the row has the token.
pub(crate) fn take(tx: &mut Tx<'_>, token: &str) -> Result<Option<JoinToken>> {
    let found =
        tx.conn.first("SELECT id, expiry FROM join_tokens WHERE token = ?", &args![token], |row| {
            Ok((row.int(0)?, row.int(1)?))
        })?;
    let Some((row, expires_at)) = found else {
        return Ok(None);
    };
    if tx.conn.exec("DELETE FROM join_tokens WHERE id = ?", &args![row])? != 1 {
        return Ok(None);
    }
    tx.changed(Change::Other);
    Ok(Some(JoinToken { token: token.to_owned(), expires_at }))
}

pub(crate) fn prune(tx: &mut Tx<'_>, before: i64) -> Result<u64> {
    let gone = tx.conn.exec("DELETE FROM join_tokens WHERE expiry < ?", &args![before])?;
    if gone > 0 {
        tx.changed(Change::Other);
    }
    Ok(gone)
}
