use super::*;

#[test]
fn undoes_hcl_escapes() {
    let cases = [
        (r#"\a\b\f\n\r\t\v\\\""#, "\u{7}\u{8}\u{c}\n\r\t\u{b}\\\""),
        (r"\x41\101\u00e9\U0001F600", "AAé😀"),
        (r"\xc3\xa9", "é"),
        (r"\ud800", "\u{fffd}"),
        (r"${\t}\t", "${\\t}\t"),
        (r"${a{b}}\n", "${a{b}}\n"),
        ("$", "$"),
        (r"$\x7bb", "${b"),
    ];
    for (source, value) in cases {
        assert_eq!(unquote_hcl(source).as_deref(), Ok(value), "{source}");
    }
}

#[test]
fn refuses_escapes_out_of_range() {
    for source in [r"\777", r"\U00110000", r"\U9001F600", r"\xff", r"\8", r"\q", r"\", r"\/", r"\x4", "${a"] {
        assert!(unquote_hcl(source).is_err(), "{source}");
    }
}

#[test]
fn undoes_json_escapes() {
    let cases = [
        (r"\u003c\u00e9\/", "<é/"),
        (r"\ud83d\ude00", "😀"),
        (r"\ud83d\u0041", "\u{fffd}A"),
        (r"\ud83d", "\u{fffd}"),
        (r"${\n}", "${\n}"),
    ];
    for (source, value) in cases {
        assert_eq!(unquote_json(source).as_deref(), Ok(value), "{source}");
    }
    assert!(unquote_json(r"\u12").is_err());
}

#[test]
fn cuts_the_indentation_of_heredocs() {
    let cases = [
        ("<<E\na\n b\nE\n", "a\n b\n"),
        ("<<E\nE\n", ""),
        ("<<-E\n  a\n    b\n  E\n", "a\n  b\n"),
        // A line with less indentation than the marker: everything stays, but the marker's own is cut off.
        ("<<-E\n a\n   E\n", " a\n"),
        // Not so in the plain form.
        ("<<E\na\n  E\n", "a\n  "),
    ];
    for (source, value) in cases {
        assert_eq!(unindent_heredoc(source).as_deref(), Ok(value), "{source}");
    }
    assert!(unindent_heredoc("<<E").is_err());
}

#[test]
fn quotes_for_hcl() {
    let quoted = |value: &str| {
        let mut out = String::new();
        quote_hcl(value, &mut out);
        out
    };
    assert_eq!(quoted("a\"\\\n\r\t"), r#""a\"\\\n\r\t""#);
    assert_eq!(quoted("${a} $b $${c}"), r#""\x24{a} $b $\x24{c}""#);
    assert_eq!(quoted("\0\u{e123}é"), r#""\u0000\ue123é""#);
}

#[test]
fn quotes_like_go() {
    assert_eq!(go_quote("a\"b\\c\n\u{7f}\u{a0}é"), r#""a\"b\\c\n\x7f\u00a0é""#);
}
