//! Bundles: `bundles`, whose blob is SPIRE's `spire.common.Bundle`.

use prost::Message;
use steeple_datastore::authority;
use steeple_datastore::merge::{self, Pruned};
use steeple_datastore::{
    AuthorityChange, BundleDeleteMode, BundleMask, Change, Error, Page, PageRequest, PrunedBundle, Result,
};
use steeple_proto::spire::common;
use steeple_spiffe::bundle::{Bundle, JwtAuthority, X509Authority};
use steeple_spiffe::{Certificate, PublicKey, TrustDomain};

use crate::changes::Tx;
use crate::conn::{Conn, Row, args};
use crate::error::{corrupt, taken};
use crate::{entries, foreign, time};

pub(crate) fn fetch(conn: &Conn, trust_domain: &TrustDomain) -> Result<Option<Bundle>> {
    conn.first(
        "SELECT trust_domain, data FROM bundles WHERE trust_domain = ?",
        &args![trust_domain.as_id_str()],
        read,
    )
}

pub(crate) fn list(conn: &Conn, page: &PageRequest) -> Result<Page<Bundle>> {
    let limit = if page.size == 0 { i64::MAX as u64 - 1 } else { u64::from(page.size) };
    let (mut items, mut seen, mut last) = (Vec::new(), 0, 0);
    let mut next_token = String::new();
    conn.each(
        "SELECT trust_domain, data, id FROM bundles WHERE id > ? ORDER BY id LIMIT ?",
        &args![page.after()?, limit + 1],
        |row| {
            if seen == limit {
                next_token = i64::to_string(&last);
                return Ok(());
            }
            seen += 1;
            last = row.int(2)?;
            match read(row) {
                Ok(bundle) => items.push(bundle),
                // One bad row must not hide the others.
                Err(reason) => {
                    let trust_domain_id = row.text(0)?;
                    tracing::warn!(subsystem_name = "sql", trust_domain_id, %reason, "Stored bundle is left out");
                }
            }
            Ok(())
        },
    )?;
    Ok(Page { items, next_token })
}

pub(crate) fn count(conn: &Conn) -> Result<u64> {
    Ok(conn.first("SELECT COUNT(*) FROM bundles", &[], |row| row.int(0))?.unwrap_or_default() as u64)
}

pub(crate) fn create(tx: &mut Tx<'_>, bundle: Bundle, now: i64) -> Result<Bundle> {
    let stamp = time::stamp(now);
    let inserted = tx.conn.exec(
        "INSERT INTO bundles (created_at, updated_at, trust_domain, data) VALUES (?, ?, ?, ?)",
        &args![stamp, stamp, bundle.trust_domain.as_id_str(), encode(&bundle).as_slice()],
    );
    taken(inserted, "bundles.trust_domain")?;
    changed(tx, &bundle)?;
    Ok(bundle)
}

/// Runs `change` on a stored bundle and writes it if something came of it.
fn modify<T>(
    tx: &mut Tx<'_>,
    trust_domain: &TrustDomain,
    now: i64,
    change: impl FnOnce(&mut Bundle) -> T,
) -> Result<Option<(Bundle, T)>> {
    let lock = tx.conn.dialect().for_update();
    let sql = format!("SELECT trust_domain, data FROM bundles WHERE trust_domain = ?{lock}");
    let Some(stored) = tx.conn.first(&sql, &args![trust_domain.as_id_str()], read)? else {
        return Ok(None);
    };
    let mut bundle = stored.clone();
    let result = change(&mut bundle);
    if bundle != stored {
        tx.conn.exec(
            "UPDATE bundles SET updated_at = ?, data = ? WHERE trust_domain = ?",
            &args![time::stamp(now), encode(&bundle).as_slice(), trust_domain.as_id_str()],
        )?;
        changed(tx, &bundle)?;
    }
    Ok(Some((bundle, result)))
}

fn changed(tx: &mut Tx<'_>, bundle: &Bundle) -> Result<()> {
    foreign::mark(tx.conn, bundle.trust_domain.as_id_str())?;
    tx.changed(Change::bundle_set(bundle));
    Ok(())
}

pub(crate) fn update(tx: &mut Tx<'_>, new: Bundle, mask: BundleMask, now: i64) -> Result<Option<Bundle>> {
    let trust_domain = new.trust_domain.clone();
    let updated = modify(tx, &trust_domain, now, |bundle| merge::update_bundle(bundle, new, mask))?;
    Ok(updated.map(|(bundle, ())| bundle))
}

pub(crate) fn set(tx: &mut Tx<'_>, bundle: Bundle, now: i64) -> Result<Bundle> {
    match update(tx, bundle.clone(), BundleMask::ALL, now)? {
        Some(stored) => Ok(stored),
        None => create(tx, bundle, now),
    }
}

pub(crate) fn append(tx: &mut Tx<'_>, new: Bundle, now: i64) -> Result<Bundle> {
    let added = new.clone();
    match modify(tx, &new.trust_domain, now, |bundle| merge::append_bundle(bundle, added))? {
        Some((bundle, _)) => Ok(bundle),
        None => create(tx, new, now),
    }
}

pub(crate) fn prune(
    tx: &mut Tx<'_>,
    trust_domain: &TrustDomain,
    before: i64,
    now: i64,
) -> Result<PrunedBundle> {
    let pruned = modify(tx, trust_domain, now, |bundle| merge::prune_bundle(bundle, before))?;
    let pruned = pruned.map_or(Pruned::Unchanged, |(_, pruned)| pruned);
    if pruned == Pruned::Refused {
        tracing::warn!(
            subsystem_name = "sql",
            trust_domain_id = trust_domain.as_id_str(),
            "Pruning halted; all known authorities of one kind have expired"
        );
    }
    Ok(PrunedBundle { changed: pruned == Pruned::Changed })
}

pub(crate) fn change_authority(
    tx: &mut Tx<'_>,
    trust_domain: &TrustDomain,
    change: &AuthorityChange,
    now: i64,
) -> Result<Option<Bundle>> {
    match modify(tx, trust_domain, now, |bundle| authority::change(bundle, change))? {
        Some((bundle, outcome)) => outcome.map(|()| Some(bundle)),
        None => Ok(None),
    }
}

/// What a transaction of a deletion came to.
pub(crate) enum Deleted {
    /// There is no such bundle.
    Nothing,
    /// Some of the entries that federate with it are done; go on.
    Some,
    All(Bundle),
}

/// Entries of a deleted bundle that are changed in one transaction.
const DELETE_BATCH: i64 = 1000;

pub(crate) fn delete_batch(
    tx: &mut Tx<'_>,
    trust_domain: &TrustDomain,
    mode: BundleDeleteMode,
) -> Result<Deleted> {
    let name = trust_domain.as_id_str();
    let found = tx.conn.first(
        "SELECT trust_domain, data, id FROM bundles WHERE trust_domain = ?",
        &args![name],
        |row| Ok((row.int(2)?, read(row)?)),
    )?;
    let Some((row, bundle)) = found else {
        return Ok(Deleted::Nothing);
    };
    let of = "FROM federated_registration_entries F INNER JOIN registered_entries E \
              ON E.id = F.registered_entry_id WHERE F.bundle_id = ?";
    if mode == BundleDeleteMode::Restrict {
        let count = tx.conn.first(&format!("SELECT COUNT(*) {of}"), &args![row], |row| row.int(0))?;
        if let Some(count) = count.filter(|count| *count > 0) {
            return Err(Error::FailedPrecondition(format!(
                "cannot delete bundle; federated with {count} registration entries"
            )));
        }
    }
    let federated = tx.conn.rows(
        &format!("SELECT E.id, E.entry_id {of} ORDER BY E.id LIMIT ?"),
        &args![row, DELETE_BATCH],
        |row| Ok((row.int(0)?, row.text(1)?.to_owned())),
    )?;
    let more = federated.len() as i64 == DELETE_BATCH;
    if mode == BundleDeleteMode::Delete {
        entries::delete_rows(tx, &federated)?;
    } else {
        for (_, id) in &federated {
            entries::dissociate(tx, id, trust_domain, row)?;
        }
    }
    if more {
        return Ok(Deleted::Some);
    }
    // Links whose entry is gone already.
    tx.conn.exec("DELETE FROM federated_registration_entries WHERE bundle_id = ?", &args![row])?;
    tx.conn.exec("DELETE FROM bundles WHERE id = ?", &args![row])?;
    tx.conn.exec("DELETE FROM steeple_bundle_marks WHERE trust_domain = ?", &args![name])?;
    tx.changed(Change::BundleGone { trust_domain: trust_domain.clone() });
    Ok(Deleted::All(bundle))
}

/// Reads `trust_domain, data`.
fn read(row: &Row<'_>) -> Result<Bundle> {
    let name = row.text(0)?;
    decode(name, row.blob(1)?).map_err(|reason| corrupt("bundle", name, reason))
}

fn encode(bundle: &Bundle) -> Vec<u8> {
    let message = common::Bundle {
        trust_domain_id: bundle.trust_domain.id_string(),
        root_cas: bundle
            .x509_authorities
            .iter()
            .map(|authority| common::Certificate {
                der_bytes: authority.certificate.der().to_vec(),
                tainted_key: authority.tainted,
            })
            .collect(),
        jwt_signing_keys: bundle.jwt_authorities.iter().map(key_message).collect(),
        refresh_hint: bundle.refresh_hint.unwrap_or_default(),
        sequence_number: bundle.sequence_number,
        wit_signing_keys: bundle.wit_authorities.iter().map(key_message).collect(),
    };
    message.encode_to_vec()
}

fn key_message(key: &JwtAuthority) -> common::PublicKey {
    common::PublicKey {
        pkix_bytes: key.public_key.spki_der().to_vec(),
        kid: key.key_id.clone(),
        not_after: key.expires_at,
        tainted_key: key.tainted,
    }
}

fn decode(name: &str, data: &[u8]) -> std::result::Result<Bundle, String> {
    let message = common::Bundle::decode(data).map_err(|reason| reason.to_string())?;
    let mut bundle = Bundle::new(TrustDomain::new(name).map_err(|reason| reason.to_string())?);
    for root in message.root_cas {
        // SPIRE allows several certificates in one authority.
        let certificates =
            Certificate::many_from_der(&root.der_bytes).map_err(|reason| reason.to_string())?;
        bundle.x509_authorities.extend(
            certificates
                .into_iter()
                .map(|certificate| X509Authority { certificate, tainted: root.tainted_key }),
        );
    }
    bundle.jwt_authorities = keys(message.jwt_signing_keys)?;
    bundle.wit_authorities = keys(message.wit_signing_keys)?;
    bundle.refresh_hint = (message.refresh_hint != 0).then_some(message.refresh_hint);
    bundle.sequence_number = message.sequence_number;
    Ok(bundle)
}

fn keys(messages: Vec<common::PublicKey>) -> std::result::Result<Vec<JwtAuthority>, String> {
    messages
        .into_iter()
        .map(|key| {
            Ok(JwtAuthority {
                public_key: PublicKey::from_spki_der(&key.pkix_bytes)
                    .map_err(|reason| format!("key {:?}: {reason}", key.kid))?,
                key_id: key.kid,
                expires_at: key.not_after,
                tainted: key.tainted_key,
            })
        })
        .collect()
}
