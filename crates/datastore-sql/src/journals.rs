//! CA journals: `ca_journals`, one row for each server on the database.

use steeple_datastore::model::CaJournal;
use steeple_datastore::{Change, Error, Result};

use crate::changes::Tx;
use crate::conn::{Conn, args};
use crate::time;

pub(crate) fn list(conn: &Conn) -> Result<Vec<CaJournal>> {
    conn.rows(
        "SELECT id, data, active_x509_authority_id, active_jwt_authority_id FROM ca_journals ORDER BY id",
        &[],
        |row| {
            Ok(CaJournal {
                id: row.int(0)? as u64,
                data: row.blob(1)?.to_vec(),
                active_x509_authority_id: row.text(2)?.to_owned(),
                active_jwt_authority_id: row.text(3)?.to_owned(),
            })
        },
    )
}

pub(crate) fn put(tx: &mut Tx<'_>, mut journal: CaJournal, now: i64) -> Result<CaJournal> {
    let stamp = time::stamp(now);
    if journal.id == 0 {
        let row = tx.conn.insert(
            "INSERT INTO ca_journals (created_at, updated_at, data, active_x509_authority_id, \
             active_jwt_authority_id) VALUES (?, ?, ?, ?, ?)",
            &args![
                stamp,
                stamp,
                journal.data.as_slice(),
                &journal.active_x509_authority_id,
                &journal.active_jwt_authority_id,
            ],
        )?;
        journal.id = row as u64;
    } else {
        let updated = tx.conn.exec(
            "UPDATE ca_journals SET updated_at = ?, data = ?, active_x509_authority_id = ?, \
             active_jwt_authority_id = ? WHERE id = ?",
            &args![
                stamp,
                journal.data.as_slice(),
                &journal.active_x509_authority_id,
                &journal.active_jwt_authority_id,
                journal.id,
            ],
        )?;
        if updated == 0 {
            return Err(Error::NotFound("record not found".into()));
        }
    }
    tx.changed(Change::Other);
    Ok(journal)
}

pub(crate) fn delete(tx: &mut Tx<'_>, id: u64) -> Result<()> {
    if tx.conn.exec("DELETE FROM ca_journals WHERE id = ?", &args![id])? > 0 {
        tx.changed(Change::Other);
    }
    Ok(())
}
