use super::*;

#[allow(clippy::unnecessary_wraps, reason = "the shape of the fields it fills")]
fn spiffe_id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

#[test]
fn a_plain_entry() {
    let plain = types::Entry {
        spiffe_id: spiffe_id("/web"),
        parent_id: spiffe_id("/node1"),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
        ..Default::default()
    };
    assert_eq!(
        entry(&plain),
        "Entry ID                : (none)\n\
         SPIFFE ID               : spiffe://example.org/web\n\
         Parent ID               : spiffe://example.org/node1\n\
         Revision                : 0\n\
         X509-SVID TTL           : default\n\
         JWT-SVID TTL            : default\n\
         Selector                : unix:uid:1\n\n"
    );
}

#[test]
fn an_entry_with_everything() {
    let full = types::Entry {
        id: "e".into(),
        spiffe_id: spiffe_id("/web"),
        parent_id: spiffe_id("/node1"),
        revision_number: 3,
        downstream: true,
        x509_svid_ttl: 300,
        jwt_svid_ttl: 120,
        expires_at: 4_102_444_800,
        federates_with: vec!["other.org".into()],
        dns_names: vec!["a.b".into()],
        admin: true,
        store_svid: true,
        hint: "external".into(),
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: true,
        }),
        ..Default::default()
    };
    assert_eq!(
        entry(&full),
        "Entry ID                : e\n\
         SPIFFE ID               : spiffe://example.org/web\n\
         Parent ID               : spiffe://example.org/node1\n\
         Revision                : 3\n\
         Downstream              : true\n\
         X509-SVID TTL           : 300\n\
         JWT-SVID TTL            : 120\n\
         Expiration time         : 2100-01-01 00:00:00 +0000 UTC\n\
         FederatesWith           : other.org\n\
         DNS name                : a.b\n\
         Admin                   : true\n\
         StoreSvid               : true\n\
         Hint                    : external\n\
         DisableX509SvidPrefetch : true\n\
         JwtSvidIncludeJti       : true\n\n"
    );
}

#[test]
fn agents() {
    let mut some = types::Agent {
        id: spiffe_id("/spire/agent/x"),
        attestation_type: "join_token".into(),
        x509svid_serial_number: "123".into(),
        can_reattest: true,
        ..Default::default()
    };
    let text = agent(&some);
    assert!(text.starts_with("SPIFFE ID         : spiffe://example.org/spire/agent/x\n"), "{text}");
    assert!(text.contains("\nSerial number     : 123\nCan re-attest     : true\n\n"), "{text}");
    some.banned = true;
    some.agent_version = "1.0".into();
    let text = agent(&some);
    assert!(
        text.contains("\nBanned            : true\nCan re-attest     : true\nAgent version     : 1.0\n\n"),
        "{text}"
    );
}

#[test]
fn codes() {
    assert_eq!(code(3), "InvalidArgument");
    assert_eq!(code(2), "Unknown");
    assert_eq!(code(77), "Code(77)");
}
