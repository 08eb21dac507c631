//! What holds for any input.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use proptest::prelude::*;
use steeple_config::{
    Body, FlagSet, GoDuration, Item, KeyKind, LiteralKind, Value, expand_env, parse, parse_bytes, plugins,
};

/// Pieces that make most texts almost well-formed.
fn almost_hcl() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("a".to_owned()),
        Just(" = ".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(",".to_owned()),
        Just("\n".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("${".to_owned()),
        Just("<<E\n".to_owned()),
        Just("<<-E\n".to_owned()),
        Just("E\n".to_owned()),
        Just("0x1".to_owned()),
        Just("1e".to_owned()),
        Just("#".to_owned()),
        Just("/*".to_owned()),
        Just("*/".to_owned()),
        Just("\"x\"".to_owned()),
        Just("\"a\":".to_owned()),
        Just("null".to_owned()),
        Just("\\u00".to_owned()),
        "\\PC{0,3}",
    ];
    (any::<bool>(), prop::collection::vec(piece, 0..40))
        .prop_map(|(json, pieces)| format!("{}{}", if json { "{" } else { "" }, pieces.concat()))
}

/// A string's source text, with what would be special escaped.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' | '$' | '\u{e123}' => format!("\\u{:04x}", u32::from(c)),
        c if c.is_control() => format!("\\U{:08x}", u32::from(c)),
        c => c.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<Vec<_>>().concat())
}

/// Source text of values of every kind.
fn value(depth: u32) -> BoxedStrategy<String> {
    let literal = prop_oneof![
        any::<String>().prop_map(|s| quoted(&s)),
        any::<i64>().prop_map(|n| n.to_string()),
        (-1e9f64..1e9).prop_map(|n| format!("{n:.3}")),
        any::<bool>().prop_map(|b| b.to_string()),
        "[a-z ${}\"\\\\]{0,20}".prop_map(|s| format!("<<EOF\n{s}\nEOF\n")),
    ];
    if depth == 0 {
        return literal.boxed();
    }
    let list = prop::collection::vec(value(depth - 1), 0..4).prop_map(|v| format!("[{}]", v.join(", ")));
    let object = items(depth - 1).prop_map(|items| format!("{{\n{items}}}"));
    prop_oneof![3 => literal, 1 => list, 1 => object].boxed()
}

fn items(depth: u32) -> BoxedStrategy<String> {
    let key = prop_oneof!["[a-z_][a-z0-9_.-]{0,8}", "\"[a-zA-Z ./${]{0,8}\""]
        .prop_filter("booleans are no keys", |k| k != "true" && k != "false" && !k.contains("${"));
    let item =
        (key.clone(), prop::option::of(key), value(depth)).prop_map(|(key, label, value)| match label {
            Some(label) if value.starts_with('{') => format!("{key} {label} {value}\n"),
            _ => format!("{key} = {value}\n"),
        });
    prop::collection::vec(item, 0..5).prop_map(|items| items.concat()).boxed()
}

/// A tree without what printing changes: places, `=` before a block, heredocs, JSON keys and nulls.
fn essence(items: &[Item]) -> String {
    fn value(v: &Value) -> String {
        match v {
            Value::Literal(l) if l.kind == LiteralKind::Heredoc => {
                format!("{:?} {:?}", LiteralKind::String, l.text)
            }
            Value::Literal(l) => format!("{:?} {:?}", l.kind, l.text),
            Value::List(l) => format!("[{}]", l.items.iter().map(value).collect::<Vec<_>>().join(",")),
            Value::Object(o) => essence(&o.items),
        }
    }
    let null = |i: &&Item| !matches!(&i.value, Value::Literal(l) if l.kind == LiteralKind::Null);
    let key = |k: &steeple_config::Key| format!("{} {:?}", k.kind == KeyKind::Bare, k.text);
    let item = |i: &Item| format!("{:?} {}", i.keys.iter().map(key).collect::<Vec<_>>(), value(&i.value));
    format!("{{{}}}", items.iter().filter(null).map(item).collect::<Vec<_>>().join(";"))
}

fn reprint(body: &Body) -> Body {
    let text = body.to_hcl();
    parse("printed", &text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Everything one may do with a body; none of it may panic.
fn use_all(body: &Body) {
    let mut block = body.block();
    for key in ["a", "plugins", "E"] {
        let _ = (block.string(key), block.int(key), block.port(key), block.bool(key), block.float(key));
        let _ = (block.duration(key), block.strings(key), block.string_map(key), block.pos_of(key));
        let _ = (block.block(key).is_ok(), block.blocks(key).is_ok(), block.labelled(key).is_ok());
    }
    let _ = plugins(body);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_do_not_panic(bytes: Vec<u8>) {
        if let Ok(body) = parse_bytes("x", &bytes) {
            use_all(&body);
        }
    }

    #[test]
    fn almost_hcl_does_not_panic_and_reprints(text in almost_hcl()) {
        if let Ok(body) = parse("x", &text) {
            use_all(&body);
            prop_assert_eq!(essence(reprint(&body).items()), essence(body.items()));
        }
    }

    #[test]
    fn printing_and_parsing_is_the_identity(text in items(3)) {
        let body = parse("x", &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let printed = reprint(&body);
        prop_assert_eq!(essence(printed.items()), essence(body.items()));
        prop_assert_eq!(printed.to_hcl(), body.to_hcl());
    }

    #[test]
    fn json_strings_keep_their_value(text: String) {
        let json = serde_json::json!({ "a": text }).to_string();
        // HCL 1 reserves one character.
        if !text.contains('\u{e123}') {
            let body = parse("x", &json).unwrap();
            prop_assert_eq!(body.block().string("a").unwrap(), Some(text.clone()));
            prop_assert_eq!(reprint(&body).block().string("a").unwrap(), Some(text));
        }
    }

    #[test]
    fn durations_print_and_parse(nanos: i64) {
        let duration = GoDuration::from_nanos(nanos);
        prop_assert_eq!(duration.to_string().parse::<GoDuration>(), Ok(duration));
    }

    #[test]
    fn any_text_is_a_duration_or_an_error(text in "[-+0-9.hmsunµ]{0,40}") {
        let _ = text.parse::<GoDuration>();
    }

    #[test]
    fn expansion_leaves_texts_without_a_dollar_alone(text in "[^$]*") {
        prop_assert_eq!(expand_env(&text, |_| None), text);
    }

    #[test]
    fn expansion_does_not_panic(text in "[a${}é ]{0,30}") {
        let _ = expand_env(&text, |name| Some(name.to_owned()));
    }

    #[test]
    fn any_command_line_is_read_or_refused(args: Vec<String>) {
        let mut flags = FlagSet::new("x");
        flags.string("a", "", "");
        flags.int("b", 0, "");
        flags.bool("c", false, "");
        let _ = flags.parse(&args);
        prop_assert!(flags.args().len() <= args.len());
    }
}
