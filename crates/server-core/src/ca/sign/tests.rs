use super::*;

#[test]
fn kids_and_jtis_have_spires_form() {
    let kid = random_kid().unwrap();
    assert_eq!(kid.len(), 32);
    assert!(kid.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert_ne!(kid, random_kid().unwrap());
    assert_eq!(URL_SAFE_NO_PAD.decode(jti()).unwrap().len(), 16);
}

#[test]
fn foreign_ids_and_the_trust_domain_itself_are_refused() {
    let ours = TrustDomain::new("example.org").unwrap();
    let check = |id: &str| check_member(&ours, &SpiffeId::parse(id).unwrap());
    assert_eq!(check("spiffe://example.org/a"), Ok(()));
    let foreign = check("spiffe://other.org/a").unwrap_err();
    assert_eq!(foreign, "\"spiffe://other.org/a\" is not a member of trust domain \"example.org\"");
    let root = check("spiffe://example.org").unwrap_err();
    assert_eq!(
        root,
        "\"spiffe://example.org\" is not a member of trust domain \"example.org\"; path is empty"
    );
}
