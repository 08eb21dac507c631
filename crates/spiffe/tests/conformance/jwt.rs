//! JWT-SVID.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use steeple_spiffe::bundle::JwtAuthority;
use steeple_spiffe::jwt::{self, Claims, JwtError, JwtSvid, parse_insecure, validate};
use steeple_spiffe::{Bundle, PrivateKey, PublicKey, SignatureAlgorithm};

use crate::support::{HOUR, NOW, id, key, p384, rsa, td};

fn authority(key_id: &str, public_key: PublicKey) -> JwtAuthority {
    JwtAuthority { key_id: key_id.into(), public_key, expires_at: 0, tainted: false }
}

/// Trust domain `td` with the pool's P-256 key as `k`, P-384 as `k384`, RSA as `rsa`.
fn bundle() -> Bundle {
    let mut bundle = Bundle::new(td("td"));
    bundle.jwt_authorities = vec![
        authority("k", key(0).public_key()),
        authority("k384", p384().public_key()),
        authority("rsa", rsa().public_key()),
    ];
    bundle
}

fn encode(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn sign(input: &str, algorithm: SignatureAlgorithm, key: &PrivateKey) -> String {
    jwt::assemble(input, algorithm, &key.sign(algorithm, input.as_bytes()).unwrap()).unwrap()
}

/// A token of any header and payload, signed by the P-256 key.
fn odd(header: &Value, payload: &Value) -> String {
    let input = format!("{}.{}", encode(header), encode(payload));
    sign(&input, SignatureAlgorithm::EcdsaSha256, key(0))
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "k", "typ": "JWT"})
}

fn payload() -> Value {
    json!({"sub": "spiffe://td/a", "aud": ["me", "you"], "exp": NOW + HOUR, "iat": NOW})
}

/// The good payload with one member changed, or removed when null.
fn payload_with(name: &str, value: Value) -> Value {
    let mut payload = payload();
    if value.is_null() {
        payload.as_object_mut().unwrap().remove(name);
    } else {
        payload[name] = value;
    }
    payload
}

fn header_with(name: &str, value: Value) -> Value {
    let mut header = header();
    header[name] = value;
    header
}

fn check(token: &str) -> Result<JwtSvid, JwtError> {
    validate(token, &bundle(), &["me".into()], NOW)
}

fn check_payload(name: &str, value: Value) -> Result<JwtSvid, JwtError> {
    check(&odd(&header(), &payload_with(name, value)))
}

fn issued() -> String {
    let claims = Claims::new(&id("spiffe://td/a"), &["me".into()], NOW, NOW + 300).unwrap();
    let algorithm = key(0).key_type().jws_algorithm();
    sign(&jwt::signing_input(algorithm, "k", &claims), algorithm, key(0))
}

fn parts(token: &str) -> (Value, Value) {
    let mut parts =
        token.split('.').map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap());
    (parts.next().unwrap(), parts.next().unwrap())
}

#[test]
fn j_01_compact_serialization_only() {
    let token = issued();
    assert_eq!(token.split('.').count(), 3);
    assert!(token.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c)));
    let mut at = token.split('.');
    let (protected, payload, signature) = (at.next().unwrap(), at.next().unwrap(), at.next().unwrap());
    let flat = json!({"protected": protected, "payload": payload, "signature": signature});
    let general =
        json!({"payload": payload, "signatures": [{"protected": protected, "signature": signature}]});
    for text in
        [flat.to_string(), general.to_string(), format!("{token}."), format!(".{token}"), String::new()]
    {
        assert!(matches!(check(&text), Err(JwtError::Malformed(_))), "{text}");
    }
}

#[test]
fn j_02_no_jwe() {
    let text = format!("{}.a.b.c.d", encode(&json!({"alg": "RSA-OAEP", "enc": "A256GCM"})));
    assert!(matches!(check(&text), Err(JwtError::Malformed(_))));
}

#[test]
fn j_03_header_holds_alg_kid_and_typ_only() {
    let (header, _) = parts(&issued());
    let names: Vec<_> = header.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["alg", "kid", "typ"]);
    // It binds issuers: headers others add are ignored, their keys never used.
    for (name, value) in
        [("jku", json!("https://evil.test")), ("jwk", json!({"kty": "EC"})), ("x5t", json!("a"))]
    {
        assert!(check(&odd(&header_with(name, value), &payload())).is_ok(), "{name}");
    }
}

#[test]
fn j_04_algorithms_of_issued_tokens() {
    for (key, kid, want) in [(key(0), "k", "ES256"), (p384(), "k384", "ES384"), (rsa(), "rsa", "RS256")] {
        let claims = Claims::new(&id("spiffe://td/a"), &["me".into()], NOW, NOW + 300).unwrap();
        let algorithm = key.key_type().jws_algorithm();
        let token = sign(&jwt::signing_input(algorithm, kid, &claims), algorithm, key);
        assert_eq!(parts(&token).0["alg"], want);
        assert!(check(&token).is_ok(), "{want}");
    }
}

#[test]
fn j_04_all_nine_algorithms_are_verified() {
    use SignatureAlgorithm as A;
    for algorithm in [
        A::RsaPkcs1Sha256,
        A::RsaPkcs1Sha384,
        A::RsaPkcs1Sha512,
        A::RsaPssSha256,
        A::RsaPssSha384,
        A::RsaPssSha512,
    ] {
        let header = json!({"alg": algorithm.jws_name(), "kid": "rsa"});
        let token = sign(&format!("{}.{}", encode(&header), encode(&payload())), algorithm, rsa());
        assert!(check(&token).is_ok(), "{algorithm}");
    }
    // ES512 is never issued, so its key is the crypto library's own.
    static P521: &EcdsaSigningAlgorithm = &ECDSA_P521_SHA512_FIXED_SIGNING;
    let pair = EcdsaKeyPair::generate(P521).unwrap();
    let mut spki = vec![0x30, 0x81, 0x9b, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    spki.extend([0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23, 0x03, 0x81, 0x86, 0x00]);
    spki.extend_from_slice(pair.public_key().as_ref());
    let mut bundle = Bundle::new(td("td"));
    bundle.jwt_authorities = vec![authority("p521", PublicKey::from_spki_der(&spki).unwrap())];
    // Through the bundle document, as a consumer gets it.
    let bundle = Bundle::from_spiffe_json(td("td"), &bundle.to_spiffe_json()).unwrap();
    let input = format!("{}.{}", encode(&json!({"alg": "ES512", "kid": "p521"})), encode(&payload()));
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert!(validate(&token, &bundle, &["me".into()], NOW).is_ok());
}

#[test]
fn j_05_other_algorithms_are_rejected() {
    for alg in ["none", "None", "HS256", "HS384", "HS512", "EdDSA", "ES256K", "es256", "Es256", "", "RS1"] {
        let input = format!("{}.{}", encode(&json!({"alg": alg, "kid": "k"})), encode(&payload()));
        for token in [format!("{input}."), sign(&input, SignatureAlgorithm::EcdsaSha256, key(0))] {
            assert!(matches!(check(&token), Err(JwtError::Malformed(_))), "{alg}");
            assert!(parse_insecure(&token).is_err(), "{alg}");
        }
    }
    // The public key as an HMAC secret: the classic confusion.
    let input = format!("{}.{}", encode(&json!({"alg": "HS256", "kid": "rsa"})), encode(&payload()));
    let secret = hmac::Key::new(hmac::HMAC_SHA256, rsa().public_key().spki_der());
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&secret, input.as_bytes())));
    assert!(check(&token).is_err());
    assert!(check(&odd(&json!({"kid": "k"}), &payload())).is_err(), "no alg at all");
    // An algorithm that does not go with the key.
    let input = format!("{}.{}", encode(&json!({"alg": "ES256", "kid": "rsa"})), encode(&payload()));
    assert_eq!(check(&sign(&input, SignatureAlgorithm::EcdsaSha256, key(0))), Err(JwtError::BadSignature));
    let input = format!("{}.{}", encode(&json!({"alg": "ES384", "kid": "k"})), encode(&payload()));
    assert_eq!(check(&sign(&input, SignatureAlgorithm::EcdsaSha384, p384())), Err(JwtError::BadSignature));
}

#[test]
fn j_06_kid_is_optional_to_parse_and_needed_to_validate() {
    let token = odd(&json!({"alg": "ES256"}), &payload());
    assert_eq!(parse_insecure(&token).unwrap().key_id, None);
    assert_eq!(check(&token), Err(JwtError::MissingKeyId));
    assert_eq!(check(&odd(&header_with("kid", json!("")), &payload())), Err(JwtError::MissingKeyId));
}

#[test]
fn j_07_typ_is_jwt_or_jose() {
    assert_eq!(parts(&issued()).0["typ"], "JWT");
    for typ in ["JWT", "JOSE"] {
        assert!(check(&odd(&header_with("typ", json!(typ)), &payload())).is_ok());
    }
    assert!(check(&odd(&json!({"alg": "ES256", "kid": "k"}), &payload())).is_ok(), "absent");
    for typ in
        [json!("jwt"), json!("jose"), json!(""), json!("wit+jwt"), json!("at+jwt"), json!(1), json!(null)]
    {
        assert_eq!(
            check(&odd(&header_with("typ", typ.clone()), &payload())),
            Err(JwtError::WrongType),
            "{typ}"
        );
    }
}

#[test]
fn j_08_other_claims_are_allowed() {
    let claims = Claims::new(&id("spiffe://td/a"), &["me".into()], NOW, NOW + 300)
        .unwrap()
        .with("iss", "https://issuer.example.org")
        .with("https://example.org/team", json!(["x", 1]))
        .with("sub", "spiffe://td/other");
    let algorithm = key(0).key_type().jws_algorithm();
    let svid = check(&sign(&jwt::signing_input(algorithm, "k", &claims), algorithm, key(0))).unwrap();
    assert_eq!(svid.claims["iss"], "https://issuer.example.org");
    assert_eq!(svid.claims["https://example.org/team"], json!(["x", 1]));
    assert_eq!(svid.id, id("spiffe://td/a"), "the subject cannot be replaced");
}

#[test]
fn j_09_sub_is_the_spiffe_id() {
    assert_eq!(parts(&issued()).1["sub"], "spiffe://td/a");
    assert_eq!(check_payload("sub", Value::Null), Err(JwtError::MissingSubject));
    assert_eq!(check_payload("sub", json!("")), Err(JwtError::MissingSubject));
    for sub in ["a", "https://td/a", "spiffe://td/a/"] {
        assert!(matches!(check_payload("sub", json!(sub)), Err(JwtError::BadSubject(_))), "{sub}");
    }
    assert!(matches!(check_payload("sub", json!(7)), Err(JwtError::MalformedClaims(_))));
}

#[test]
fn j_10_aud_holds_at_least_one_value() {
    assert_eq!(parts(&issued()).1["aud"], json!(["me"]));
    let id = id("spiffe://td/a");
    assert_eq!(Claims::new(&id, &[], NOW, NOW + 300), Err(JwtError::MissingAudience));
    assert_eq!(Claims::new(&id, &[String::new()], NOW, NOW + 300), Err(JwtError::MissingAudience));
}

#[test]
fn j_11_token_without_aud_is_rejected() {
    for aud in [Value::Null, json!([]), json!("")] {
        let token = odd(&header(), &payload_with("aud", aud.clone()));
        assert_eq!(check(&token), Err(JwtError::MissingAudience), "{aud}");
        assert_eq!(validate(&token, &bundle(), &[], NOW), Err(JwtError::MissingAudience));
        assert!(parse_insecure(&token).is_err());
    }
}

#[test]
fn j_12_own_audience_is_among_those_of_the_token() {
    let token = odd(&header(), &payload());
    for own in ["me", "you"] {
        assert!(validate(&token, &bundle(), &[own.into()], NOW).is_ok());
    }
    let error = validate(&token, &bundle(), &["other".into()], NOW).unwrap_err();
    assert_eq!(error.to_string(), r#"expected audience in ["other"] (audience=["me" "you"])"#);
    for own in [vec![], vec!["Me".to_owned()], vec!["m".to_owned()]] {
        assert!(matches!(validate(&token, &bundle(), &own, NOW), Err(JwtError::WrongAudience { .. })));
    }
    assert!(validate(&token, &bundle(), &["other".into(), "you".into()], NOW).is_ok(), "one of several");
}

#[test]
fn j_14_exp_is_present() {
    assert_eq!(parts(&issued()).1["exp"], json!(NOW + 300));
}

#[test]
fn j_15_token_without_exp_is_rejected() {
    assert_eq!(check_payload("exp", Value::Null), Err(JwtError::MissingExpiry));
    for exp in [json!("soon"), json!([]), json!(1e300)] {
        assert!(matches!(check_payload("exp", exp), Err(JwtError::MalformedClaims(_))));
    }
}

#[test]
fn j_16_expired_token_is_rejected() {
    assert_eq!(check_payload("exp", json!(NOW - 61)), Err(JwtError::Expired));
    assert!(check_payload("exp", json!(NOW - 60)).is_ok(), "small leeway");
    assert!(check_payload("exp", json!(NOW + 100 * 365 * 24 * HOUR)).is_ok(), "no upper bound");
    for far in [i64::MIN, -1, 0] {
        assert_eq!(check_payload("exp", json!(far)), Err(JwtError::Expired));
    }
    assert_eq!(check_payload("nbf", json!(NOW + 61)), Err(JwtError::NotYetValid));
    assert_eq!(check_payload("iat", json!(NOW + 61)), Err(JwtError::IssuedInTheFuture));
}

#[test]
fn j_17_algorithm_is_checked_before_anything_else() {
    // Every other part is wrong as well; the algorithm is what is named.
    let token = format!("{}.{}.!", encode(&json!({"alg": "none", "typ": "x", "crit": ["x"]})), "not-json");
    let error = check(&token).unwrap_err();
    assert_eq!(
        error.spire_text(),
        "unable to parse JWT token: unexpected signature algorithm \"none\"; expected [\"ES256\" \"ES384\" \
         \"ES512\" \"RS256\" \"RS384\" \"RS512\" \"PS256\" \"PS384\" \"PS512\"]"
    );
}

#[test]
fn j_18_aud_and_exp_as_rfc_7519_allows_them() {
    assert_eq!(check_payload("aud", json!("me")).unwrap().audience, ["me"]);
    assert_eq!(check_payload("aud", json!(["me"])).unwrap().audience, ["me"]);
    for aud in [json!(5), json!([5]), json!({"me": 1})] {
        assert!(matches!(check_payload("aud", aud), Err(JwtError::MalformedClaims(_))));
    }
    let fraction = check_payload("exp", json!(NOW as f64 + 0.5)).unwrap();
    assert_eq!(fraction.expires_at, NOW);
}

#[test]
fn j_21_one_jwk_per_signing_key() {
    let document: Value = serde_json::from_str(&bundle().to_spiffe_json()).unwrap();
    let keys = document["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3);
    assert!(keys.iter().all(|jwk| jwk["use"] == "jwt-svid"));
}

#[test]
fn j_22_kid_is_set_on_each() {
    let document: Value = serde_json::from_str(&bundle().to_spiffe_json()).unwrap();
    let kids: Vec<_> = document["keys"].as_array().unwrap().iter().map(|jwk| jwk["kid"].clone()).collect();
    assert_eq!(kids, ["k", "k384", "rsa"]);
    // A consumer leaves out an entry without, instead of losing the rest.
    let text = bundle().to_spiffe_json().replacen("\"kid\": \"k\",", "", 1);
    let read = Bundle::from_spiffe_json(td("td"), &text).unwrap();
    assert_eq!(read.jwt_authorities.len(), 2);
}

#[test]
fn j_23_only_jwt_svid_entries_validate() {
    for key_use in ["x509-svid", "wit-svid", "sig", "enc", "JWT-SVID"] {
        let text = bundle().to_spiffe_json().replace("jwt-svid", key_use);
        let read = Bundle::from_spiffe_json(td("td"), &text).unwrap();
        let refused = validate(&issued(), &read, &["me".into()], NOW);
        assert!(matches!(refused, Err(JwtError::NoAuthority { .. })), "{key_use}");
    }
}

#[test]
fn j_24_without_jwt_entries_no_jwt_svid_is_valid() {
    let refused = validate(&issued(), &Bundle::new(td("td")), &["me".into()], NOW).unwrap_err();
    assert_eq!(refused.to_string(), r#"no JWT authority "k" found for trust domain "td""#);
    let refused = validate(&issued(), &Bundle::new(td("other")), &["me".into()], NOW).unwrap_err();
    assert_eq!(refused.to_string(), r#"no bundle found for trust domain "td""#);
}

#[test]
fn j_25_jti_may_be_there_and_is_not_tracked() {
    let token = odd(&header(), &payload_with("jti", json!("once")));
    for _ in 0..2 {
        assert_eq!(check(&token).unwrap().claims["jti"], "once");
    }
}

#[test]
fn j_26_issued_tokens_fit_the_schema() {
    let (header, payload) = parts(&issued());
    assert!(header["alg"].is_string() && header["kid"].is_string() && header["typ"] == "JWT");
    assert!(payload["sub"].is_string() && payload["exp"].is_i64());
    // The schema knows aud as a string only, against RFC 7519 and SPIRE: it is a list of strings here (J-18).
    assert!(payload["aud"].as_array().unwrap().iter().all(Value::is_string));
}

#[test]
fn a_changed_token_is_rejected() {
    let token = issued();
    let mut parts: Vec<&str> = token.split('.').collect();
    let other = encode(&payload_with("sub", json!("spiffe://td/admin")));
    parts[1] = &other;
    assert_eq!(check(&parts.join(".")), Err(JwtError::BadSignature));
    for cut in [1, 2, 10, 86] {
        assert!(check(&token[..token.len() - cut]).is_err());
    }
}

#[test]
fn critical_headers_are_rejected() {
    // RFC 7515 §4.1.11.
    for crit in [json!(["exp"]), json!(["b64"]), json!([])] {
        let token = odd(&header_with("crit", crit), &payload());
        assert!(matches!(check(&token), Err(JwtError::Malformed(_))));
    }
}
