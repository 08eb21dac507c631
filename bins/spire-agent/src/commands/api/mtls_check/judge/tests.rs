use steeple_spiffe::x509::{self, CaTemplate, DistinguishedName, Issuer, LeafTemplate, SerialNumber};
use steeple_spiffe::{KeyType, PrivateKey};

use super::*;

struct Ca {
    key: PrivateKey,
    certificate: Certificate,
}

const NOW: i64 = 1_000_000;

impl Ca {
    fn new(trust_domain: &str, not_after: i64) -> Self {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let algorithm = KeyType::EcP256.x509_signature_algorithm();
        let template = CaTemplate {
            trust_domain: trust_domain.parse().unwrap(),
            public_key: key.public_key(),
            subject: DistinguishedName::default_ca(),
            not_before: 0,
            not_after,
            serial: SerialNumber::new(1).unwrap(),
        };
        let tbs = x509::ca_tbs_self_signed(&template, algorithm).unwrap();
        let der = x509::assemble(&tbs, algorithm, &key.sign(algorithm, &tbs).unwrap());
        Self { key, certificate: Certificate::from_der(&der).unwrap() }
    }

    fn leaf(&self, id: &str, not_before: i64, not_after: i64) -> Certificate {
        let algorithm = KeyType::EcP256.x509_signature_algorithm();
        let template = LeafTemplate {
            spiffe_id: id.parse().unwrap(),
            public_key: PrivateKey::generate(KeyType::EcP256).unwrap().public_key(),
            not_before,
            not_after,
            dns_names: Vec::new(),
            subject: None,
            serial: SerialNumber::new(2).unwrap(),
        };
        let tbs = x509::leaf_tbs(&template, &Issuer::from_certificate(&self.certificate, algorithm)).unwrap();
        let der = x509::assemble(&tbs, algorithm, &self.key.sign(algorithm, &tbs).unwrap());
        Certificate::from_der(&der).unwrap()
    }
}

fn known(ca: &Ca) -> Known {
    let id: SpiffeId = "spiffe://td/me".parse().unwrap();
    let bundles = BTreeMap::from([(id.trust_domain(), vec![ca.certificate.clone()])]);
    Known { chain: vec![ca.leaf("spiffe://td/me", NOW - 10, NOW + 3600)], id, bundles, now: NOW }
}

fn showed(certificate: &Certificate) -> Probe {
    Probe { chain: vec![certificate.der().to_vec()], ..Probe::default() }
}

fn codes(probed: &Probe, known: &Known, expected: Option<&str>) -> Vec<&'static str> {
    let expected = expected.map(|id| id.parse().unwrap());
    judge(probed, known, expected.as_ref()).iter().map(|finding| finding.reason.code()).collect()
}

#[test]
fn each_fault_has_its_reason() {
    let (ca, stranger) = (Ca::new("td", NOW + 86400), Ca::new("td", NOW + 86400));
    let known = known(&ca);
    let good = ca.leaf("spiffe://td/peer", NOW - 10, NOW + 3600);
    assert_eq!(codes(&showed(&good), &known, Some("spiffe://td/peer")), ["MTLS_OK"]);
    assert_eq!(codes(&showed(&good), &known, Some("spiffe://td/other")), ["WRONG_SPIFFE_ID"]);
    let old = ca.leaf("spiffe://td/peer", NOW - 7200, NOW - 3600);
    assert_eq!(codes(&showed(&old), &known, None), ["CERTIFICATE_EXPIRED"]);
    let early = ca.leaf("spiffe://td/peer", NOW + 90, NOW + 3600);
    assert_eq!(codes(&showed(&early), &known, None), ["CERTIFICATE_NOT_YET_VALID"]);
    let said = judge(&showed(&early), &known, None).remove(0).text;
    assert!(said.contains("at least 1m30s behind"), "{said}");
    let strange = stranger.leaf("spiffe://td/peer", NOW - 10, NOW + 3600);
    assert_eq!(codes(&showed(&strange), &known, None), ["UNKNOWN_AUTHORITY"]);
    let said = judge(&showed(&strange), &known, None).remove(0).text;
    for ca in [&ca, &stranger] {
        assert!(said.contains(&key_id(ca.certificate.subject_key_id())), "{said}");
    }
    let foreign = ca.leaf("spiffe://other/peer", NOW - 10, NOW + 3600);
    assert_eq!(codes(&showed(&foreign), &known, None), ["FOREIGN_TRUST_DOMAIN"]);
    assert_eq!(codes(&showed(&ca.certificate), &known, None), ["NO_SPIFFE_ID"]);
    let broken = Probe { chain: vec![good.der().to_vec(), vec![1]], ..Probe::default() };
    assert_eq!(codes(&broken, &known, None), ["BAD_CHAIN"]);
}

#[test]
fn an_authority_that_has_ended_and_an_own_svid_that_is_over_are_told() {
    let ca = Ca::new("td", NOW - 100);
    let mut known = known(&ca);
    let leaf = ca.leaf("spiffe://td/peer", NOW - 10, NOW + 3600);
    assert_eq!(codes(&showed(&leaf), &known, None), ["BAD_CHAIN"]);
    known.chain = vec![ca.leaf("spiffe://td/me", NOW - 7200, NOW - 60)];
    assert_eq!(codes(&showed(&leaf), &known, None), ["OWN_SVID_EXPIRED", "BAD_CHAIN"]);
}

#[test]
fn what_ends_the_handshake_is_told() {
    let ca = Ca::new("td", NOW + 86400);
    let known = known(&ca);
    let failed = |failure| Probe { failure: Some(failure), ..Probe::default() };
    assert_eq!(codes(&failed(ProbeFailure::Connect("no".into())), &known, None), ["CONNECT_FAILED"]);
    assert_eq!(codes(&failed(ProbeFailure::NotTls("no".into())), &known, None), ["NOT_TLS"]);
    assert_eq!(codes(&failed(ProbeFailure::Handshake("no".into())), &known, None), ["HANDSHAKE_FAILED"]);
    let refused = Probe {
        failure: Some(ProbeFailure::Alert("unknown_ca".into())),
        ..showed(&ca.leaf("spiffe://td/peer", NOW - 10, NOW + 3600))
    };
    assert_eq!(codes(&refused, &known, None), ["PEER_REJECTED_US"]);
    let said = judge(&refused, &known, None).remove(0).text;
    assert!(said.contains(&key_id(ca.certificate.subject_key_id())), "{said}");
}
