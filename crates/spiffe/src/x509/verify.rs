//! Validation of X509-SVIDs (X509-SVID §5).

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;
use std::time::Duration;

use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime as PkiTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, VerifiedPath};

use super::certificate::Constraints;
use super::{Certificate, X509Error, path};
use crate::UnixTime;
use crate::bundle::Bundle;
use crate::id::{SpiffeId, TrustDomain};
use crate::text::quote;

/// Why a peer's certificates are no valid X509-SVID. The texts are go-spiffe's where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("empty certificates chain")]
    EmptyChain,
    #[error("could not get leaf SPIFFE ID: {0}")]
    LeafId(X509Error),
    #[error("{0}")]
    Leaf(X509Error),
    #[error("could not get X509 bundle: no X.509 bundle for trust domain {}", quote(.0))]
    NoBundle(String),
    /// The trust domain has no authority that could have signed anything now.
    #[error("could not verify leaf certificate: certificate signed by unknown authority: {0}")]
    NoAuthority(&'static str),
    #[error("could not verify leaf certificate: {0}")]
    Path(String),
    #[error("could not verify leaf certificate: certificate has expired or is not yet valid: {0}")]
    NotValidNow(&'static str),
}

/// Where the authorities of a trust domain are looked up. Authorities of several trust domains are never
/// pooled (SPIFFE Trust Domain and Bundle §3).
pub trait X509BundleSource {
    /// `None` when nothing is known of the trust domain.
    fn x509_authorities(&self, trust_domain: &TrustDomain) -> Option<Vec<Certificate>>;
}

impl X509BundleSource for Bundle {
    fn x509_authorities(&self, trust_domain: &TrustDomain) -> Option<Vec<Certificate>> {
        (self.trust_domain == *trust_domain)
            .then(|| self.x509_authorities.iter().map(|authority| authority.certificate.clone()).collect())
    }
}

impl X509BundleSource for [Bundle] {
    fn x509_authorities(&self, trust_domain: &TrustDomain) -> Option<Vec<Certificate>> {
        self.iter().find_map(|bundle| bundle.x509_authorities(trust_domain))
    }
}

impl<S: BuildHasher> X509BundleSource for HashMap<TrustDomain, Bundle, S> {
    fn x509_authorities(&self, trust_domain: &TrustDomain) -> Option<Vec<Certificate>> {
        self.get(trust_domain)?.x509_authorities(trust_domain)
    }
}

impl X509BundleSource for BTreeMap<TrustDomain, Bundle> {
    fn x509_authorities(&self, trust_domain: &TrustDomain) -> Option<Vec<Certificate>> {
        self.get(trust_domain)?.x509_authorities(trust_domain)
    }
}

/// Authorities of one trust domain.
impl X509BundleSource for (TrustDomain, Vec<Certificate>) {
    fn x509_authorities(&self, trust_domain: &TrustDomain) -> Option<Vec<Certificate>> {
        (self.0 == *trust_domain).then(|| self.1.clone())
    }
}

/// Validates a peer's chain, leaf first, and returns its ID: leaf rules (X509-SVID §5.2), then RFC 5280 path
/// validation against the authorities of the ID's own trust domain (§5.1). As in Go an authority that has
/// expired validates nothing, and any extended key usage is accepted.
pub fn verify_svid<B: X509BundleSource + ?Sized>(
    chain: &[Certificate],
    bundles: &B,
    now: UnixTime,
) -> Result<SpiffeId, VerifyError> {
    let Some((leaf, intermediates)) = chain.split_first() else {
        return Err(VerifyError::EmptyChain);
    };
    leaf.spiffe_id().map_err(VerifyError::LeafId)?;
    let id = check_leaf(leaf).map_err(VerifyError::Leaf)?;
    let trust_domain = id.trust_domain();
    let authorities = bundles
        .x509_authorities(&trust_domain)
        .ok_or_else(|| VerifyError::NoBundle(trust_domain.name().to_owned()))?;
    if authorities.is_empty() {
        return Err(VerifyError::NoAuthority("the bundle has no X.509 authorities"));
    }
    let roots: Vec<_> = authorities.iter().filter(|root| path::may_sign(root, now)).collect();
    if roots.is_empty() {
        return Err(VerifyError::NoAuthority(
            "all X.509 authorities are expired or not yet valid, or no CAs",
        ));
    }
    let signers: Vec<_> = intermediates.iter().filter(|signer| path::may_sign(signer, now)).collect();
    // webpki refuses every chain with a URI name constraint, which SPIFFE foresees (X509-SVID §4.2).
    let constrained = signers
        .iter()
        .chain(&roots)
        .any(|ca| ca.extensions().name_constraints.as_ref().is_some_and(Constraints::has_uris));
    if constrained {
        path::verify(leaf, &signers, &roots, now)?;
    } else {
        verify_with_webpki(leaf, &signers, &roots, now)?;
    }
    Ok(id)
}

/// The rules for leaves of X509-SVID §5.2, and §3.1: one URI SAN, scheme `spiffe`, an ID with a path, no CA
/// flag, neither keyCertSign nor cRLSign. Errors have go-spiffe's texts.
pub fn check_leaf(leaf: &Certificate) -> Result<SpiffeId, X509Error> {
    let id = leaf.spiffe_id()?;
    if leaf.is_ca() {
        return Err(X509Error::NotAnSvid("leaf certificate with CA flag set to true"));
    }
    if let Some(usage) = leaf.key_usage() {
        if usage.cert_sign() {
            return Err(X509Error::NotAnSvid("leaf certificate with KeyCertSign key usage"));
        }
        if usage.crl_sign() {
            return Err(X509Error::NotAnSvid("leaf certificate with KeyCrlSign key usage"));
        }
    }
    if id.path().is_empty() {
        return Err(X509Error::RootPath);
    }
    Ok(id)
}

fn verify_with_webpki(
    leaf: &Certificate,
    signers: &[&Certificate],
    roots: &[&Certificate],
    now: UnixTime,
) -> Result<(), VerifyError> {
    let path_error = |e: webpki::Error| match e {
        webpki::Error::CertExpired { .. } => VerifyError::NotValidNow("expired"),
        webpki::Error::CertNotValidYet { .. } => VerifyError::NotValidNow("not yet valid"),
        webpki::Error::UnknownIssuer => VerifyError::NoAuthority("no chain to an X.509 authority"),
        // All servers' authorities have the same subject by default: a key of its own tells them apart (as in Go).
        webpki::Error::InvalidSignatureForPublicKey => {
            VerifyError::NoAuthority("an X.509 authority has the issuer's name, but another key signed")
        }
        e => VerifyError::Path(format!("{e:?}")),
    };
    let leaf_der = CertificateDer::from(leaf.der());
    let end_entity = EndEntityCert::try_from(&leaf_der).map_err(path_error)?;
    let signers: Vec<_> = signers.iter().map(|signer| CertificateDer::from(signer.der())).collect();
    let root_ders: Vec<_> = roots.iter().map(|root| CertificateDer::from(root.der())).collect();
    // An authority webpki cannot read signs nothing; the others still do.
    let anchors: Vec<TrustAnchor<'_>> =
        root_ders.iter().filter_map(|root| webpki::anchor_from_trusted_cert(root).ok()).collect();
    // webpki does not look at the path length of anchors, Go does.
    let allowed_by_root = |path: &VerifiedPath<'_>| {
        let key = webpki::spki_for_anchor(path.anchor());
        let length = path.intermediate_certificates().filter(|ca| ca.subject() != ca.issuer()).count();
        let mut anchors = roots.iter().filter(|root| root.public_key().spki_der() == key.as_ref());
        if anchors.any(|root| root.max_path_len().is_none_or(|max| length <= max as usize)) {
            return Ok(());
        }
        Err(webpki::Error::PathLenConstraintViolated)
    };
    let seconds = u64::try_from(now).map_err(|_| VerifyError::NotValidNow("the time is before 1970"))?;
    end_entity
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &signers,
            PkiTime::since_unix_epoch(Duration::from_secs(seconds)),
            AnyUsage,
            None,
            Some(&allowed_by_root),
        )
        .map_err(path_error)?;
    Ok(())
}

/// Go's ExtKeyUsageAny, which go-spiffe verifies with: X509-SVID asks validators for none.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
