//! Tainting and revoking authorities of a stored bundle: pure functions that every implementation shares.

use steeple_spiffe::bundle::{Bundle, JwtAuthority};

use crate::error::{Error, Result};

/// Which authority, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityChange {
    pub kind: AuthorityKind,
    /// X.509: the subject key id in lowercase hex. JWT and WIT: the key id.
    pub id: String,
    pub action: AuthorityAction,
}

/// Lists of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityKind {
    X509,
    Jwt,
    Wit,
}

/// What becomes of an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityAction {
    /// Stays valid; whoever holds something it signed gets that replaced.
    Taint,
    /// Goes. Only a tainted one can.
    Revoke,
}

/// Carries out `change`; the sequence number rises by one. After an error nothing has changed.
pub fn change(bundle: &mut Bundle, change: &AuthorityChange) -> Result<()> {
    match change.kind {
        AuthorityKind::X509 => change_x509(bundle, change)?,
        AuthorityKind::Jwt => change_key(&mut bundle.jwt_authorities, change, "JWT")?,
        AuthorityKind::Wit => change_key(&mut bundle.wit_authorities, change, "WIT")?,
    }
    bundle.sequence_number += 1;
    Ok(())
}

/// SPIRE's refusals; every certificate with the subject key id is meant.
fn change_x509(bundle: &mut Bundle, change: &AuthorityChange) -> Result<()> {
    let is_meant = |authority: &steeple_spiffe::bundle::X509Authority| {
        authority.certificate.subject_key_id().is_some_and(|id| hex(&id) == change.id)
    };
    let meant: Vec<bool> = bundle.x509_authorities.iter().map(is_meant).collect();
    let tainted = |wanted: bool| {
        bundle
            .x509_authorities
            .iter()
            .zip(&meant)
            .any(|(authority, meant)| *meant && authority.tainted == wanted)
    };
    let found = meant.contains(&true);
    match change.action {
        AuthorityAction::Taint => {
            check(found, "no ca found with provided subject key ID")?;
            check(!tainted(true), "root CA is already tainted")?;
            for (authority, _) in bundle.x509_authorities.iter_mut().zip(&meant).filter(|(_, meant)| **meant)
            {
                authority.tainted = true;
            }
        }
        AuthorityAction::Revoke => {
            check(found, "no root CA found with provided subject key ID")?;
            check(!tainted(false), "it is not possible to revoke an untainted root CA")?;
            let mut meant = meant.into_iter();
            bundle.x509_authorities.retain(|_| !meant.next().unwrap_or(false));
        }
    }
    Ok(())
}

fn change_key(keys: &mut Vec<JwtAuthority>, change: &AuthorityChange, kind: &str) -> Result<()> {
    let mut found = keys.iter_mut().filter(|key| key.key_id == change.id);
    let Some(key) = found.next() else {
        return Err(Error::Authority(format!("no {kind} Key found with provided key ID")));
    };
    match change.action {
        AuthorityAction::Taint => {
            check(!key.tainted, "key is already tainted")?;
            key.tainted = true;
        }
        AuthorityAction::Revoke => {
            check(key.tainted, "it is not possible to revoke an untainted key")?;
            keys.retain(|key| key.key_id != change.id);
        }
    }
    Ok(())
}

fn check(holds: bool, refusal: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Authority(refusal.to_owned())) }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
