//! Federation relationships: `federated_trust_domains`, which names trust domains without `spiffe://`.

use steeple_datastore::{
    Change, EndpointProfile, FederationMask, FederationRelationship, Page, PageRequest, RefreshedBundle,
    Result, validate,
};
use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{SpiffeId, TrustDomain};

use crate::changes::Tx;
use crate::conn::{Conn, Row, args};
use crate::error::corrupt;
use crate::{bundles, time};

const COLUMNS: &str = "id, trust_domain, bundle_endpoint_url, bundle_endpoint_profile, endpoint_spiffe_id";

pub(crate) fn fetch(conn: &Conn, trust_domain: &TrustDomain) -> Result<Option<FederationRelationship>> {
    let Some((_, found)) = row_of(conn, trust_domain)? else { return Ok(None) };
    with_bundle(conn, found).map(Some)
}

fn row_of(conn: &Conn, trust_domain: &TrustDomain) -> Result<Option<(i64, FederationRelationship)>> {
    conn.first(
        &format!("SELECT {COLUMNS} FROM federated_trust_domains WHERE trust_domain = ?"),
        &args![trust_domain.name()],
        |row| Ok((row.int(0)?, read(row)?)),
    )
}

fn with_bundle(conn: &Conn, relationship: FederationRelationship) -> Result<FederationRelationship> {
    let bundle = bundles::fetch(conn, &relationship.trust_domain)?;
    Ok(FederationRelationship { bundle, ..relationship })
}

pub(crate) fn list(
    conn: &Conn,
    page: &PageRequest,
    with_bundles: bool,
) -> Result<Page<FederationRelationship>> {
    let limit = if page.size == 0 { i64::MAX as u64 - 1 } else { u64::from(page.size) };
    let (mut items, mut seen, mut last) = (Vec::new(), 0, 0);
    let mut next_token = String::new();
    conn.each(
        &format!("SELECT {COLUMNS} FROM federated_trust_domains WHERE id > ? ORDER BY id LIMIT ?"),
        &args![page.after()?, limit + 1],
        |row| {
            if seen == limit {
                next_token = i64::to_string(&last);
                return Ok(());
            }
            seen += 1;
            last = row.int(0)?;
            match read(row) {
                Ok(relationship) => items.push(relationship),
                // One bad row must not hide the others.
                Err(reason) => {
                    let trust_domain = row.text(1)?;
                    tracing::warn!(
                        subsystem_name = "sql",
                        trust_domain,
                        %reason,
                        "Ignoring federation relationship that cannot be read"
                    );
                }
            }
            Ok(())
        },
    )?;
    if with_bundles {
        items = items.into_iter().map(|found| with_bundle(conn, found)).collect::<Result<_>>()?;
    }
    Ok(Page { items, next_token })
}

pub(crate) fn create(
    tx: &mut Tx<'_>,
    relationship: FederationRelationship,
    now: i64,
) -> Result<FederationRelationship> {
    let name = relationship.trust_domain.name();
    let taken = tx.conn.first(
        "SELECT id FROM federated_trust_domains WHERE trust_domain = ?",
        &args![name],
        |row| row.int(0),
    )?;
    if taken.is_some() {
        return validate::taken("federated_trust_domains.trust_domain");
    }
    if let Some(bundle) = relationship.bundle.clone() {
        bundles::set(tx, bundle, now)?;
    }
    let stamp = time::stamp(now);
    tx.conn.exec(
        "INSERT INTO federated_trust_domains (created_at, updated_at, trust_domain, bundle_endpoint_url, \
         bundle_endpoint_profile, endpoint_spiffe_id, implicit) VALUES (?, ?, ?, ?, ?, ?, ?)",
        &args![
            stamp,
            stamp,
            name,
            &relationship.bundle_endpoint_url,
            relationship.profile.name(),
            endpoint_id(&relationship),
            false,
        ],
    )?;
    tx.changed(Change::Federation { trust_domain: relationship.trust_domain.clone() });
    Ok(relationship)
}

/// Empty where the profile has none, as SPIRE writes it.
fn endpoint_id(relationship: &FederationRelationship) -> &str {
    relationship.profile.endpoint_spiffe_id().map_or("", SpiffeId::as_str)
}

pub(crate) fn update(
    tx: &mut Tx<'_>,
    new: FederationRelationship,
    mask: FederationMask,
    now: i64,
) -> Result<Option<FederationRelationship>> {
    let Some((row, stored)) = row_of(tx.conn, &new.trust_domain)? else { return Ok(None) };
    if let Some(bundle) = new.bundle.filter(|_| mask.bundle) {
        bundles::set(tx, bundle, now)?;
    }
    let mut relationship = stored.clone();
    if mask.bundle_endpoint_url {
        relationship.bundle_endpoint_url = new.bundle_endpoint_url;
    }
    if mask.profile {
        relationship.profile = new.profile;
    }
    if relationship != stored {
        tx.conn.exec(
            "UPDATE federated_trust_domains SET updated_at = ?, bundle_endpoint_url = ?, \
             bundle_endpoint_profile = ?, endpoint_spiffe_id = ? WHERE id = ?",
            &args![
                time::stamp(now),
                &relationship.bundle_endpoint_url,
                relationship.profile.name(),
                endpoint_id(&relationship),
                row,
            ],
        )?;
        tx.changed(Change::Federation { trust_domain: relationship.trust_domain.clone() });
    }
    with_bundle(tx.conn, relationship).map(Some)
}

pub(crate) fn delete(tx: &mut Tx<'_>, trust_domain: &TrustDomain) -> Result<bool> {
    let gone = tx
        .conn
        .exec("DELETE FROM federated_trust_domains WHERE trust_domain = ?", &args![trust_domain.name()])?;
    if gone > 0 {
        tx.changed(Change::Federation { trust_domain: trust_domain.clone() });
    }
    Ok(gone > 0)
}

/// The comparison is part of the write: two servers that fetch at once never put an older bundle over a newer one.
pub(crate) fn refresh_bundle(tx: &mut Tx<'_>, fetched: Bundle, now: i64) -> Result<RefreshedBundle> {
    let stored = bundles::fetch(tx.conn, &fetched.trust_domain)?;
    let outcome = RefreshedBundle::of(stored.as_ref(), &fetched);
    if outcome == RefreshedBundle::Stored {
        bundles::set(tx, fetched, now)?;
    }
    Ok(outcome)
}

/// Reads [`COLUMNS`].
fn read(row: &Row<'_>) -> Result<FederationRelationship> {
    let name = row.text(1)?;
    let wrong = |reason: &dyn std::fmt::Display| corrupt("federation relationship", name, reason);
    let profile = match row.text(3)? {
        "https_web" => EndpointProfile::HttpsWeb,
        "https_spiffe" => EndpointProfile::HttpsSpiffe {
            endpoint_spiffe_id: SpiffeId::parse(row.text(4)?).map_err(|reason| wrong(&reason))?,
        },
        other => return Err(wrong(&format!("unknown bundle endpoint profile type {other:?}"))),
    };
    Ok(FederationRelationship {
        trust_domain: TrustDomain::new(name).map_err(|reason| wrong(&reason))?,
        bundle_endpoint_url: row.text(2)?.to_owned(),
        profile,
        bundle: None,
    })
}
