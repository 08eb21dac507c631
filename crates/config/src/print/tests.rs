use crate::parse;

#[test]
fn prints_what_reads_the_same() {
    let text = r#"a = 1 "b c" = "x" d "e" f { g = [1, "h", { i = true }] } j {} k = {}"#;
    let printed = parse("f", text).expect("well-formed").to_hcl();
    let want =
        "a = 1\n\"b c\" = \"x\"\nd \"e\" f {\n  g = [1, \"h\", {\n    i = true\n  }]\n}\nj {}\nk = {}\n";
    assert_eq!(printed, want);
}

#[test]
fn json_becomes_hcl() {
    let text = r#"{"a":null,"b":"${x}\u003c","clusters":[{"demo":{"list":["x:y"]}}],"o":{"p":1}}"#;
    let printed = parse("f", text).expect("well-formed").to_hcl();
    let want = "\"b\" = \"\\x24{x}<\"\n\"clusters\" \"demo\" {\n  \"list\" = [\"x:y\"]\n}\n\"o\" = {\n  \"p\" = 1\n}\n";
    assert_eq!(printed, want);
}

#[test]
fn nothing_prints_as_nothing() {
    assert_eq!(parse("f", "").expect("well-formed").to_hcl(), "");
    assert_eq!(parse("f", "{}").expect("well-formed").to_hcl(), "");
}
