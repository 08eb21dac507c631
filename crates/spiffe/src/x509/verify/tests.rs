use super::*;
use crate::testdata::{CA, LEAF, decode};

fn bundle() -> (TrustDomain, Vec<Certificate>) {
    (TrustDomain::new("example.org").unwrap(), vec![Certificate::from_der(&decode(CA)).unwrap()])
}

#[test]
fn a_chain_made_by_go_is_valid_on_both_paths() {
    let leaf = Certificate::from_der(&decode(LEAF)).unwrap();
    let (_, roots) = bundle();
    let now = 1_768_480_000;
    assert_eq!(verify_svid(std::slice::from_ref(&leaf), &bundle(), now).unwrap(), leaf.spiffe_id().unwrap());
    path::verify(&leaf, &[], &[&roots[0]], now).unwrap();
    for late in [1_768_478_389, 1_768_482_001] {
        assert!(verify_svid(std::slice::from_ref(&leaf), &bundle(), late).is_err());
        assert!(path::verify(&leaf, &[], &[&roots[0]], late).is_err());
    }
}

#[test]
fn messages_are_those_of_go_spiffe() {
    let leaf = Certificate::from_der(&decode(LEAF)).unwrap();
    let nothing: [Bundle; 0] = [];
    let text = |e: VerifyError| e.to_string();
    assert_eq!(text(verify_svid(&[], &bundle(), 0).unwrap_err()), "empty certificates chain");
    assert_eq!(
        text(verify_svid(&[leaf], &nothing[..], 0).unwrap_err()),
        "could not get X509 bundle: no X.509 bundle for trust domain \"example.org\""
    );
}
