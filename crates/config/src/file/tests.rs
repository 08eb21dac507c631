use super::*;

#[test]
fn skips_a_byte_order_mark() {
    let body = parse("f", "\u{feff}a = 1").expect("well-formed");
    assert_eq!(body.items()[0].keys[0].pos, Pos { line: 1, column: 1 });
    assert!(parse("f", "\u{feff}{\"a\": 1}").is_ok());
    assert_eq!(parse_bytes("f", b"\xef\xbb\xbfa = 1").expect("well-formed").items().len(), 1);
    assert!(parse("f", "a = 1\u{feff}").is_err());
}

#[test]
fn refuses_what_is_no_text() {
    let cases: [(&[u8], &str); 4] = [
        (b"a = 1\n\xff", "f:2:1: text is not valid UTF-8"),
        (b"a = \"\xc3\xa9\xff\"", "f:1:7: text is not valid UTF-8"),
        (b"a = 1\n# \0", "f:2:3: null character"),
        ("a = \"\u{e123}\"".as_bytes(), "f:1:6: reserved character U+E123"),
    ];
    for (bytes, want) in cases {
        assert_eq!(parse_bytes("f", bytes).expect_err("no text").to_string(), want);
    }
}

#[test]
fn a_leading_brace_is_json_behind_any_white_space() {
    assert!(parse("f", "\n\t {\"a\": 1}").is_ok());
    assert!(parse("f", "{ a = 1 }").is_err());
    assert!(parse("f", "# comment\n{\"a\": 1}").is_err());
}

#[test]
fn a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("server.conf");
    let path = path.to_str().expect("a UTF-8 path");
    let missing = read_file(path, false).expect_err("no such file");
    assert_eq!(
        missing.to_string(),
        format!("could not find config file {path}: please use the -config flag")
    );

    std::fs::write(path, "a = \"$STEEPLE_NEVER_SET_ANYWHERE\"").expect("a file");
    let read = |expand| read_file(path, expand).expect("well-formed").block().string("a").expect("a string");
    assert_eq!(read(false).as_deref(), Some("$STEEPLE_NEVER_SET_ANYWHERE"));
    assert_eq!(read(true).as_deref(), Some(""));

    std::fs::write(path, "a = ?").expect("a file");
    let bad = read_file(path, true).expect_err("not well-formed").to_string();
    assert_eq!(
        bad,
        format!("unable to decode configuration at \"{path}\": {path}:1:5: unexpected character '?'")
    );
    let directory = read_file(dir.path().to_str().expect("a UTF-8 path"), false).expect_err("a directory");
    assert!(directory.to_string().starts_with("unable to read configuration at "), "{directory}");
}
