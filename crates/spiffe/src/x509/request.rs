//! PKCS#10 certificate requests.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::{DistinguishedName, X509Error};
use crate::der::{self, Reader};
use crate::key::{PublicKey, SignatureAlgorithm};

/// A parsed certificate request. Its signature is checked only by [`CertificateRequest::verify_signature`].
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    info: Vec<u8>,
    algorithm: Option<SignatureAlgorithm>,
    signature: Vec<u8>,
    public_key: PublicKey,
    subject: DistinguishedName,
    subject_der: Vec<u8>,
    uris: Vec<String>,
    dns: Vec<String>,
}

impl CertificateRequest {
    /// Reads a request; bytes after it are an error.
    pub fn from_der(der: &[u8]) -> Result<Self, X509Error> {
        let malformed = |what: &str| X509Error::MalformedRequest(what.to_owned());
        let (rest, request) =
            X509CertificationRequest::from_der(der).map_err(|e| malformed(&e.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("trailing data"));
        }
        let (info, algorithm, signature) = split(der).ok_or_else(|| malformed("not in DER"))?;
        let subject_der = request.certification_request_info.subject.as_raw().to_vec();
        let mut out = Self {
            info: info.to_vec(),
            algorithm: SignatureAlgorithm::from_x509_identifier(algorithm),
            signature: signature.to_vec(),
            public_key: PublicKey::from_spki_der(request.certification_request_info.subject_pki.raw)?,
            subject: DistinguishedName::from_der(&subject_der)?,
            subject_der,
            uris: Vec::new(),
            dns: Vec::new(),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            match extension {
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::URI(uri) => out.uris.push((*uri).to_owned()),
                            GeneralName::DNSName(name) => out.dns.push((*name).to_owned()),
                            GeneralName::Invalid(..) => {
                                return Err(malformed("unreadable subject alternative name"));
                            }
                            _ => {}
                        }
                    }
                }
                ParsedExtension::ParseError { .. } => return Err(malformed("unreadable extension")),
                _ => {}
            }
        }
        Ok(out)
    }

    /// Checks that the request is signed by the key it carries (proof of possession).
    pub fn verify_signature(&self) -> Result<(), X509Error> {
        let algorithm = self.algorithm.ok_or(X509Error::UnsupportedSignatureAlgorithm)?;
        self.public_key.verify(algorithm, &self.info, &self.signature)?;
        Ok(())
    }

    pub fn public_key(&self) -> PublicKey {
        self.public_key.clone()
    }

    pub fn subject(&self) -> &DistinguishedName {
        &self.subject
    }

    pub fn subject_der(&self) -> &[u8] {
        &self.subject_der
    }

    pub fn uri_sans(&self) -> Vec<String> {
        self.uris.clone()
    }

    pub fn dns_names(&self) -> Vec<String> {
        self.dns.clone()
    }
}

/// Signed bytes, AlgorithmIdentifier and signature.
fn split(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut request = Reader::new(der).nested(der::SEQUENCE)?;
    let (_, _, info) = request.any()?;
    let (_, _, algorithm) = request.any()?;
    Some((info, algorithm, request.bit_string()?))
}
