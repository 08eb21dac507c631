use super::*;

fn error(text: &str) -> String {
    parse(text.as_bytes()).err().map(|failure| failure.to_string()).unwrap_or_default()
}

#[test]
fn syntax_errors_are_gos() {
    for (text, message) in [
        ("", "unexpected end of JSON input"),
        ("{\"a\":", "unexpected end of JSON input"),
        ("\"abc", "unexpected end of JSON input"),
        ("{nope", "invalid character 'n' looking for beginning of object key string"),
        ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
        ("{\"a\" 1}", "invalid character '1' after object key"),
        ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("nope", "invalid character 'o' in literal null (expecting 'u')"),
        ("{} x", "invalid character 'x' after top-level value"),
        ("\"\\x\"", "invalid character 'x' in string escape code"),
        ("\"\\u00g0\"", "invalid character 'g' in \\u hexadecimal character escape"),
        ("\"a\nb\"", "invalid character '\\n' in string literal"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ("01", "invalid character '1' after top-level value"),
        ("'a'", "invalid character '\\'' looking for beginning of value"),
    ] {
        assert_eq!(error(text), message, "{text}");
    }
}

#[test]
fn good_documents() {
    for text in ["null", " {} ", "[1, -2.5e+3, \"\\u00e9\\n\", true, false]", "{\"a\": {\"b\": []}}"] {
        assert_eq!(error(text), "", "{text}");
    }
    assert_eq!(parse(b"\"\xff\"").unwrap(), Value::String("\u{fffd}".into()));
}

#[test]
fn keys_in_any_case_and_null_for_nothing() {
    let value = parse(br#"{"IDS": ["a", null], "Flag": true, "n": 7, "gone": null, "extra": 1}"#).unwrap();
    let top = Object::top(&value, "v1.Request").unwrap();
    assert_eq!(top.strings("ids").unwrap(), ["a", ""]);
    assert!(top.bool("flag").unwrap());
    assert_eq!((top.int32("n").unwrap(), top.int64("absent").unwrap()), (7, 0));
    assert_eq!(top.string("gone").unwrap(), "");
    assert!(Object::top(&Value::Null, "v1.Request").unwrap().strings("ids").unwrap().is_empty());
}

#[test]
fn type_errors_are_gos() {
    let value = parse(br#"{"ids": 1, "list": [{"n": "x", "big": 3000000000}]}"#).unwrap();
    let top = Object::top(&value, "v1.Request").unwrap();
    assert_eq!(
        top.strings("ids").unwrap_err().to_string(),
        "json: cannot unmarshal number into Go struct field Request.ids of type []string"
    );
    let read = |key: &'static str| {
        top.objects("list", "v1.Item", |item| item.map_or(Ok(0), |item| item.int32(key)))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(read("n"), "json: cannot unmarshal string into Go struct field Item.list.n of type int32");
    assert_eq!(
        read("big"),
        "json: cannot unmarshal number 3000000000 into Go struct field Item.list.big of type int32"
    );
    let failure = Object::top(&Value::Bool(true), "v1.Request").unwrap_err();
    assert_eq!(failure.to_string(), "json: cannot unmarshal bool into Go value of type v1.Request");
}
