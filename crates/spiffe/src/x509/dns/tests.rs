use super::*;

fn text(name: &str) -> String {
    validate_dns_name(name).map_or_else(|e| e.to_string(), |()| "ok".into())
}

/// Each answer measured with SPIRE's own profile of Go's idna package.
#[test]
fn answers_equal_spires() {
    let long_label = "a".repeat(64);
    let name_of_253 =
        [["a"; 63].concat(), ["a"; 63].concat(), ["a"; 63].concat(), ["a"; 61].concat()].join(".");
    let name_of_254 = format!("{name_of_253}a");
    for ok in [
        "example.org",
        "EXAMPLE.org",
        "a_b",
        "x--y",
        "1.2.3.4",
        "a~b",
        "*.example.org",
        " example.org ",
        "a b",
        "xn--bcher-kva.example",
        "xn--nxasmq6b",
        "xn--fiqs8s",
        "xn--80ak6aa92e",
        "xn--zca",
        name_of_253.as_str(),
    ] {
        assert_eq!(text(ok), "ok", "{ok}");
    }
    for (name, want) in [
        ("", "empty or only whitespace".to_owned()),
        ("   ", "empty or only whitespace".into()),
        ("*.", "empty or only whitespace".into()),
        ("example.org.", "domain ends with dot".into()),
        ("*.*.example.org", "too many wildcards".into()),
        ("a.*.example.org", "wildcard must be first label".into()),
        ("*a.example.org", "wildcard must be first label".into()),
        ("*", "wildcard must be first label".into()),
        ("bücher.example", "name must be ascii".into()),
        ("a..b", "idna error\nidna: invalid label \"a..b\"".into()),
        (".a", "idna error\nidna: invalid label \".a\"".into()),
        ("-a", "idna error\nidna: invalid label \"-a\"".into()),
        ("a.-b", "idna error\nidna: invalid label \"-b\"".into()),
        ("b-.a", "idna error\nidna: invalid label \"b-\"".into()),
        ("ab--cd", "idna error\nidna: invalid label \"ab--cd\"".into()),
        ("XN--bcher-kva", "idna error\nidna: invalid label \"XN--bcher-kva\"".into()),
        ("-..a", "idna error\nidna: invalid label \"-\"".into()),
        (
            "xn--bcher-kvA.a",
            "input domain name \"xn--bcher-kvA.a\" does not match idna output \"xn--bcher-kva.a\": \
             label mismatch after idna"
                .into(),
        ),
        ("xn--", "idna error\nidna: invalid label \"\"".into()),
        ("xn--99999", "idna error\nidna: invalid label \"99999\"".into()),
        ("xn--abc-", "idna error\nidna: invalid label \"abc-\"".into()),
        ("xn--a", "idna error\nidna: invalid label \"\\u0080\"".into()),
        ("xn--a-ecp.ru", "idna error\nidna: invalid label \"a⒈\"".into()),
        (&long_label, format!("idna error\nidna: invalid label \"{long_label}\"")),
        (&name_of_254, format!("idna error\nidna: invalid label \"{name_of_254}\"")),
    ] {
        assert_eq!(text(name), want, "{name}");
    }
}

#[test]
fn control_characters_inside_are_refused() {
    for name in ["a\tb", "a\0b", "a\u{7f}b"] {
        assert!(text(name).starts_with("idna error\nidna: disallowed rune U+00"), "{name:?}");
    }
}

#[test]
fn wildcards_do_not_cover_other_names_of_the_list() {
    let check =
        |names: &[&str]| check_wildcard_overlap(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
    assert!(check(&[]).is_ok());
    assert!(check(&["a.test", "*.b.test", "x.y.b.test", "b.test"]).is_ok());
    assert_eq!(
        check(&["*.b.test", "a.b.test"]).unwrap_err().to_string(),
        "name \"a.b.test\" overlaps with an existing wildcard name in the list: wildcard overlap"
    );
}
