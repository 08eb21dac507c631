use crate::{Body, Pos, Strictness, UnknownKeys, parse};

fn body(text: &str) -> Body {
    parse("f.conf", text).expect(text)
}

/// The error of reading `key` of block `b` with `read`.
macro_rules! error {
    ($text:expr, $read:ident, $key:expr) => {{
        let body = body($text);
        let mut root = body.block();
        let mut block = root.block("b").expect("a block").expect("there");
        block.$read($key).map(|_| ()).expect_err($text).to_string()
    }};
}

#[test]
fn wrong_types_are_named_with_place_and_key() {
    let cases = [
        (error!("b { s = true }", string, "s"), "f.conf:1:9: b.s: expected a string, found a boolean"),
        (
            error!("b { s = 1.5 }", string, "s"),
            "f.conf:1:9: b.s: expected a string, found a number with a fraction",
        ),
        (error!("b { s = [\"x\"] }", string, "s"), "f.conf:1:9: b.s: expected a string, found a list"),
        (error!("b { s { } }", string, "s"), "f.conf:1:7: b.s: expected a string, found a block"),
        (error!("b { s \"x\" { } }", string, "s"), "f.conf:1:5: b.s: expected a string, found a block"),
        (
            error!("b {\n  p = \"http\"\n}", int, "p"),
            "f.conf:2:7: b.p: is not a whole number that fits 64 bits",
        ),
        (
            error!("b { p = 1.0 }", int, "p"),
            "f.conf:1:9: b.p: expected a whole number, found a number with a fraction",
        ),
        (error!("b { p = 65536 }", port, "p"), "f.conf:1:5: b.p: port 65536 is out of range (0 to 65535)"),
        (error!("b { p = \"-1\" }", port, "p"), "f.conf:1:5: b.p: port -1 is out of range (0 to 65535)"),
        (error!("b { x = \"true\" }", bool, "x"), "f.conf:1:9: b.x: expected true or false, found a string"),
        (error!("b { x = 1 }", bool, "x"), "f.conf:1:9: b.x: expected true or false, found a number"),
        (error!("b { f = \"0.5\" }", float, "f"), "f.conf:1:9: b.f: expected a number, found a string"),
        (error!("b { l = \"x\" }", strings, "l"), "f.conf:1:9: b.l: expected a list, found a string"),
        (
            error!("b { l = [\"x\", true] }", strings, "l"),
            "f.conf:1:15: b.l[1]: expected a string, found a boolean",
        ),
        (error!("b { k = 1 }", block, "k"), "f.conf:1:9: b.k: expected a block, found a number"),
        (error!("b { k = [{}] }", block, "k"), "f.conf:1:9: b.k: expected a block, found a list"),
        (error!("b { k = [1] }", blocks, "k"), "f.conf:1:10: b.k: expected a block, found a number"),
        (error!("b { k = 1 }", labelled, "k"), "f.conf:1:9: b.k: expected a block, found a number"),
        (
            error!("b { k { \"x\" = 1 } }", labelled, "k"),
            "f.conf:1:15: b.k[\"x\"]: expected a block, found a number",
        ),
        (
            error!("b { m { x = true } }", string_map, "m"),
            "f.conf:1:13: b.m.x: expected a string, found a boolean",
        ),
        (
            error!("b { d = \"5x\" }", duration, "d"),
            "f.conf:1:5: b.d: time: unknown unit \"x\" in duration \"5x\"",
        ),
    ];
    for (error, want) in cases {
        assert_eq!(error, want);
    }
}

/// What is configured may be a secret.
#[test]
fn errors_and_debug_output_show_no_values() {
    assert!(!error!("b { s = [\"hunter2\"] }", string, "s").contains("hunter2"));
    assert!(!error!("b { p = \"hunter2\" }", int, "p").contains("hunter2"));
    assert!(!format!("{:?}", body("b { s = \"hunter2\" }")).contains("hunter2"));
}

#[test]
fn numbers_pass_as_strings_and_strings_as_numbers() {
    let body = body("s = 0x10 i = \"0x10\" p = \"8081\" f = 2 n = -5");
    let mut root = body.block();
    assert_eq!(root.string("s").expect("s").as_deref(), Some("0x10"));
    assert_eq!(root.int("i").expect("i"), Some(16));
    assert_eq!(root.port("p").expect("p"), Some(8081));
    assert_eq!(root.float("f").expect("f"), Some(2.0));
    assert_eq!(root.int("n").expect("n"), Some(-5));
    assert_eq!(root.int("absent").expect("absent"), None);
}

#[test]
fn the_last_attribute_counts_and_lists_add_up() {
    let body = body("a = 1 A = 2 l = [\"x\"] L = [\"y\", 3]");
    let mut root = body.block();
    assert_eq!(root.int("a").expect("a"), Some(2));
    assert_eq!(root.strings("l").expect("l").expect("there"), ["x", "y", "3"]);
}

#[test]
fn blocks_merge_and_lists_of_blocks_do_not() {
    let body = body("s { a = 1 }\ns = { b = 2 }\nt { a = 1 c = 2 }\nt = [{ a = 3 }, { a = 4 }]");
    let mut root = body.block();
    let mut merged = root.block("s").expect("s").expect("there");
    assert_eq!((merged.int("a").expect("a"), merged.int("b").expect("b")), (Some(1), Some(2)));
    let values: Vec<_> = root
        .blocks("t")
        .expect("t")
        .into_iter()
        .map(|mut b| b.int("a").expect("a").expect("there"))
        .collect();
    assert_eq!(values, [1, 3, 4]);
    assert!(root.block("absent").expect("absent").is_none());
    assert!(root.blocks("absent").expect("absent").is_empty());
}

/// HCL 1 would make two sinks of one block with two attributes.
#[test]
fn one_block_is_one_even_from_json() {
    let body = body(r#"{"M3":[{"address":"a","env":"x"},{"address":"b","env":"y"}]}"#);
    let sinks = body.block().blocks("M3").expect("M3");
    let read: Vec<_> = sinks
        .into_iter()
        .map(|mut s| (s.string("address").expect("address"), s.string("env").expect("env")))
        .collect();
    assert_eq!(read, [(Some("a".into()), Some("x".into())), (Some("b".into()), Some("y".into()))]);
}

#[test]
fn labels_in_every_nesting() {
    for text in [
        "k \"a\" { x = 1 } k \"b\" { x = 2 }",
        "k { \"a\" { x = 1 } b { x = 2 } }",
        "k { a = { x = 1 } b = { x = 2 } }",
        "k a { x = 1 } k { \"b\" { x = 2 } }",
        r#"{"k":{"a":{"x":1},"b":{"x":2}}}"#,
        r#"{"k":[{"a":{"x":1}},{"b":{"x":2}}]}"#,
        r#"{"z":0,"k":[{"a":[{"x":1}]},{"b":{"x":"2"}}]}"#,
    ] {
        let body = body(text);
        let read: Vec<_> = body
            .block()
            .labelled("k")
            .expect(text)
            .into_iter()
            .map(|(label, mut block)| (label, block.int("x").expect(text)))
            .collect();
        assert_eq!(read, [("a".to_owned(), Some(1)), ("b".to_owned(), Some(2))], "{text}");
    }
}

#[test]
fn one_label_twice_is_read_as_one() {
    let body = body("k \"a\" { x = 1 } k \"a\" { y = 2 } k \"A\" { x = 3 }");
    let mut labelled = body.block().labelled("k").expect("k");
    assert_eq!(labelled.iter().map(|(l, _)| l.as_str()).collect::<Vec<_>>(), ["a", "A"]);
    assert_eq!(labelled[0].1.int("y").expect("y"), Some(2));
}

#[test]
fn null_is_absent() {
    let body = body(r#"{"a":null,"b":null,"c":{"d":null}}"#);
    let mut root = body.block();
    assert!(!root.contains("a"));
    assert_eq!(root.string("a").expect("a"), None);
    assert_eq!(root.int("a").expect("a"), None);
    assert!(root.block("b").expect("b").is_none());
    assert!(root.strings("b").expect("b").is_none());
    assert!(root.body("b").expect("b").is_none());
    assert!(root.blocks("b").expect("b").is_empty());
    assert!(root.block("c").expect("c").is_some());
}

#[test]
fn maps_keep_the_case_of_their_keys() {
    let body = body("m { a = \"1\" A = 2 \"x y\" = \"3\" a = \"4\" }");
    let map = body.block().string_map("m").expect("m").expect("there");
    let pairs: Vec<_> = map.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(pairs, [("A", "2"), ("a", "4"), ("x y", "3")]);
}

#[test]
fn places_of_keys_and_blocks() {
    let body = body("a {\n  b = 1\n  c { }\n}");
    let mut root = body.block();
    assert!(root.contains("A") && !root.contains("b"));
    assert_eq!(root.pos_of("a"), Some(Pos { line: 1, column: 1 }));
    let mut a = root.block("a").expect("a").expect("there");
    let c = a.block("c").expect("c").expect("there");
    assert_eq!((c.pos(), c.path(), c.file()), (Pos { line: 3, column: 3 }, "a.c", "f.conf"));
    let refused = a.invalid("b", "is not served here");
    assert_eq!(refused.to_string(), "f.conf:2:3: a.b: is not served here");
    assert!(!refused.is_syntax());
    assert_eq!(a.invalid("absent", "is required").to_string(), "f.conf:1:1: a.absent: is required");
}

#[test]
fn unknown_keys_by_section() {
    let body = body(
        "server {\n  good = 1\n  zeta = 1\n  \"quoted\" = 1\n  alpha { x = 1 }\n  labelled \"x\" { }\n  zeta = 2\n}\ntop = 1\nlax { any = 1 }",
    );
    let mut unknown = UnknownKeys::default();
    let mut root = body.block();
    let mut server = root.block("server").expect("server").expect("there");
    assert_eq!(server.int("GOOD").expect("good"), Some(1));
    server.finish(Strictness::Strict, "server", &mut unknown);
    let lax = root.block("lax").expect("lax").expect("there");
    lax.finish(Strictness::Lax, "lax", &mut unknown);
    root.finish(Strictness::Strict, "top-level", &mut unknown);

    let sections: Vec<_> = unknown.sections().into_iter().map(|s| (s.section, s.keys)).collect();
    assert_eq!(
        sections,
        [("server".into(), "alpha,zeta".into()), ("top-level".to_owned(), "top".to_owned())]
    );
    let refused: Vec<_> = unknown.refused().iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "f.conf:3:3: unknown key \"zeta\" in server",
            "f.conf:5:3: unknown key \"alpha\" in server",
            "f.conf:7:3: unknown key \"zeta\" in server",
            "f.conf:9:1: unknown key \"top\" in top-level",
        ]
    );
    let overlooked: Vec<_> =
        unknown.overlooked().iter().map(|k| (k.section.as_str(), k.key.as_str())).collect();
    assert_eq!(overlooked, [("server", "quoted"), ("server", "labelled"), ("lax", "any")]);
}

#[test]
fn a_body_stands_by_itself() {
    let inner = {
        let body = body("a { plugin_data { x = 1 y { z = 2 } } }");
        let mut root = body.block();
        let mut a = root.block("a").expect("a").expect("there");
        a.body("plugin_data").expect("plugin_data").expect("there")
    };
    let mut block = inner.block();
    assert_eq!(block.int("x").expect("x"), Some(1));
    assert_eq!(block.pos_of("y"), Some(Pos { line: 1, column: 25 }));
    assert_eq!(inner.to_hcl(), "x = 1\ny {\n  z = 2\n}\n");
}
