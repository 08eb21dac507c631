//! Reading certificates.

use std::fmt;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use x509_parser::extensions::{GeneralName, NameConstraints, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate, X509Extension};

use super::{DistinguishedName, X509Error};
use crate::der::{self, Reader};
use crate::id::SpiffeId;
use crate::key::{PublicKey, SignatureAlgorithm};
use crate::{UnixTime, pem};

/// A parsed certificate that owns its DER. Cheap to clone; equal when the DER is.
#[derive(Clone)]
pub struct Certificate(Arc<Fields>);

/// The keyUsage extension (RFC 5280 §4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage {
    bits: u16,
    pub critical: bool,
}

impl KeyUsage {
    pub fn digital_signature(self) -> bool {
        self.bits & 1 != 0
    }

    pub fn key_encipherment(self) -> bool {
        self.bits >> 2 & 1 != 0
    }

    pub fn key_agreement(self) -> bool {
        self.bits >> 4 & 1 != 0
    }

    pub fn cert_sign(self) -> bool {
        self.bits >> 5 & 1 != 0
    }

    pub fn crl_sign(self) -> bool {
        self.bits >> 6 & 1 != 0
    }
}

struct Fields {
    der: Box<[u8]>,
    tbs: Range<usize>,
    subject: Range<usize>,
    issuer: Range<usize>,
    serial: Box<[u8]>,
    signature_algorithm: Option<SignatureAlgorithm>,
    signature: Range<usize>,
    not_before: UnixTime,
    not_after: UnixTime,
    public_key: PublicKey,
    extensions: Extensions,
}

#[derive(Default)]
pub(super) struct Extensions {
    pub(super) basic_constraints: Option<(bool, Option<u32>)>,
    pub(super) key_usage: Option<KeyUsage>,
    pub(super) extended_key_usage: Option<Vec<String>>,
    pub(super) subject_key_id: Option<Box<[u8]>>,
    pub(super) authority_key_id: Option<Box<[u8]>>,
    pub(super) uris: Vec<String>,
    pub(super) dns: Vec<String>,
    pub(super) ips: Vec<IpAddr>,
    pub(super) emails: Vec<String>,
    pub(super) san_critical: bool,
    pub(super) name_constraints: Option<Constraints>,
    /// A critical extension this library does not process.
    pub(super) unknown_critical: bool,
}

/// Name constraints (RFC 5280 §4.2.1.10) as far as an own path check needs them.
#[derive(Default, Debug)]
pub(super) struct Constraints {
    pub(super) permitted_uris: Vec<String>,
    pub(super) excluded_uris: Vec<String>,
    pub(super) permitted_dns: Vec<String>,
    pub(super) excluded_dns: Vec<String>,
    /// Constraints on other kinds of names.
    pub(super) others: bool,
}

impl Certificate {
    /// Reads one certificate; bytes after it are an error.
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        let malformed = |what: &str| X509Error::MalformedCertificate(what.to_owned());
        let (rest, cert) = X509Certificate::from_der(der).map_err(|e| malformed(&e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("trailing data"));
        }
        let layout = Layout::read(der).ok_or_else(|| malformed("not in DER"))?;
        if der[layout.tbs_algorithm.clone()] != der[layout.algorithm.clone()] {
            return Err(malformed("inner and outer signature algorithm differ"));
        }
        let public_key = PublicKey::from_spki_der(cert.public_key().raw)?;
        Ok(Self(Arc::new(Fields {
            serial: cert.raw_serial().into(),
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            signature_algorithm: SignatureAlgorithm::from_x509_identifier(&der[layout.algorithm]),
            public_key,
            extensions: Extensions::read(cert.extensions()).map_err(|what| malformed(&what))?,
            tbs: layout.tbs,
            subject: layout.subject,
            issuer: layout.issuer,
            signature: layout.signature,
            der: der.into(),
        })))
    }

    /// Reads certificates that follow each other, as the Workload API sends them.
    pub fn many_from_der(der: &[u8]) -> Result<Vec<Self>, X509Error> {
        concatenated(der).map(|certificate| Self::from_der(certificate?)).collect()
    }

    /// The PEM form of certificates in DER, one after the other, which are not looked into.
    pub fn many_to_pem(der: &[u8]) -> Result<String, X509Error> {
        concatenated(der).map(|certificate| Ok(pem::encode("CERTIFICATE", certificate?))).collect()
    }

    /// Reads all `CERTIFICATE` blocks of a PEM text; other blocks are skipped, none at all is an error.
    pub fn from_pem(text: &str) -> Result<Vec<Self>, X509Error> {
        let blocks = pem::decode_all(text).map_err(X509Error::MalformedPem)?;
        let certificates: Vec<_> = blocks
            .iter()
            .filter(|(label, _)| label == "CERTIFICATE")
            .map(|(_, der)| Self::from_der(der))
            .collect::<Result<_, _>>()?;
        if certificates.is_empty() {
            return Err(X509Error::NoCertificates);
        }
        Ok(certificates)
    }

    pub fn to_pem(&self) -> String {
        pem::encode("CERTIFICATE", self.der())
    }

    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    pub fn not_before(&self) -> UnixTime {
        self.0.not_before
    }

    pub fn not_after(&self) -> UnixTime {
        self.0.not_after
    }

    /// The serial number in decimal, as SPIRE stores and prints it.
    pub fn serial_decimal(&self) -> String {
        decimal(&self.0.serial)
    }

    /// The serial number as it is in the certificate: big-endian, two's complement.
    pub fn serial_bytes(&self) -> &[u8] {
        &self.0.serial
    }

    /// The subject in Go's text form: `SERIALNUMBER=1,O=SPIFFE,C=US`.
    pub fn subject_string(&self) -> String {
        self.subject().to_string()
    }

    pub fn subject(&self) -> DistinguishedName {
        DistinguishedName::from_der(self.subject_der()).unwrap_or_default()
    }

    pub fn subject_der(&self) -> &[u8] {
        &self.0.der[self.0.subject.clone()]
    }

    pub fn issuer_der(&self) -> &[u8] {
        &self.0.der[self.0.issuer.clone()]
    }

    pub fn public_key(&self) -> PublicKey {
        self.0.public_key.clone()
    }

    pub fn subject_key_id(&self) -> Option<Vec<u8>> {
        self.0.extensions.subject_key_id.as_deref().map(<[u8]>::to_vec)
    }

    pub fn authority_key_id(&self) -> Option<Vec<u8>> {
        self.0.extensions.authority_key_id.as_deref().map(<[u8]>::to_vec)
    }

    /// `cA` of the basic constraints; false without them.
    pub fn is_ca(&self) -> bool {
        self.0.extensions.basic_constraints.is_some_and(|(ca, _)| ca)
    }

    pub fn max_path_len(&self) -> Option<u32> {
        self.0.extensions.basic_constraints.and_then(|(_, len)| len)
    }

    pub fn key_usage(&self) -> Option<KeyUsage> {
        self.0.extensions.key_usage
    }

    /// The extended key usages as dotted OIDs; `None` without the extension.
    pub fn extended_key_usage(&self) -> Option<&[String]> {
        self.0.extensions.extended_key_usage.as_deref()
    }

    pub fn uri_sans(&self) -> Vec<String> {
        self.0.extensions.uris.clone()
    }

    pub fn dns_sans(&self) -> Vec<String> {
        self.0.extensions.dns.clone()
    }

    pub fn ip_sans(&self) -> &[IpAddr] {
        &self.0.extensions.ips
    }

    pub fn email_sans(&self) -> &[String] {
        &self.0.extensions.emails
    }

    /// Whether the subject alternative name extension is critical.
    pub fn is_san_critical(&self) -> bool {
        self.0.extensions.san_critical
    }

    /// The SPIFFE ID: the one and only URI SAN (X509-SVID §2). Any other number of URI SANs is an error, also
    /// when the others have another scheme (§5.2).
    pub fn spiffe_id(&self) -> Result<SpiffeId, X509Error> {
        match self.0.extensions.uris.as_slice() {
            [] => Err(X509Error::NoUriSan),
            [uri] => Ok(SpiffeId::from_uri(uri)?),
            _ => Err(X509Error::ManyUriSans),
        }
    }

    /// Checks that `issuer`'s key made this certificate's signature; nothing else.
    pub fn verify_signature_by(&self, issuer: &PublicKey) -> Result<(), X509Error> {
        let algorithm = self.0.signature_algorithm.ok_or(X509Error::UnsupportedSignatureAlgorithm)?;
        let fields = &*self.0;
        issuer.verify(algorithm, &fields.der[fields.tbs.clone()], &fields.der[fields.signature.clone()])?;
        Ok(())
    }

    pub(super) fn extensions(&self) -> &Extensions {
        &self.0.extensions
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der() == other.der()
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("serial", &self.serial_decimal())
            .field("subject", &self.subject_string())
            .field("uris", &self.0.extensions.uris)
            .field("not_after", &self.0.not_after)
            .finish()
    }
}

impl Extensions {
    fn read(extensions: &[X509Extension<'_>]) -> Result<Self, String> {
        let mut out = Self::default();
        for (i, extension) in extensions.iter().enumerate() {
            // RFC 5280 §4.2: one instance of an extension.
            if extensions[..i].iter().any(|earlier| earlier.oid == extension.oid) {
                return Err(format!("extension {} appears twice", extension.oid));
            }
            out.add(extension)?;
        }
        Ok(out)
    }

    fn add(&mut self, extension: &X509Extension<'_>) -> Result<(), String> {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(bc) => {
                self.basic_constraints = Some((bc.ca, bc.path_len_constraint));
            }
            ParsedExtension::KeyUsage(usage) => {
                self.key_usage = Some(KeyUsage { bits: usage.flags, critical: extension.critical });
            }
            ParsedExtension::ExtendedKeyUsage(_) => {
                self.extended_key_usage =
                    Some(extended_key_usages(extension.value).ok_or("unreadable extended key usage")?);
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.into()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.into());
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                self.san_critical = extension.critical;
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
                        GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
                        GeneralName::IPAddress(bytes) => self.ips.push(ip_address(bytes)?),
                        GeneralName::RFC822Name(name) => self.emails.push((*name).to_owned()),
                        GeneralName::Invalid(..) => return Err("unreadable subject alternative name".into()),
                        _ => {}
                    }
                }
            }
            ParsedExtension::NameConstraints(constraints) => {
                self.name_constraints = Some(Constraints::read(constraints));
            }
            ParsedExtension::ParseError { .. } => {
                return Err(format!("unreadable extension {}", extension.oid));
            }
            _ => self.unknown_critical |= extension.critical,
        }
        Ok(())
    }
}

impl Constraints {
    fn read(constraints: &NameConstraints<'_>) -> Self {
        let mut out = Self::default();
        for subtree in constraints.permitted_subtrees.iter().flatten() {
            match &subtree.base {
                GeneralName::URI(uri) => out.permitted_uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => out.permitted_dns.push((*name).to_owned()),
                _ => out.others = true,
            }
        }
        for subtree in constraints.excluded_subtrees.iter().flatten() {
            match &subtree.base {
                GeneralName::URI(uri) => out.excluded_uris.push((*uri).to_owned()),
                GeneralName::DNSName(name) => out.excluded_dns.push((*name).to_owned()),
                _ => out.others = true,
            }
        }
        out
    }

    pub(super) fn has_uris(&self) -> bool {
        !self.permitted_uris.is_empty() || !self.excluded_uris.is_empty()
    }
}

/// Values in DER that follow each other. Ends after an error.
fn concatenated(mut der: &[u8]) -> impl Iterator<Item = Result<&[u8], X509Error>> {
    std::iter::from_fn(move || {
        if der.is_empty() {
            return None;
        }
        let Some((_, _, whole)) = Reader::new(der).any() else {
            der = &[];
            return Some(Err(X509Error::MalformedCertificate("not in DER".into())));
        };
        der = &der[whole.len()..];
        Some(Ok(whole))
    })
}

fn ip_address(bytes: &[u8]) -> Result<IpAddr, String> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| "cannot parse IP address of a subject alternative name".to_owned())
}

fn extended_key_usages(value: &[u8]) -> Option<Vec<String>> {
    let mut list = Reader::new(value).nested(der::SEQUENCE)?;
    let mut out = Vec::new();
    while !list.is_empty() {
        out.push(super::name::dotted(list.expect(der::OID)?));
    }
    Some(out)
}

/// Where the parts of a certificate are that are needed byte for byte.
struct Layout {
    tbs: Range<usize>,
    tbs_algorithm: Range<usize>,
    issuer: Range<usize>,
    subject: Range<usize>,
    algorithm: Range<usize>,
    signature: Range<usize>,
}

impl Layout {
    fn read(der: &[u8]) -> Option<Self> {
        let start = der.as_ptr() as usize;
        let range = |part: &[u8]| {
            let at = part.as_ptr() as usize - start;
            at..at + part.len()
        };
        let mut certificate = Reader::new(der).nested(der::SEQUENCE)?;
        let (_, content, tbs) = certificate.any()?;
        let (_, _, algorithm) = certificate.any()?;
        let signature = certificate.bit_string()?;
        let mut fields = Reader::new(content);
        if fields.peek_tag() == Some(der::context_constructed(0)) {
            fields.any()?;
        }
        fields.expect(der::INTEGER)?;
        let (_, _, tbs_algorithm) = fields.any()?;
        let (_, _, issuer) = fields.any()?;
        fields.expect(der::SEQUENCE)?;
        let (_, _, subject) = fields.any()?;
        Some(Self {
            tbs: range(tbs),
            tbs_algorithm: range(tbs_algorithm),
            issuer: range(issuer),
            subject: range(subject),
            algorithm: range(algorithm),
            signature: range(signature),
        })
    }
}

/// Decimal digits of a big-endian two's complement number.
fn decimal(bytes: &[u8]) -> String {
    let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
    let digits = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
    if !negative && digits.len() <= 16 {
        // Ours and SPIRE's: servers ask at each call of an agent.
        return digits.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte)).to_string();
    }
    let mut magnitude: Vec<u8> = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
            *byte = sum;
            carry = over;
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|b| *b != 0) {
        let mut rest = 0_u32;
        for byte in &mut magnitude {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 10) as u8;
            rest = value % 10;
        }
        digits.push(b'0' + rest as u8);
    }
    if digits.is_empty() {
        digits.push(b'0');
    }
    if negative {
        digits.push(b'-');
    }
    digits.iter().rev().map(|d| char::from(*d)).collect()
}

#[cfg(test)]
mod tests;
