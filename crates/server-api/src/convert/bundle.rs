use steeple_datastore::BundleMask;
use steeple_proto::spire::api::types;
use steeple_spiffe::bundle::{Bundle, JwtAuthority, X509Authority};
use steeple_spiffe::{Certificate, PublicKey, TrustDomain};

use super::ConvertError;

pub fn bundle_to_proto(bundle: &Bundle) -> types::Bundle {
    types::Bundle {
        trust_domain: bundle.trust_domain.name().to_owned(),
        x509_authorities: bundle
            .x509_authorities
            .iter()
            .map(|a| types::X509Certificate { asn1: a.certificate.der().to_vec(), tainted: a.tainted })
            .collect(),
        jwt_authorities: jwt_authorities_to_proto(&bundle.jwt_authorities),
        refresh_hint: bundle.refresh_hint.unwrap_or(0),
        sequence_number: bundle.sequence_number,
        wit_authorities: bundle
            .wit_authorities
            .iter()
            .map(|a| types::WitKey {
                public_key: a.public_key.spki_der().to_vec(),
                key_id: a.key_id.clone(),
                expires_at: a.expires_at,
                tainted: a.tainted,
            })
            .collect(),
    }
}

pub fn jwt_authorities_to_proto(authorities: &[JwtAuthority]) -> Vec<types::JwtKey> {
    authorities
        .iter()
        .map(|a| types::JwtKey {
            public_key: a.public_key.spki_der().to_vec(),
            key_id: a.key_id.clone(),
            expires_at: a.expires_at,
            tainted: a.tainted,
        })
        .collect()
}

/// WIT authorities are ignored and nothing arrives tainted, as in SPIRE.
pub fn bundle_from_proto(bundle: &types::Bundle) -> Result<Bundle, ConvertError> {
    let mut out =
        Bundle::new(TrustDomain::new(&bundle.trust_domain).map_err(ConvertError::BundleTrustDomain)?);
    out.x509_authorities = x509_authorities_from_proto(&bundle.x509_authorities)
        .map_err(|e| ConvertError::BundleX509Authority(Box::new(e)))?;
    out.jwt_authorities = jwt_authorities_from_proto(&bundle.jwt_authorities)
        .map_err(|e| ConvertError::BundleJwtAuthority(Box::new(e)))?;
    out.refresh_hint = (bundle.refresh_hint != 0).then_some(bundle.refresh_hint);
    out.sequence_number = bundle.sequence_number;
    Ok(out)
}

/// One authority may hold several certificates back to back; each becomes its own (SPIRE keeps them together,
/// which its readers then split).
pub fn x509_authorities_from_proto(
    authorities: &[types::X509Certificate],
) -> Result<Vec<X509Authority>, ConvertError> {
    let mut out = Vec::with_capacity(authorities.len());
    for authority in authorities {
        let certificates = Certificate::many_from_der(&authority.asn1)
            .map_err(|e| ConvertError::X509Authority(e.to_string()))?;
        out.extend(certificates.into_iter().map(|certificate| X509Authority { certificate, tainted: false }));
    }
    Ok(out)
}

pub fn jwt_authorities_from_proto(keys: &[types::JwtKey]) -> Result<Vec<JwtAuthority>, ConvertError> {
    keys.iter()
        .map(|key| {
            let public_key = PublicKey::from_spki_der(&key.public_key)
                .map_err(|e| ConvertError::JwtAuthority(e.to_string()))?;
            if key.key_id.is_empty() {
                return Err(ConvertError::MissingKeyId);
            }
            Ok(JwtAuthority {
                key_id: key.key_id.clone(),
                public_key,
                expires_at: key.expires_at,
                tainted: false,
            })
        })
        .collect()
}

/// `None` = every part but WIT authorities, which this API does not take: those stored stay.
pub fn bundle_mask_from_proto(mask: Option<&types::BundleMask>) -> BundleMask {
    match mask {
        None => BundleMask {
            x509_authorities: true,
            jwt_authorities: true,
            refresh_hint: true,
            sequence_number: true,
            wit_authorities: false,
        },
        Some(mask) => BundleMask {
            x509_authorities: mask.x509_authorities,
            jwt_authorities: mask.jwt_authorities,
            refresh_hint: mask.refresh_hint,
            sequence_number: mask.sequence_number,
            wit_authorities: false,
        },
    }
}

/// Clears what the mask does not ask for.
pub fn apply_bundle_mask(bundle: &mut types::Bundle, mask: Option<&types::BundleMask>) {
    let Some(mask) = mask else { return };
    if !mask.x509_authorities {
        bundle.x509_authorities.clear();
    }
    if !mask.jwt_authorities {
        bundle.jwt_authorities.clear();
    }
    if !mask.refresh_hint {
        bundle.refresh_hint = 0;
    }
    if !mask.sequence_number {
        bundle.sequence_number = 0;
    }
    if !mask.wit_authorities {
        bundle.wit_authorities.clear();
    }
}
