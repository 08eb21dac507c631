use crate::{Body, Value, parse};

fn read(text: &str) -> Body {
    parse("f.json", text).expect(text)
}

fn error(text: &str) -> String {
    parse("f.json", text).expect_err(text).to_string()
}

#[test]
fn keeps_places() {
    let error = read("{\n  \"server\": {\n    \"bind_port\": true\n  }\n}");
    let mut root = error.block();
    let error =
        root.block("server").expect("a block").expect("there").int("bind_port").expect_err("a boolean");
    assert_eq!(error.to_string(), "f.json:3:18: server.bind_port: expected a whole number, found a boolean");
}

#[test]
fn names_the_place_and_the_problem() {
    let cases = [
        ("{\"a\":1} x", "f.json:1:9: expected the end of the file, found 'x'"),
        ("{\"a\":1", "f.json:1:7: expected ',' or '}', found the end of the file"),
        ("{\"a\":1 \"b\":2}", "f.json:1:8: expected ',' or '}', found '\"'"),
        ("{a:1}", "f.json:1:2: expected a key in double quotes or '}', found 'a'"),
        ("{\"a\" 1}", "f.json:1:6: expected ':', found '1'"),
        ("{\"a\":}", "f.json:1:6: expected a value, found '}'"),
        ("{\"a\":nil}", "f.json:1:6: expected a value, found \"nil\""),
        ("{\"a\":[null]}", "f.json:1:7: null in a list"),
        ("{\"a\":[1 2]}", "f.json:1:9: expected ',' or ']', found '2'"),
        ("{\"a\":01}", "f.json:1:6: numbers cannot start with 0"),
        ("{\"a\":1.}", "f.json:1:6: number lacks digits"),
        ("{\"a\":-}", "f.json:1:6: number lacks digits"),
        ("{\"a\":1e999}", "f.json:1:6: number is out of range"),
        ("{\"a\":\"b\n\"}", "f.json:1:6: string is not terminated on its line"),
        ("{\"a\":\"\\q\"}", "f.json:1:6: unknown escape"),
    ];
    for (text, want) in cases {
        assert_eq!(error(text), want, "{text}");
    }
}

/// HCL 1's JSON reader drops the first and stops at the second.
#[test]
fn lists_keep_booleans_and_lists() {
    let body = read(r#"{"a":[true,false],"b":[[1],[2]],"c":3}"#);
    assert_eq!(body.items().len(), 3);
    for item in &body.items()[..2] {
        assert!(matches!(&item.value, Value::List(list) if list.items.len() == 2));
    }
}

#[test]
fn escapes_hcl_1_refuses() {
    let mut root =
        read(r#"{"path":"\/run\/x","smile":"\ud83d\ude00"}"#).block().string("path").expect("a string");
    assert_eq!(root.take().as_deref(), Some("/run/x"));
}

#[test]
fn trailing_commas() {
    assert_eq!(read("{\"a\":[1,],}").items().len(), 1);
    assert!(parse("f", "{\"a\":[,1]}").is_err());
}

#[test]
fn objects_of_objects_are_labelled_blocks() {
    let labels = |text: &str| -> Vec<String> {
        let joined = |i: &crate::Item| i.keys.iter().map(|k| k.text.as_str()).collect::<Vec<_>>().join(" ");
        read(text).items().iter().map(joined).collect()
    };
    assert_eq!(labels(r#"{"a":{"b":{"c":1}}}"#), ["a b"]);
    assert_eq!(labels(r#"{"a":{"b":{"c":{}},"d":{"e":1}}}"#), ["a b c", "a d"]);
    assert_eq!(labels(r#"{"a":[{"b":{"x":1}},{"c":{"x":1}}]}"#), ["a b", "a c"]);
    assert_eq!(labels(r#"{"a":{"b":{},"c":1}}"#), ["a"]);
    assert_eq!(labels(r#"{"a":{},"b":[],"c":[{}]}"#), ["a", "b", "c"]);
}
