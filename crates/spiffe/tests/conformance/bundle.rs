//! SPIFFE Trust Domain and Bundle.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde_json::{Value, json};
use steeple_spiffe::bundle::{BundleError, BundleMap, JwtAuthority};
use steeple_spiffe::x509::{VerifyError, verify_svid};
use steeple_spiffe::{Bundle, PrivateKey, jwt};

use crate::support::{Ca, NOW, key, p384, rsa, td};

/// One of everything; the same at every call.
fn full() -> Bundle {
    static FULL: OnceLock<Bundle> = OnceLock::new();
    FULL.get_or_init(|| {
        let mut bundle = Ca::new("td").bundle();
        let keys = [("ec", key(0)), ("ec384", p384()), ("rsa", rsa())];
        bundle.jwt_authorities = keys.map(|(key_id, key)| jwt_authority(key_id, key)).to_vec();
        bundle.sequence_number = 7;
        bundle.refresh_hint = Some(300);
        bundle
    })
    .clone()
}

fn jwt_authority(key_id: &str, key: &PrivateKey) -> JwtAuthority {
    JwtAuthority { key_id: key_id.into(), public_key: key.public_key(), expires_at: 0, tainted: false }
}

fn document(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.to_spiffe_json()).unwrap()
}

fn read(document: &Value) -> Result<Bundle, BundleError> {
    Bundle::from_spiffe_json(td("td"), &document.to_string())
}

/// The full document with an entry put in front.
fn with_entry(entry: Value) -> Value {
    let mut document = document(&full());
    document["keys"].as_array_mut().unwrap().insert(0, entry);
    document
}

/// The full document with one member of every JWT entry changed.
fn with_member(name: &str, value: Value) -> Value {
    let mut document = document(&full());
    for jwk in document["keys"].as_array_mut().unwrap().iter_mut().filter(|jwk| jwk["use"] == "jwt-svid") {
        if value.is_null() {
            jwk.as_object_mut().unwrap().remove(name);
        } else {
            jwk[name] = value.clone();
        }
    }
    document
}

#[test]
fn b_01_a_jwk_set_in_json() {
    let document = document(&full());
    assert_eq!(document["keys"].as_array().unwrap().len(), 4);
    assert_eq!(read(&document).unwrap(), full());
    for text in ["", "[]", "null", "\"keys\"", "{\"keys\": {}}", "{\"keys\": [] "] {
        assert!(Bundle::from_spiffe_json(td("td"), text).is_err(), "{text}");
    }
}

#[test]
fn b_02_unknown_members_are_ignored() {
    let mut extended = document(&full());
    extended["x_extra"] = json!({"deep": [1, 2]});
    extended["keys"][0]["x_extra"] = json!(1);
    assert_eq!(read(&extended).unwrap(), full());
    let members: Vec<_> = document(&full()).as_object().unwrap().keys().cloned().collect();
    assert_eq!(members, ["keys", "spiffe_refresh_hint", "spiffe_sequence"]);
}

#[test]
fn b_03_sequence_is_published() {
    assert_eq!(document(&full())["spiffe_sequence"], 7);
}

#[test]
fn b_04_sequence_holds_64_bits() {
    let mut bundle = full();
    bundle.sequence_number = u64::MAX;
    assert_eq!(read(&document(&bundle)).unwrap().sequence_number, u64::MAX);
    for bad in [json!(1.5), json!(-1), json!("1")] {
        let mut document = document(&full());
        document["spiffe_sequence"] = bad;
        assert!(read(&document).is_err());
    }
}

#[test]
fn b_06_refresh_hint_is_published() {
    assert_eq!(document(&full())["spiffe_refresh_hint"], 300);
}

#[test]
fn b_07_refresh_hint_is_whole_seconds() {
    let mut changed = document(&full());
    changed["spiffe_refresh_hint"] = json!(2_419_200);
    assert_eq!(read(&changed).unwrap().refresh_hint, Some(2_419_200));
    changed["spiffe_refresh_hint"] = json!(1.5);
    assert!(read(&changed).is_err());
    // It is advice only: nonsense below zero, which one library accepts, is as good as none.
    changed["spiffe_refresh_hint"] = json!(-5);
    assert_eq!(read(&changed).unwrap().refresh_hint, None);
}

#[test]
fn b_08_keys_are_present() {
    assert_eq!(document(&Bundle::new(td("td")))["keys"], json!([]));
    assert!(read(&json!({"keys": []})).unwrap().is_empty());
    assert!(read(&json!({"keys": null})).unwrap().is_empty(), "what go-spiffe writes of an empty bundle");
    assert_eq!(read(&json!({"spiffe_sequence": 1})), Err(BundleError::NoKeys));
}

#[test]
fn b_09_entries_of_unknown_type_or_use_are_skipped() {
    for entry in [
        json!({"kty": "OKP", "crv": "Ed25519", "use": "jwt-svid", "kid": "x", "x": "AA"}),
        json!({"kty": "EC", "crv": "secp256k1", "use": "jwt-svid", "kid": "x", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "crv": "P-256", "use": "other", "kid": "x", "x": "AA", "y": "AA"}),
        json!({"kty": "EC", "crv": "P-256", "use": "jwt-svid", "kid": "x", "x": "AA", "y": "AA"}),
        json!({"kty": "RSA", "use": "x509-svid", "x5c": ["AAAA"]}),
        json!({"kty": 5}),
        json!("text"),
    ] {
        let text = with_entry(entry.clone()).to_string();
        let (bundle, skipped) = Bundle::from_spiffe_json_reporting(td("td"), &text).unwrap();
        assert_eq!(bundle, full(), "{entry}");
        assert_eq!(skipped.len(), 1, "{entry}");
        assert_eq!(skipped[0].entry, 0);
    }
}

#[test]
fn b_10_an_empty_bundle_makes_every_svid_invalid() {
    let ca = Ca::new("td");
    let leaf = ca.leaf("spiffe://td/a");
    for empty in [json!({"keys": []}), json!({"keys": [{"kty": "OKP", "use": "x509-svid"}]})] {
        let bundle = read(&empty).unwrap();
        let refused = verify_svid(std::slice::from_ref(&leaf), &bundle, NOW);
        assert!(matches!(refused, Err(VerifyError::NoAuthority(_))));
        assert!(bundle.is_empty());
    }
    assert!(Bundle::from_x509_der(td("td"), &[]).unwrap().is_empty());
}

#[test]
fn b_11_no_other_members_are_published() {
    for jwk in document(&full())["keys"].as_array().unwrap() {
        for member in jwk.as_object().unwrap().keys() {
            let known = ["kty", "use", "kid", "x5c", "n", "e", "crv", "x", "y"];
            assert!(known.contains(&member.as_str()), "{member}");
        }
    }
}

#[test]
fn b_12_kty_is_published() {
    let types: Vec<_> =
        document(&full())["keys"].as_array().unwrap().iter().map(|jwk| jwk["kty"].clone()).collect();
    assert_eq!(types, ["EC", "EC", "EC", "RSA"]);
}

#[test]
fn b_13_unknown_kty_drops_the_entry() {
    for kty in [json!("OKP"), json!("oct"), json!("ec"), json!(""), Value::Null] {
        let bundle = read(&with_member("kty", kty.clone())).unwrap();
        assert!(bundle.jwt_authorities.is_empty(), "{kty}");
        assert_eq!(bundle.x509_authorities.len(), 1, "{kty}");
    }
}

#[test]
fn b_14_use_is_published() {
    let mut bundle = full();
    bundle.wit_authorities.push(jwt_authority("wit", key(1)));
    let uses: Vec<_> =
        document(&bundle)["keys"].as_array().unwrap().iter().map(|jwk| jwk["use"].clone()).collect();
    assert_eq!(uses, ["x509-svid", "jwt-svid", "jwt-svid", "jwt-svid", "wit-svid"]);
    assert_eq!(read(&document(&bundle)).unwrap(), bundle);
}

#[test]
fn b_15_missing_or_unknown_use_drops_the_entry() {
    for key_use in [Value::Null, json!(""), json!("sig"), json!("JWT-SVID"), json!("jwt-svid ")] {
        let bundle = read(&with_member("use", key_use.clone())).unwrap();
        assert!(bundle.jwt_authorities.is_empty(), "{key_use}");
        assert_eq!(bundle.x509_authorities.len(), 1, "{key_use}");
    }
}

#[test]
fn b_16_the_name_is_kept_with_the_bundle() {
    let text = full().to_spiffe_json();
    assert!(!text.contains("\"td\""));
    assert_eq!(Bundle::from_spiffe_json(td("named.test"), &text).unwrap().trust_domain, td("named.test"));
}

#[test]
fn b_17_the_bundle_is_chosen_by_trust_domain() {
    let (one, two) = (Ca::new("one.test"), Ca::new("two.test").intermediate("two.test"));
    let bundles: BTreeMap<_, _> =
        [&one, &two].map(|ca| (ca.trust_domain.clone(), ca.bundle())).into_iter().collect();
    // Each CA is good for its own domain only, though both are known.
    assert!(verify_svid(&[one.leaf("spiffe://one.test/a")], &bundles, NOW).is_ok());
    assert!(verify_svid(&[two.leaf("spiffe://two.test/a")], &bundles, NOW).is_ok());
    assert!(verify_svid(&[one.leaf("spiffe://two.test/a")], &bundles, NOW).is_err());
    assert!(verify_svid(&[two.leaf("spiffe://one.test/a")], &bundles, NOW).is_err());
    assert!(matches!(
        verify_svid(&[one.leaf("spiffe://three.test/a")], &bundles, NOW),
        Err(VerifyError::NoBundle(_))
    ));
    // JWT likewise: a key of one trust domain signs nothing in another.
    let mut other = full();
    other.trust_domain = td("other.test");
    let claims = jwt::Claims::new(&crate::support::id("spiffe://td/a"), &["a".into()], NOW, NOW + 9).unwrap();
    let algorithm = key(0).key_type().jws_algorithm();
    let input = jwt::signing_input(algorithm, "ec", &claims);
    let token = jwt::assemble(&input, algorithm, &key(0).sign(algorithm, input.as_bytes()).unwrap()).unwrap();
    assert!(jwt::validate(&token, &[full()][..], &["a".into()], NOW).is_ok());
    assert!(jwt::validate(&token, &[other][..], &["a".into()], NOW).is_err());
}

fn map() -> BundleMap {
    let bundles = ["one.test", "two.test"].map(|name| {
        let mut bundle = full();
        bundle.trust_domain = td(name);
        bundle.refresh_hint = None;
        (td(name), bundle)
    });
    BundleMap { bundles: bundles.into_iter().collect() }
}

#[test]
fn bm_01_trust_domains_are_present() {
    let empty: Value = serde_json::from_str(&BundleMap::default().to_json()).unwrap();
    assert_eq!(empty, json!({"trust_domains": {}}));
    assert_eq!(BundleMap::from_json(r#"{"trust_domains": {}}"#).unwrap(), BundleMap::default());
    assert_eq!(BundleMap::from_json("{}"), Err(BundleError::NoTrustDomains));
    assert!(BundleMap::from_json("[]").is_err());
}

#[test]
fn bm_02_keyed_by_trust_domain_name() {
    let written: Value = serde_json::from_str(&map().to_json()).unwrap();
    let names: Vec<_> = written["trust_domains"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["one.test", "two.test"]);
    for name in ["spiffe://one.test", "One.test", ""] {
        let text = json!({"trust_domains": {name: {"keys": []}}}).to_string();
        assert!(matches!(BundleMap::from_json(&text), Err(BundleError::BadTrustDomain { .. })), "{name}");
    }
}

#[test]
fn bm_03_written_names_are_unique() {
    let text = map().to_json();
    assert_eq!(text.matches("\"one.test\"").count(), 1);
    assert_eq!(BundleMap::from_json(&text).unwrap(), map());
}

#[test]
fn bm_04_duplicate_names_reject_the_map() {
    let text =
        r#"{"trust_domains": {"a.test": {"keys": []}, "b.test": {"keys": []}, "a.test": {"keys": []}}}"#;
    assert_eq!(BundleMap::from_json(text), Err(BundleError::DuplicateTrustDomain("a.test".into())));
}

#[test]
fn bm_05_nested_bundles_are_written_without_refresh_hint() {
    let mut map = map();
    for bundle in map.bundles.values_mut() {
        bundle.refresh_hint = Some(60);
    }
    assert!(!map.to_json().contains("spiffe_refresh_hint"));
}

#[test]
fn bm_06_nested_refresh_hints_mean_nothing() {
    let text = r#"{"trust_domains": {"a.test": {"keys": [], "spiffe_refresh_hint": 1}}}"#;
    assert_eq!(BundleMap::from_json(text).unwrap().bundles["a.test"].refresh_hint, None);
}

#[test]
fn bm_07_loaded_as_a_whole_with_nested_sequence_numbers() {
    assert!(map().bundles.values().all(|bundle| bundle.sequence_number == 7));
    assert_eq!(BundleMap::from_json(&map().to_json()).unwrap().bundles["one.test"].sequence_number, 7);
    // One unreadable bundle refuses all of it.
    let text = r#"{"trust_domains": {"a.test": {"keys": []}, "b.test": {}}}"#;
    assert!(BundleMap::from_json(text).is_err());
}
