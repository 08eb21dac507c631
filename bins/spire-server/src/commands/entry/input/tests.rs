use super::*;

fn error(data: &str) -> String {
    parse(data.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_file_with_everything() {
    let entries = parse(
        br#"{"entries": [{
            "entry_id": "e", "spiffe_id": "spiffe://td/w", "parent_id": "spiffe://td/p",
            "selectors": [{"type": "unix", "value": "uid:1"}], "x509_svid_ttl": 60, "jwt_svid_ttl": 30,
            "federates_with": ["spiffe://other"], "admin": true, "downstream": true, "entryExpiry": 99,
            "dns_names": ["a.b"], "store_svid": true, "hint": "h", "unknown": {},
            "additional_attributes": {"disable_x509_svid_prefetch": true}}]}"#,
    )
    .unwrap();
    let id = |path: &str| Some(types::Spiffeid { trust_domain: "td".into(), path: path.into() });
    let expected = types::Entry {
        id: "e".into(),
        spiffe_id: id("/w"),
        parent_id: id("/p"),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1".into() }],
        x509_svid_ttl: 60,
        jwt_svid_ttl: 30,
        federates_with: vec!["other".into()],
        admin: true,
        downstream: true,
        expires_at: 99,
        dns_names: vec!["a.b".into()],
        store_svid: true,
        hint: "h".into(),
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: false,
        }),
        ..Default::default()
    };
    assert_eq!(entries, [expected]);
}

#[test]
fn nothing_in_it() {
    for data in ["{}", "null", r#"{"entries": null}"#, r#"{"entries": []}"#] {
        assert_eq!(parse(data.as_bytes()), Ok(vec![]), "{data}");
    }
}

#[test]
fn errors() {
    assert_eq!(error("{nope"), "invalid character 'n' looking for beginning of object key string");
    assert_eq!(error(r#"{"entries": [null]}"#), "missing registration entry");
    let second = r#"{"entries": [{"spiffe_id": "spiffe://td/a", "parent_id": "spiffe://td/b"}, null]}"#;
    assert_eq!(error(second), "missing registration entry (entry 2 of 2)");
    assert!(error(r#"{"entries": [{"spiffe_id": "nope"}]}"#).starts_with("invalid SPIFFE ID: "));
    assert!(error(r#"{"entries": [{"spiffe_id": "spiffe://td/a"}]}"#).starts_with("invalid parent ID: "));
    assert_eq!(
        error(r#"{"entries": [{"x509_svid_ttl": "60"}]}"#),
        "json: cannot unmarshal string into Go struct field RegistrationEntry.entries.x509_svid_ttl of type int32"
    );
}
