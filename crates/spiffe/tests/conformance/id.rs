//! SPIFFE-ID.

use steeple_spiffe::x509::{self, X509Error};
use steeple_spiffe::{IdError, SpiffeId, TrustDomain, jwt};

use crate::support::{Ca, HOUR, NOW, id, key, leaf_template, td};

fn parse(text: &str) -> Result<SpiffeId, IdError> {
    SpiffeId::parse(text)
}

#[test]
fn id_01_scheme_is_spiffe() {
    assert!(parse("spiffe://td/a").is_ok());
    for text in
        ["td/a", "//td/a", "http://td/a", "spiffes://td/a", "xspiffe://td/a", "spiffe:td/a", "spiffe:/td/a"]
    {
        assert_eq!(parse(text), Err(IdError::WrongScheme), "{text}");
    }
    assert_eq!(parse(""), Err(IdError::Empty));
}

#[test]
fn id_02_trust_domain_is_not_empty() {
    assert_eq!(parse("spiffe://"), Err(IdError::MissingTrustDomain));
    assert_eq!(parse("spiffe:///x"), Err(IdError::MissingTrustDomain));
    assert_eq!(TrustDomain::new(""), Err(IdError::MissingTrustDomain));
}

#[test]
fn id_03_no_query_not_even_an_empty_one() {
    for text in ["spiffe://td?q", "spiffe://td/a?q=1", "spiffe://td/a?", "spiffe://td?"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn id_04_no_fragment() {
    for text in ["spiffe://td#f", "spiffe://td/a#f", "spiffe://td/a#"] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn id_05_no_userinfo() {
    for text in ["spiffe://user@td/a", "spiffe://user:pw@td/a", "spiffe://@td/a"] {
        assert_eq!(parse(text), Err(IdError::BadTrustDomainChar), "{text}");
    }
}

#[test]
fn id_06_no_port() {
    for text in ["spiffe://td:8080/a", "spiffe://td:/a", "spiffe://td:"] {
        assert_eq!(parse(text), Err(IdError::BadTrustDomainChar), "{text}");
    }
}

#[test]
fn id_07_trust_domain_is_lower_case() {
    assert_eq!(parse("spiffe://TD/a"), Err(IdError::BadTrustDomainChar));
    assert_eq!(parse("spiffe://example.Org"), Err(IdError::BadTrustDomainChar));
}

#[test]
fn id_08_trust_domain_characters() {
    assert!(parse("spiffe://abcdefghijklmnopqrstuvwxyz0123456789.-_/a").is_ok());
    for byte in (0..=127_u8).filter(|b| *b != b'/') {
        let text = format!("spiffe://t{}d/a", char::from(byte));
        let legal = byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        assert_eq!(parse(&text).is_ok(), legal, "{text:?}");
    }
    assert!(parse("spiffe://tdé/a").is_err());
    assert!(parse("spiffe://[::1]/a").is_err(), "IPv6 literal");
    assert!(parse("spiffe://192.168.0.1/a").is_ok(), "IPv4 quad");
}

#[test]
fn id_09_no_percent_encoding_in_the_trust_domain() {
    assert!(parse("spiffe://t%64/a").is_err());
    assert!(parse("spiffe://td%20/a").is_err());
}

#[test]
fn id_10_names_that_look_like_dns_or_ip_are_not_special() {
    for name in ["-a", "a-", "a..b", ".a", "a.", "_", "-", ".", "..", "1", "999.999.999.999", "xn--a"] {
        assert_eq!(parse(&format!("spiffe://{name}/x")).unwrap().trust_domain().name(), name);
    }
}

#[test]
fn id_11_no_percent_encoding_in_the_path() {
    for text in ["spiffe://td/%61", "spiffe://td/a%2Fb", "spiffe://td/%"] {
        assert_eq!(parse(text), Err(IdError::BadPathSegmentChar), "{text}");
    }
}

#[test]
fn id_12_no_empty_segments() {
    for text in ["spiffe://td//", "spiffe://td//a", "spiffe://td/a//b"] {
        assert_eq!(parse(text), Err(IdError::EmptySegment), "{text}");
    }
}

#[test]
fn id_13_no_dot_segments() {
    for text in
        ["spiffe://td/.", "spiffe://td/..", "spiffe://td/a/./b", "spiffe://td/a/../b", "spiffe://td/a/.."]
    {
        assert_eq!(parse(text), Err(IdError::DotSegment), "{text}");
    }
    for text in ["spiffe://td/...", "spiffe://td/.a", "spiffe://td/..a", "spiffe://td/a."] {
        assert!(parse(text).is_ok(), "{text}");
    }
}

#[test]
fn id_14_no_trailing_slash() {
    assert_eq!(parse("spiffe://td/"), Err(IdError::TrailingSlash));
    assert_eq!(parse("spiffe://td/a/"), Err(IdError::TrailingSlash));
    assert_eq!(parse("spiffe://td").unwrap().path(), "");
}

#[test]
fn id_15_path_characters() {
    for byte in (0..=127_u8).filter(|b| *b != b'/') {
        let text = format!("spiffe://td/a{}b", char::from(byte));
        let legal = byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        assert_eq!(parse(&text).is_ok(), legal, "{text:?}");
    }
    assert!(parse("spiffe://td/é").is_err());
}

#[test]
fn id_16_ids_of_2048_bytes_work_end_to_end() {
    let text = format!("spiffe://td/{}", "a".repeat(2048 - "spiffe://td/".len()));
    assert_eq!(text.len(), 2048);
    let long = parse(&text).unwrap();
    assert_eq!(SpiffeId::from_parts(&td("td"), long.path()).unwrap(), long);
    let ca = Ca::new("td");
    let leaf = ca.leaf(&text);
    assert_eq!(ca.verify(&leaf).unwrap(), long);
    let claims = jwt::Claims::new(&long, &["a".into()], NOW, NOW + HOUR).unwrap();
    let algorithm = key(0).key_type().jws_algorithm();
    let input = jwt::signing_input(algorithm, "k", &claims);
    let token = jwt::assemble(&input, algorithm, &key(0).sign(algorithm, input.as_bytes()).unwrap()).unwrap();
    assert_eq!(jwt::parse_insecure(&token).unwrap().id, long);
}

#[test]
fn id_17_ids_over_2048_bytes_are_never_made() {
    let path = format!("/{}", "a".repeat(2048));
    assert_eq!(SpiffeId::from_parts(&td("td"), &path), Err(IdError::TooLong));
    // Others may have made one: it can be read, but no certificate is issued for it.
    let long = format!("spiffe://td{path}");
    let template = leaf_template(&long);
    let refused = x509::leaf_tbs(&template, &Ca::new("td").issuer());
    assert_eq!(refused, Err(X509Error::Id(IdError::TooLong)));
    assert!(jwt::Claims::new(&id(&long), &["a".into()], NOW, NOW + HOUR).is_err());
}

#[test]
fn id_18_trust_domains_over_255_bytes_are_marked() {
    assert!(!td(&"a".repeat(255)).is_overlong());
    // SPIRE runs such trust domains with a warning, so they are readable.
    assert!(td(&"a".repeat(256)).is_overlong());
}

#[test]
fn id_19_scheme_and_trust_domain_compare_without_case_paths_with_it() {
    let canonical = id("spiffe://example.org/Path");
    for text in ["SPIFFE://EXAMPLE.ORG/Path", "Spiffe://Example.org/Path", "spiffe://example.org/Path"] {
        assert_eq!(SpiffeId::parse_ignoring_case(text).unwrap(), canonical, "{text}");
    }
    assert_ne!(SpiffeId::parse_ignoring_case("spiffe://example.org/path").unwrap(), canonical);
    assert_ne!(id("spiffe://example.org/path"), canonical);
}

#[test]
fn id_20_the_authority_has_an_svid_of_its_own() {
    let authority = Ca::new("example.org").certificate;
    assert_eq!(authority.spiffe_id().unwrap(), id("spiffe://example.org"));
}

#[test]
fn id_21_the_authority_is_in_the_trust_domain_it_signs_for() {
    let ca = Ca::new("example.org");
    let leaf = ca.leaf("spiffe://example.org/a");
    let authority = ca.certificate.spiffe_id().unwrap().trust_domain();
    assert_eq!(authority, leaf.spiffe_id().unwrap().trust_domain());
}

#[test]
fn id_22_the_authority_id_has_no_path() {
    assert_eq!(Ca::new("example.org").certificate.spiffe_id().unwrap().path(), "");
    assert_eq!(Ca::new("a.test").intermediate("b.test").certificate.spiffe_id().unwrap().path(), "");
}

#[test]
fn id_23_id_and_public_key_are_in_the_signed_part() {
    let ca = Ca::new("td");
    let template = leaf_template("spiffe://td/a");
    let tbs = x509::leaf_tbs(&template, &ca.issuer()).unwrap();
    let holds = |part: &[u8]| tbs.windows(part.len()).any(|window| window == part);
    assert!(holds(b"spiffe://td/a"));
    assert!(holds(template.public_key.spki_der()));
    // A changed ID breaks the signature.
    let mut der = ca.issue(&template).der().to_vec();
    let at = der.windows(13).position(|window| window == b"spiffe://td/a").unwrap();
    der[at + 12] = b'b';
    let forged = x509::Certificate::from_der(&der).unwrap();
    assert_eq!(forged.spiffe_id().unwrap(), id("spiffe://td/b"));
    assert!(ca.verify(&forged).is_err());
}

#[test]
fn id_24_only_defined_formats_are_svids() {
    for text in ["", "spiffe://td/a", "{}", "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"] {
        assert!(x509::Certificate::from_der(text.as_bytes()).is_err());
        assert!(jwt::parse_insecure(text).is_err());
    }
}

#[test]
fn id_25_only_an_authority_of_its_own_trust_domain_makes_an_svid_valid() {
    let (own, foreign) = (Ca::new("own.test"), Ca::new("foreign.test"));
    let leaf = foreign.leaf("spiffe://own.test/a");
    let bundles = [own.bundle(), foreign.bundle()];
    assert!(x509::verify_svid(&[own.leaf("spiffe://own.test/a")], &bundles[..], NOW).is_ok());
    assert!(x509::verify_svid(&[leaf], &[foreign.bundle()][..], NOW).is_err());
}
