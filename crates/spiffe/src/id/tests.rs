use proptest::prelude::*;

use super::*;

#[test]
fn messages_are_those_of_go_spiffe() {
    for (id, want) in [
        ("", "cannot be empty"),
        ("example.org/a", "scheme is missing or invalid"),
        ("http://example.org/a", "scheme is missing or invalid"),
        ("spiffe:/example.org", "scheme is missing or invalid"),
        ("spiffe://", "trust domain is missing"),
        ("spiffe:///a", "trust domain is missing"),
        (
            "spiffe://Example.org",
            "trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
        ),
        ("spiffe://td/", "path cannot have a trailing slash"),
        ("spiffe://td/a/", "path cannot have a trailing slash"),
        ("spiffe://td//", "path cannot contain empty segments"),
        ("spiffe://td/a//b", "path cannot contain empty segments"),
        ("spiffe://td/.", "path cannot contain dot segments"),
        ("spiffe://td/../b", "path cannot contain dot segments"),
        (
            "spiffe://td/a b",
            "path segment characters are limited to letters, numbers, dots, dashes, and underscores",
        ),
    ] {
        assert_eq!(SpiffeId::parse(id).unwrap_err().to_string(), want, "{id}");
    }
    for (name, want) in [
        ("", "trust domain is missing"),
        ("spiffe:/td", "scheme is missing or invalid"),
        ("spiffe://td/a/", "path cannot have a trailing slash"),
    ] {
        assert_eq!(TrustDomain::new(name).unwrap_err().to_string(), want, "{name}");
    }
    assert_eq!(validate_path("a").unwrap_err().to_string(), "path must have a leading slash");
}

#[test]
fn the_first_fault_from_the_left_is_named() {
    assert_eq!(SpiffeId::parse("spiffe://td/!//"), Err(IdError::BadPathSegmentChar));
    assert_eq!(SpiffeId::parse("spiffe://td//!"), Err(IdError::EmptySegment));
    assert_eq!(SpiffeId::parse("spiffe://td/./!"), Err(IdError::DotSegment));
}

#[test]
fn trust_domains_of_ids_and_names_are_equal() {
    let by_name = TrustDomain::new("example.org").unwrap();
    let by_id = SpiffeId::parse("spiffe://example.org/a/b").unwrap().trust_domain();
    assert_eq!(by_name, by_id);
    assert_eq!(by_name.cmp(&by_id), Ordering::Equal);
    assert_eq!(by_id.id_string(), "spiffe://example.org");
    assert_eq!(by_id.id(), by_name.id());
    assert_eq!(TrustDomain::new("spiffe://example.org/x").unwrap(), by_name);
    assert!(TrustDomain::from_name("spiffe://example.org").is_err());
    let set = std::collections::HashSet::from([by_name.clone()]);
    assert!(set.contains(&by_id) && set.contains("example.org"));
}

#[test]
fn members_are_told_by_the_whole_name() {
    let td = TrustDomain::new("example.org").unwrap();
    assert!(SpiffeId::parse("spiffe://example.org/a").unwrap().is_member_of(&td));
    assert!(!SpiffeId::parse("spiffe://example.org.evil/a").unwrap().is_member_of(&td));
    assert!(!SpiffeId::parse("spiffe://example.or/a").unwrap().is_member_of(&td));
}

#[test]
fn segments_hold_no_slash() {
    let td = TrustDomain::new("td").unwrap();
    assert_eq!(SpiffeId::from_segments(&td, &["a", "b"]).unwrap().as_str(), "spiffe://td/a/b");
    assert_eq!(SpiffeId::from_segments(&td, &[]).unwrap(), td.id());
    assert_eq!(SpiffeId::from_segments(&td, &["a/b"]), Err(IdError::BadPathSegmentChar));
    assert_eq!(SpiffeId::from_segments(&td, &[""]), Err(IdError::EmptySegment));
}

#[test]
fn serde_round_trips() {
    let id = SpiffeId::parse("spiffe://td/a").unwrap();
    let json = serde_json::to_string(&(&id, id.trust_domain())).unwrap();
    assert_eq!(json, r#"["spiffe://td/a","td"]"#);
    let back: (SpiffeId, TrustDomain) = serde_json::from_str(&json).unwrap();
    assert_eq!(back, (id.clone(), id.trust_domain()));
}

/// The grammar, written a second way: SPIFFE-ID §2 as a predicate.
fn naive_is_valid(id: &str) -> bool {
    let Some(rest) = id.strip_prefix("spiffe://") else { return false };
    let mut parts = rest.split('/');
    let host = parts.next().unwrap();
    let host_ok =
        !host.is_empty() && host.chars().all(|c| "abcdefghijklmnopqrstuvwxyz0123456789.-_".contains(c));
    host_ok
        && parts.all(|segment| {
            !matches!(segment, "" | "." | "..")
                && segment.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
        })
}

proptest! {
    #[test]
    fn any_valid_id_round_trips(host in "[a-z0-9._-]{1,40}", path in "(/[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,9}){0,5}") {
        let text = format!("spiffe://{host}{path}");
        let id = SpiffeId::parse(&text).unwrap();
        prop_assert_eq!(id.as_str(), &text);
        prop_assert_eq!(id.path(), &path);
        let trust_domain = id.trust_domain();
        prop_assert_eq!(trust_domain.name(), &host);
        prop_assert_eq!(SpiffeId::from_parts(&trust_domain, &path).unwrap(), id.clone());
        prop_assert!(id.is_member_of(&TrustDomain::new(&host).unwrap()));
        prop_assert_eq!(SpiffeId::parse_ignoring_case(&format!("SPIFFE://{}{path}", host.to_uppercase())).unwrap(), id);
    }

    #[test]
    fn parsing_agrees_with_the_grammar(id in "(spiffe://)?[a-bA-B./%:@?# _é-]{0,12}") {
        prop_assert_eq!(SpiffeId::parse(&id).is_ok(), naive_is_valid(&id), "{}", id);
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,60}") {
        let _ = SpiffeId::parse(&text);
        let _ = SpiffeId::parse_ignoring_case(&text);
        let _ = SpiffeId::from_uri(&text);
        let _ = TrustDomain::new(&text);
    }
}
