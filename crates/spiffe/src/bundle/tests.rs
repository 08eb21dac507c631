use super::*;

const SPIRE: &str = include_str!("../../testdata/spire-bundle.json");

fn spire() -> Bundle {
    Bundle::from_spiffe_json(TrustDomain::new("example.org").unwrap(), SPIRE).unwrap()
}

#[test]
fn a_bundle_of_spire_is_written_back_byte_for_byte() {
    let bundle = spire();
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (1, 2));
    assert_eq!(bundle.sequence_number, 2);
    assert_eq!(bundle.to_spiffe_json(), SPIRE.trim_end());
}

#[test]
fn the_standard_jwk_set_holds_jwt_keys_alone() {
    let bundle = spire();
    let jwks = bundle.to_jwks_json();
    assert!(!jwks.contains("\"use\"") && !jwks.contains("x5c") && !jwks.contains("spiffe_"), "{jwks}");
    let read = Bundle::from_jwks_json(bundle.trust_domain.clone(), &jwks).unwrap();
    assert_eq!(read.jwt_authorities, bundle.jwt_authorities);
    assert!(read.x509_authorities.is_empty());
    let empty = Bundle::new(bundle.trust_domain.clone()).to_jwks_json();
    assert_eq!(empty, "{\n    \"keys\": []\n}");
}

#[test]
fn pem_and_der_round_trip() {
    let bundle = spire();
    let from_pem = Bundle::from_pem(bundle.trust_domain.clone(), &bundle.to_pem()).unwrap();
    assert_eq!(from_pem.x509_authorities, bundle.x509_authorities);
    let from_der = Bundle::from_x509_der(bundle.trust_domain.clone(), &bundle.x509_der()).unwrap();
    assert_eq!(from_der.x509_authorities, bundle.x509_authorities);
    let doubled = Bundle::from_pem(bundle.trust_domain.clone(), &bundle.to_pem().repeat(2)).unwrap();
    assert_eq!(doubled.x509_authorities.len(), 1);
}

#[test]
fn the_key_of_an_entry_must_be_that_of_its_certificate() {
    let other = SPIRE.replacen(
        "0Rqlazq4cQ0xqrXRr3RK6gtltslmBXiITfYVqawgoss",
        "fTkn8u7IiCuQ-UyTKAKVLd2kelgnTRPg3svvVE_8aik",
        1,
    );
    let (bundle, skipped) =
        Bundle::from_spiffe_json_reporting(TrustDomain::new("example.org").unwrap(), &other).unwrap();
    assert!(bundle.x509_authorities.is_empty());
    assert_eq!(skipped.len(), 1);
}
