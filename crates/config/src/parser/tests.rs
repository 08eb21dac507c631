use crate::{Pos, parse};

fn error(text: &str) -> String {
    parse("f.conf", text).expect_err(text).to_string()
}

#[test]
fn names_the_place_and_the_problem() {
    let cases = [
        ("a = \"b", "f.conf:1:5: string is not terminated"),
        ("a = \"b\nc", "f.conf:1:5: string is not terminated on its line"),
        ("a = 1\nb c = 2", "f.conf:2:5: expected '{' after a block's labels, found '='"),
        ("a {\n  b = 1\n", "f.conf:3:1: expected '}' for the block opened at 1:3, found the end of the file"),
        ("a = [1 2]", "f.conf:1:8: expected ',' or ']' in a list, found a number"),
        ("a = b", "f.conf:1:5: expected a value, found a name"),
        ("é = ?", "f.conf:1:5: unexpected character '?'"),
        ("= 1", "f.conf:1:1: expected a key, found '='"),
        ("a = 1\n}", "f.conf:2:1: expected a key, found '}'"),
        ("a { b }", "f.conf:1:7: expected '=' or '{' after the key, found '}'"),
        ("a = \"\\q\"", "f.conf:1:6: unknown escape in a string"),
        ("a = \"\\x4\"", "f.conf:1:6: escape in a string has too few digits"),
        ("a = 0x", "f.conf:1:5: hexadecimal number has no digits"),
        ("a = 0789", "f.conf:1:5: a number that starts with 0 is octal and cannot have the digits 8 and 9"),
        ("a = 1e", "f.conf:1:5: exponent has no digits"),
        ("a = 1e999", "f.conf:1:5: number is out of range"),
        ("a = <<E\nb\n", "f.conf:1:5: heredoc is not terminated: no line with E alone"),
        ("a = <<\nb\n", "f.conf:1:5: heredoc has no marker"),
        ("a = <<\"E\"\n", "f.conf:1:5: a heredoc's marker is one name, alone on its line"),
        ("a = <E\n", "f.conf:1:5: a heredoc starts with '<<'"),
        ("/* a", "f.conf:1:1: comment is not terminated"),
        ("a =", "f.conf:1:3: key \"a\" has no value: the file ends after '='"),
    ];
    for (text, want) in cases {
        assert_eq!(error(text), want, "{text}");
        assert!(parse("f.conf", text).expect_err(text).is_syntax());
    }
}

#[test]
fn columns_count_characters_and_survive_crlf() {
    let body = parse("f", "größe = 1\r\n  \"ä\" x = {\r\n}").expect_err("two keys and an assignment");
    assert_eq!(body.pos(), Pos { line: 2, column: 9 });
    let body = parse("f", "größe = \"é\" b = 1\r\nc = 2").expect("well-formed");
    let places: Vec<Pos> = body.items().iter().map(|i| i.keys[0].pos).collect();
    assert_eq!(places, [Pos { line: 1, column: 1 }, Pos { line: 1, column: 13 }, Pos { line: 2, column: 1 }]);
}

#[test]
fn nesting_is_bounded() {
    for open in ["a = [", "a {", "[", "{\"a\":"] {
        let prefix = if open == "[" { "a = " } else { "" };
        let text = format!("{prefix}{}", open.repeat(100_000));
        assert!(parse("f", &text).is_err(), "{open}");
    }
    let deep = |n: usize| format!("a = {}{}", "[".repeat(n), "]".repeat(n));
    assert!(parse("f", &deep(100)).is_ok());
    assert!(error(&deep(129)).ends_with("nested deeper than 128 levels"));
}
