use proptest::prelude::*;

use super::*;
use crate::testdata::{CA, LEAF, decode};

const AGENT_SVID: &str = include_str!("../../../testdata/spire-agent-svid.pem");

#[test]
fn a_certificate_of_spire_is_read() {
    let [agent] = <[Certificate; 1]>::try_from(Certificate::from_pem(AGENT_SVID).unwrap()).unwrap();
    assert_eq!(agent.subject_string(), "O=SPIRE,C=US");
    assert!(agent.spiffe_id().unwrap().path().starts_with("/spire/agent/join_token/"));
    assert!(!agent.is_ca());
    assert_eq!(agent.subject_key_id().unwrap(), agent.public_key().subject_key_id());
    assert_eq!(agent.to_pem(), AGENT_SVID);
    assert_eq!(agent.to_pem().parse::<String>().unwrap().lines().nth(1).unwrap().len(), 64);
}

#[test]
fn fields_are_those_go_wrote() {
    let leaf = Certificate::from_der(&decode(LEAF)).unwrap();
    assert_eq!(leaf.serial_decimal(), u128::MAX.to_string());
    assert_eq!((leaf.not_before(), leaf.not_after()), (1_768_478_390, 1_768_482_000));
    assert_eq!(leaf.subject_string(), "CN=web.example.org,O=SPIRE,C=US");
    assert_eq!(leaf.uri_sans(), ["spiffe://example.org/web"]);
    assert_eq!(leaf.dns_sans(), ["web.example.org", "*.web.example.org"]);
    let ca = Certificate::from_der(&decode(CA)).unwrap();
    assert_eq!(ca.subject_string(), "SERIALNUMBER=5,O=SPIFFE,C=US");
    assert_eq!(leaf.authority_key_id(), ca.subject_key_id());
    assert_eq!(ca.authority_key_id(), None);
    assert_eq!(leaf.issuer_der(), ca.subject_der());
    leaf.verify_signature_by(&ca.public_key()).unwrap();
    assert!(leaf.verify_signature_by(&leaf.public_key()).is_err());
}

#[test]
fn several_certificates_follow_each_other() {
    let (leaf, ca) = (decode(LEAF), decode(CA));
    let both = [leaf.as_slice(), &ca].concat();
    let read = Certificate::many_from_der(&both).unwrap();
    assert_eq!(read.iter().map(Certificate::der).collect::<Vec<_>>(), [leaf.as_slice(), &ca]);
    assert!(Certificate::many_from_der(&both[..both.len() - 1]).is_err());
    assert!(Certificate::from_der(&both).is_err(), "one at a time");
    assert_eq!(Certificate::many_from_der(&[]).unwrap(), []);
    let pem = format!("# comment\n{}{}", read[0].to_pem(), read[1].to_pem());
    assert_eq!(format!("# comment\n{}", Certificate::many_to_pem(&both).unwrap()), pem);
    assert!(Certificate::many_to_pem(&both[..both.len() - 1]).is_err());
    assert_eq!(Certificate::from_pem(&pem).unwrap(), read);
    assert_eq!(Certificate::from_pem("nothing").unwrap_err(), X509Error::NoCertificates);
    assert_eq!(Certificate::from_pem(&pem[..pem.len() - 30]).unwrap_err(), X509Error::MalformedPem(1));
}

#[test]
fn serial_numbers_of_any_size_are_decimal() {
    assert_eq!(decimal(&[0]), "0");
    assert_eq!(decimal(&[]), "0");
    assert_eq!(decimal(&[1, 0]), "256");
    assert_eq!(decimal(&[0xff]), "-1");
    assert_eq!(decimal(&[0x80, 0]), "-32768");
    assert_eq!(decimal(&[0x7f; 20]), "727885129180488904360266563744972327436484050815");
}

proptest! {
    #[test]
    fn changed_certificates_never_panic(at in 0_usize..500, to in any::<u8>(), cut in 0_usize..600) {
        let mut der = decode(LEAF);
        let at = at % der.len();
        der[at] = to;
        der.truncate(der.len().max(cut));
        if let Ok(certificate) = Certificate::from_der(&der) {
            let _ = certificate.spiffe_id();
            let _ = format!("{certificate:?}");
        }
    }

    #[test]
    fn decimals_agree_with_u128(n in any::<u128>()) {
        let mut bytes = n.to_be_bytes().to_vec();
        bytes.insert(0, 0);
        prop_assert_eq!(decimal(&bytes), n.to_string());
    }
}
