use super::*;
use crate::key::{KeyType, PrivateKey};
use crate::testdata::{CA, CSR, CSR_WITHOUT_SAN, LEAF, P256_PKCS8, P384_PKCS8, decode};
use crate::x509::CertificateRequest;

fn key(pkcs8: &str) -> PrivateKey {
    PrivateKey::from_pkcs8_der(&decode(pkcs8)).unwrap()
}

/// The signed part of a certificate or request.
fn signed_part(der: &[u8]) -> Vec<u8> {
    let mut outer = crate::der::Reader::new(der).nested(der::SEQUENCE).unwrap();
    outer.any().unwrap().2.to_vec()
}

fn web_template() -> LeafTemplate {
    LeafTemplate {
        spiffe_id: SpiffeId::parse("spiffe://example.org/web").unwrap(),
        public_key: key(P384_PKCS8).public_key(),
        not_before: 1_768_478_390,
        not_after: 1_768_482_000,
        dns_names: vec!["web.example.org".into(), "*.web.example.org".into()],
        subject: None,
        serial: SerialNumber::new(u128::MAX).unwrap(),
    }
}

#[test]
fn ca_bytes_equal_gos() {
    let subject = DistinguishedName { serial_number: "5".into(), ..DistinguishedName::default_ca() };
    let template = CaTemplate {
        trust_domain: TrustDomain::new("example.org").unwrap(),
        public_key: key(P256_PKCS8).public_key(),
        subject,
        not_before: 1_768_478_390,
        not_after: 1_768_564_800,
        serial: SerialNumber::new(5).unwrap(),
    };
    let tbs = ca_tbs_self_signed(&template, SignatureAlgorithm::EcdsaSha256).unwrap();
    assert_eq!(tbs, signed_part(&decode(CA)));
}

#[test]
fn leaf_bytes_equal_gos() {
    let ca = Certificate::from_der(&decode(CA)).unwrap();
    let issuer = Issuer::from_certificate(&ca, SignatureAlgorithm::EcdsaSha256);
    assert_eq!(leaf_tbs(&web_template(), &issuer).unwrap(), signed_part(&decode(LEAF)));
}

#[test]
fn request_bytes_equal_gos() {
    let key = key(P256_PKCS8);
    let subject = DistinguishedName::default_svid();
    let tbs = csr_tbs(&subject, &key.public_key(), &["spiffe://example.org/web"], &[]);
    assert_eq!(tbs, signed_part(&decode(CSR)));
    let tbs = csr_tbs(&subject, &key.public_key(), &[], &[]);
    assert_eq!(tbs, signed_part(&decode(CSR_WITHOUT_SAN)));
}

#[test]
fn requests_prove_their_key() {
    let request = CertificateRequest::from_der(&decode(CSR)).unwrap();
    request.verify_signature().unwrap();
    assert_eq!(request.uri_sans(), ["spiffe://example.org/web"]);
    assert_eq!(request.public_key(), key(P256_PKCS8).public_key());
    assert_eq!(request.subject(), &DistinguishedName::default_svid());
    let names = ["a.test".to_owned()];
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = PrivateKey::generate(kind).unwrap();
        let algorithm = kind.x509_signature_algorithm();
        let uris = ["spiffe://td/a", "spiffe://td/b"];
        let tbs = csr_tbs(&DistinguishedName::default(), &key.public_key(), &uris, &names);
        let der = assemble(&tbs, algorithm, &key.sign(algorithm, &tbs).unwrap());
        let request = CertificateRequest::from_der(&der).unwrap();
        request.verify_signature().unwrap();
        assert_eq!(
            (request.uri_sans(), request.dns_names()),
            (uris.map(str::to_owned).to_vec(), names.to_vec())
        );
        // Signed by someone else.
        let other = PrivateKey::generate(KeyType::EcP256).unwrap();
        let algorithm = SignatureAlgorithm::EcdsaSha256;
        let der = assemble(&tbs, algorithm, &other.sign(algorithm, &tbs).unwrap());
        assert!(CertificateRequest::from_der(&der).unwrap().verify_signature().is_err());
    }
}

#[test]
fn malformed_requests_are_refused() {
    let good = decode(CSR);
    let trailing = [good.as_slice(), &[0]].concat();
    for bad in [&[][..], b"text", &good[..good.len() - 1], &trailing, &decode(CA)] {
        assert!(CertificateRequest::from_der(bad).is_err());
    }
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 0x41;
        // Whatever still reads no longer verifies, except where DER leaves the signed bytes alone.
        if let Ok(request) = CertificateRequest::from_der(&changed) {
            assert!(request.verify_signature().is_err(), "byte {at}");
        }
    }
}

#[test]
fn templates_that_make_no_sense_are_refused() {
    let ca = Certificate::from_der(&decode(CA)).unwrap();
    let issuer = Issuer::from_certificate(&ca, SignatureAlgorithm::EcdsaSha256);
    let backwards = LeafTemplate { not_after: 0, ..web_template() };
    assert_eq!(leaf_tbs(&backwards, &issuer), Err(X509Error::EmptyValidity));
    assert_eq!(SerialNumber::new(0), None);
}

#[test]
fn serial_numbers_are_random_and_decimal() {
    let (one, two) = (SerialNumber::random().unwrap(), SerialNumber::random().unwrap());
    assert_ne!(one, two);
    assert_eq!(SerialNumber::new(u128::MAX).unwrap().to_string(), u128::MAX.to_string());
}
