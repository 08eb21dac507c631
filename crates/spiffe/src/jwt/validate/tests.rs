use proptest::prelude::*;

use super::*;

#[test]
fn spires_agent_has_texts_of_its_own() {
    for (error, want) in [
        (JwtError::Malformed("why".into()), "unable to parse JWT token: why"),
        (JwtError::BadSubject(IdError::Empty), "token has in invalid subject claim: cannot be empty"),
        (JwtError::NoBundle("td".into()), "no keys found for trust domain \"td\""),
        (
            JwtError::NoAuthority { key_id: "k".into(), trust_domain: "td".into() },
            "public key \"k\" not found in trust domain \"td\"",
        ),
        (JwtError::BadSignature, "go-jose/go-jose: error in cryptographic primitive"),
        (JwtError::Expired, "token has expired"),
        (JwtError::MissingKeyId, "token header missing key id"),
    ] {
        assert_eq!(error.spire_text(), want);
    }
}

#[test]
fn tokens_stay_out_of_debug() {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"k"}"#);
    let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"spiffe://td/a","aud":"x","exp":1}"#);
    let token = format!("{header}.{payload}.c2lnbmF0dXJl");
    let svid = parse_insecure(&token).unwrap();
    assert_eq!(svid.token(), token);
    assert!(!format!("{svid:?}").contains("c2lnbmF0dXJl"));
}

#[test]
fn oversized_tokens_are_refused_unread() {
    let token = "a".repeat(MAX_TOKEN_LEN + 1);
    assert!(matches!(parse_insecure(&token), Err(JwtError::Malformed(_))));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "[A-Za-z0-9_.-]{0,80}", json in "\\PC{0,40}") {
        let _ = parse_insecure(&text);
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#);
        let _ = parse_insecure(&format!("{header}.{}.", URL_SAFE_NO_PAD.encode(json)));
    }
}
