use super::*;

fn expand(text: &str) -> String {
    expand_env(text, |name| match name {
        "HOME" => Some("/root".to_owned()),
        "EMPTY" => Some(String::new()),
        "1" => Some("one".to_owned()),
        "a b" => Some("spaced".to_owned()),
        _ => None,
    })
}

#[test]
fn expands_as_os_expand() {
    // Right-hand sides observed from Go 1.26's os.Expand with SPIRE's `$` rule.
    let cases = [
        ("", ""),
        ("plain", "plain"),
        ("$HOME/x", "/root/x"),
        ("${HOME}x", "/rootx"),
        ("x$UNDEFINED-y", "x-y"),
        ("x${UNDEFINED}y", "xy"),
        ("$EMPTY.", "."),
        ("$$HOME", "$HOME"),
        ("${$}HOME", "$HOME"),
        ("$1two", "onetwo"),
        ("${a b}", "spaced"),
        ("${}x", "x"),
        ("${", ""),
        ("${HOME", "HOME"),
        ("a$", "a$"),
        ("$ x", "$ x"),
        ("$\"", "$\""),
        ("$é", "$é"),
        ("é$HOME", "é/root"),
        ("$HOME$HOME", "/root/root"),
        ("$(x)", "$(x)"),
        ("$-", ""),
    ];
    for (text, want) in cases {
        assert_eq!(expand(text), want, "{text:?}");
    }
}

#[test]
fn unset_in_the_process_is_empty() {
    assert_eq!(expand_process_env("a${STEEPLE_NEVER_SET_ANYWHERE}b"), "ab");
}
