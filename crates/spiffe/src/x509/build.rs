//! Writing certificates and requests byte for byte as SPIRE's Go code does: `*_tbs` makes the bytes to be
//! signed, the caller has them signed (by a local key, a KMS or an HSM), [`assemble`] joins the two.

use aws_lc_rs::rand;

use super::{Certificate, DistinguishedName, X509Error};
use crate::UnixTime;
use crate::der::{self, Writer};
use crate::id::{IdError, MAX_ID_LEN, SpiffeId, TrustDomain};
use crate::key::{KeyError, PublicKey, SignatureAlgorithm};

/// A certificate serial number, 1 to 2^128 − 1. Displays in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SerialNumber(u128);

impl SerialNumber {
    /// `None` for zero (RFC 5280 §4.1.2.2).
    pub fn new(serial: u128) -> Option<Self> {
        (serial != 0).then_some(Self(serial))
    }

    pub fn random() -> Result<Self, KeyError> {
        loop {
            let mut bytes = [0; 16];
            rand::fill(&mut bytes).map_err(|_| KeyError::GenerationFailed)?;
            if let Some(serial) = Self::new(u128::from_be_bytes(bytes)) {
                return Ok(serial);
            }
        }
    }
}

impl std::fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What goes into a workload, agent or server certificate.
#[derive(Debug, Clone)]
pub struct LeafTemplate {
    pub spiffe_id: SpiffeId,
    pub public_key: PublicKey,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    /// DNS SANs, in this order. The first one becomes the common name, as in SPIRE. Callers check them with
    /// [`super::validate_dns_name`].
    pub dns_names: Vec<String>,
    /// `None` is `C=US, O=SPIRE`.
    pub subject: Option<DistinguishedName>,
    pub serial: SerialNumber,
}

/// What goes into a signing certificate.
#[derive(Debug, Clone)]
pub struct CaTemplate {
    pub trust_domain: TrustDomain,
    pub public_key: PublicKey,
    /// Taken as it is. SPIRE adds a serialNumber attribute with the certificate's serial in decimal.
    pub subject: DistinguishedName,
    pub not_before: UnixTime,
    pub not_after: UnixTime,
    pub serial: SerialNumber,
}

/// Whose name and key identifier go into certificates, and what they are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// The issuer's subject as it is in its own certificate.
    pub subject_der: Vec<u8>,
    /// The issuer's subject key identifier; empty leaves the authority key identifier out.
    pub key_id: Vec<u8>,
    pub algorithm: SignatureAlgorithm,
}

impl Issuer {
    pub fn from_certificate(ca: &Certificate, algorithm: SignatureAlgorithm) -> Self {
        Self {
            subject_der: ca.subject_der().to_vec(),
            key_id: ca.subject_key_id().unwrap_or_default(),
            algorithm,
        }
    }
}

/// The bytes of an X509-SVID to be signed. Refuses an ID without a path (X509-SVID §3.1) and one longer than
/// 2048 bytes (SPIFFE-ID §2.3).
pub fn leaf_tbs(template: &LeafTemplate, issuer: &Issuer) -> Result<Vec<u8>, X509Error> {
    if template.spiffe_id.path().is_empty() {
        return Err(X509Error::RootPath);
    }
    if template.spiffe_id.as_str().len() > MAX_ID_LEN {
        return Err(IdError::TooLong.into());
    }
    let default_subject = template.subject.is_none() && template.dns_names.is_empty();
    let subject_der = if default_subject {
        DEFAULT_SVID_SUBJECT.to_vec()
    } else {
        let mut subject = template.subject.clone().unwrap_or_else(DistinguishedName::default_svid);
        if let Some(first) = template.dns_names.first() {
            subject.common_name.clone_from(first);
        }
        subject.to_der()
    };
    let parts = Parts {
        serial: template.serial,
        issuer_der: &issuer.subject_der,
        algorithm: issuer.algorithm,
        not_before: template.not_before,
        not_after: template.not_after,
        subject_der: &subject_der,
        public_key: &template.public_key,
    };
    tbs(&parts, |w| {
        w.raw(LEAF_KEY_USAGE);
        w.raw(LEAF_EXTENDED_KEY_USAGE);
        w.raw(LEAF_BASIC_CONSTRAINTS);
        subject_key_id(w, &template.public_key);
        authority_key_id(w, &issuer.key_id);
        // RFC 5280 §4.1.2.6: critical when it is the only name.
        let critical = subject_der == EMPTY_NAME;
        subject_alt_name(w, critical, &template.dns_names, &[template.spiffe_id.as_str()]);
    })
}

/// The bytes of a self-signed CA certificate to be signed.
pub fn ca_tbs_self_signed(
    template: &CaTemplate,
    algorithm: SignatureAlgorithm,
) -> Result<Vec<u8>, X509Error> {
    let subject_der = template.subject.to_der();
    ca_tbs_by(
        template,
        &Issuer { subject_der: subject_der.clone(), key_id: Vec::new(), algorithm },
        &subject_der,
    )
}

/// The bytes of an intermediate CA certificate to be signed by `issuer`.
pub fn ca_tbs(template: &CaTemplate, issuer: &Issuer) -> Result<Vec<u8>, X509Error> {
    ca_tbs_by(template, issuer, &template.subject.to_der())
}

fn ca_tbs_by(template: &CaTemplate, issuer: &Issuer, subject_der: &[u8]) -> Result<Vec<u8>, X509Error> {
    let parts = Parts {
        serial: template.serial,
        issuer_der: &issuer.subject_der,
        algorithm: issuer.algorithm,
        not_before: template.not_before,
        not_after: template.not_after,
        subject_der,
        public_key: &template.public_key,
    };
    tbs(&parts, |w| {
        w.raw(CA_KEY_USAGE);
        w.raw(CA_BASIC_CONSTRAINTS);
        subject_key_id(w, &template.public_key);
        authority_key_id(w, &issuer.key_id);
        subject_alt_name(w, subject_der == EMPTY_NAME, &[], &[template.trust_domain.as_id_str()]);
    })
}

/// The bytes of a PKCS#10 request to be signed by the key of `public_key`.
pub fn csr_tbs(
    subject: &DistinguishedName,
    public_key: &PublicKey,
    uri_sans: &[&str],
    dns_names: &[String],
) -> Vec<u8> {
    let subject_der = subject.to_der();
    let mut w = Writer::with_capacity(512);
    w.nested(der::SEQUENCE, |w| {
        w.unsigned(&[0]);
        w.raw(&subject_der);
        w.raw(public_key.spki_der());
        w.nested(der::context_constructed(0), |w| {
            if uri_sans.is_empty() && dns_names.is_empty() {
                return;
            }
            w.nested(der::SEQUENCE, |w| {
                w.value(der::OID, OID_EXTENSION_REQUEST);
                w.nested(der::SET, |w| {
                    w.nested(der::SEQUENCE, |w| {
                        subject_alt_name(w, subject_der == EMPTY_NAME, dns_names, uri_sans);
                    });
                });
            });
        });
    });
    w.finish()
}

/// Joins signed bytes and their signature (ECDSA in ASN.1 form) to a certificate or request in DER.
pub fn assemble(tbs: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) -> Vec<u8> {
    let mut w = Writer::with_capacity(tbs.len() + signature.len() + 32);
    w.nested(der::SEQUENCE, |w| {
        w.raw(tbs);
        w.raw(algorithm.x509_identifier());
        w.bit_string(signature);
    });
    w.finish()
}

struct Parts<'a> {
    serial: SerialNumber,
    issuer_der: &'a [u8],
    algorithm: SignatureAlgorithm,
    not_before: UnixTime,
    not_after: UnixTime,
    subject_der: &'a [u8],
    public_key: &'a PublicKey,
}

fn tbs(parts: &Parts<'_>, extensions: impl FnOnce(&mut Writer)) -> Result<Vec<u8>, X509Error> {
    if parts.not_after < parts.not_before {
        return Err(X509Error::EmptyValidity);
    }
    let mut w = Writer::with_capacity(640);
    w.nested(der::SEQUENCE, |w| {
        w.raw(VERSION_3);
        w.unsigned(&parts.serial.0.to_be_bytes());
        w.raw(parts.algorithm.x509_identifier());
        w.raw(parts.issuer_der);
        w.nested(der::SEQUENCE, |w| {
            w.time(parts.not_before);
            w.time(parts.not_after);
        });
        w.raw(parts.subject_der);
        w.raw(parts.public_key.spki_der());
        w.nested(der::context_constructed(3), |w| w.nested(der::SEQUENCE, extensions));
    });
    Ok(w.finish())
}

fn subject_key_id(w: &mut Writer, key: &PublicKey) {
    w.nested(der::SEQUENCE, |w| {
        w.value(der::OID, &[0x55, 0x1d, 0x0e]);
        w.nested(der::OCTET_STRING, |w| w.value(der::OCTET_STRING, &key.subject_key_id()));
    });
}

fn authority_key_id(w: &mut Writer, key_id: &[u8]) {
    if key_id.is_empty() {
        return;
    }
    w.nested(der::SEQUENCE, |w| {
        w.value(der::OID, &[0x55, 0x1d, 0x23]);
        w.nested(der::OCTET_STRING, |w| {
            w.nested(der::SEQUENCE, |w| w.value(der::context(0), key_id));
        });
    });
}

/// DNS names first, then URIs: Go's order.
fn subject_alt_name(w: &mut Writer, critical: bool, dns_names: &[String], uris: &[&str]) {
    w.nested(der::SEQUENCE, |w| {
        w.value(der::OID, &[0x55, 0x1d, 0x11]);
        if critical {
            w.value(der::BOOLEAN, &[0xff]);
        }
        w.nested(der::OCTET_STRING, |w| {
            w.nested(der::SEQUENCE, |w| {
                for name in dns_names {
                    w.value(der::context(2), name.as_bytes());
                }
                for uri in uris {
                    w.value(der::context(6), uri.as_bytes());
                }
            });
        });
    });
}

const VERSION_3: &[u8] = &[0xa0, 0x03, 0x02, 0x01, 0x02];
const EMPTY_NAME: &[u8] = &[0x30, 0x00];
/// C=US, O=SPIRE
const DEFAULT_SVID_SUBJECT: &[u8] = b"\x30\x1d\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02US\
    \x31\x0e\x30\x0c\x06\x03\x55\x04\x0a\x13\x05SPIRE";
const OID_EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];

/// Critical: digitalSignature, keyEncipherment, keyAgreement (X509-SVID §4.3).
const LEAF_KEY_USAGE: &[u8] =
    &[0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x03, 0xa8];
/// serverAuth, clientAuth (X509-SVID §4.4).
const LEAF_EXTENDED_KEY_USAGE: &[u8] = &[
    0x30, 0x1d, 0x06, 0x03, 0x55, 0x1d, 0x25, 0x04, 0x16, 0x30, 0x14, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05,
    0x05, 0x07, 0x03, 0x01, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02,
];
/// Critical: CA false (X509-SVID §4.1).
const LEAF_BASIC_CONSTRAINTS: &[u8] =
    &[0x30, 0x0c, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x02, 0x30, 0x00];
/// Critical: keyCertSign, cRLSign (X509-SVID §4.3).
const CA_KEY_USAGE: &[u8] =
    &[0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x01, 0x06];
/// Critical: CA true, no path length (X509-SVID §4.1).
const CA_BASIC_CONSTRAINTS: &[u8] =
    &[0x30, 0x0f, 0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff, 0x04, 0x05, 0x30, 0x03, 0x01, 0x01, 0xff];

#[cfg(test)]
mod tests;
