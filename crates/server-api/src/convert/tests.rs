use steeple_proto::spire::api::types;
use steeple_spiffe::TrustDomain;

use super::*;

fn td() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn full() -> types::Entry {
    let id =
        |path: &str| Some(types::Spiffeid { trust_domain: "example.org".to_owned(), path: path.to_owned() });
    types::Entry {
        id: "id".to_owned(),
        spiffe_id: id("/w"),
        parent_id: id("/p"),
        selectors: vec![types::Selector { r#type: "b".to_owned(), value: "1:2".to_owned() }],
        x509_svid_ttl: 1,
        federates_with: vec!["other.org".to_owned()],
        admin: true,
        downstream: true,
        expires_at: 2,
        dns_names: vec!["a.b".to_owned()],
        revision_number: 3,
        store_svid: true,
        jwt_svid_ttl: 4,
        hint: "h".to_owned(),
        created_at: 0,
        additional_attributes: Some(types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: false,
        }),
    }
}

#[test]
fn an_entry_survives_the_way_there_and_back() {
    let entry = entry_from_proto(&td(), &full(), None).unwrap();
    assert_eq!(entry_to_proto(&entry), full());
}

#[test]
fn building_masked_is_building_then_masking() {
    let entry = entry_from_proto(&td(), &full(), None).unwrap();
    let one_field: [fn(&mut types::EntryMask); 14] = [
        |m| m.spiffe_id = true,
        |m| m.parent_id = true,
        |m| m.selectors = true,
        |m| m.x509_svid_ttl = true,
        |m| m.federates_with = true,
        |m| m.admin = true,
        |m| m.downstream = true,
        |m| m.expires_at = true,
        |m| m.dns_names = true,
        |m| m.revision_number = true,
        |m| m.store_svid = true,
        |m| m.jwt_svid_ttl = true,
        |m| m.hint = true,
        |m| m.additional_attributes = true,
    ];
    for set in one_field {
        let mut mask = types::EntryMask::default();
        set(&mut mask);
        let mut applied = entry_to_proto(&entry);
        apply_entry_mask(&mut applied, Some(&mask));
        let built = entry_to_proto_masked(&entry, Some(&mask));
        assert_eq!(built, applied);
        assert_eq!(entry_into_proto_masked(entry.clone(), Some(&mask)), applied);
        assert_ne!(built, types::Entry { id: "id".to_owned(), ..Default::default() }, "{mask:?}");
    }
}

#[test]
fn a_trust_domain_may_be_given_as_an_id() {
    let id = types::Spiffeid { trust_domain: "spiffe://example.org".to_owned(), path: "/w".to_owned() };
    assert_eq!(id_from_proto(Some(&id)).unwrap().as_str(), "spiffe://example.org/w");
}

#[test]
fn an_attestors_agents_have_a_namespace() {
    let id = |path: &str| format!("spiffe://example.org{path}").parse().unwrap();
    assert!(check_agent_id_for_attestor(&td(), &id("/spire/agent/x509pop/abc"), "x509pop").is_ok());
    for path in ["/spire/agent/x509pop", "/spire/agent/x509popper/abc", "/agent/x509pop/abc"] {
        assert!(check_agent_id_for_attestor(&td(), &id(path), "x509pop").is_err(), "{path}");
    }
}

/// Clears what the mask does not ask for.
fn apply_entry_mask(entry: &mut types::Entry, mask: Option<&types::EntryMask>) {
    let Some(mask) = mask else { return };
    if !mask.spiffe_id {
        entry.spiffe_id = None;
    }
    if !mask.parent_id {
        entry.parent_id = None;
    }
    if !mask.selectors {
        entry.selectors.clear();
    }
    if !mask.x509_svid_ttl {
        entry.x509_svid_ttl = 0;
    }
    if !mask.federates_with {
        entry.federates_with.clear();
    }
    entry.admin &= mask.admin;
    entry.downstream &= mask.downstream;
    if !mask.expires_at {
        entry.expires_at = 0;
    }
    if !mask.dns_names {
        entry.dns_names.clear();
    }
    if !mask.revision_number {
        entry.revision_number = 0;
    }
    entry.store_svid &= mask.store_svid;
    if !mask.jwt_svid_ttl {
        entry.jwt_svid_ttl = 0;
    }
    if !mask.hint {
        entry.hint.clear();
    }
    if !mask.created_at {
        entry.created_at = 0;
    }
    if !mask.additional_attributes {
        entry.additional_attributes = None;
    }
}
