//! Our tree in the oracle's form: an item is `[[key…], value]`, a key `[kind, text, line, column]`, a value
//! `[kind, content, line, column]`.

use serde_json::{Value as Json, json};
use steeple_config::{Body, Item, Key, KeyKind, LiteralKind, Pos, Value};

pub fn tree(body: &Body) -> Json {
    items(body.items())
}

fn items(items: &[Item]) -> Json {
    items.iter().map(|i| json!([i.keys.iter().map(key).collect::<Json>(), value(&i.value)])).collect()
}

fn key(key: &Key) -> Json {
    let kind = match key.kind {
        KeyKind::Bare => "bare",
        KeyKind::Quoted => "quoted",
        KeyKind::Json => "json",
    };
    json!([kind, key.text, key.pos.line, key.pos.column])
}

fn value(v: &Value) -> Json {
    let Pos { line, column } = v.pos();
    match v {
        Value::Literal(literal) => {
            let kind = match literal.kind {
                LiteralKind::Number => "number",
                LiteralKind::Float => "float",
                LiteralKind::Bool => "bool",
                LiteralKind::String => "string",
                LiteralKind::Heredoc => "heredoc",
                LiteralKind::Null => "null",
            };
            json!([kind, literal.text, line, column])
        }
        Value::List(list) => json!(["list", list.items.iter().map(value).collect::<Json>(), line, column]),
        Value::Object(object) => json!(["object", items(&object.items), line, column]),
    }
}

/// Go's JSON reader knows no places.
pub fn without_places(tree: &Json) -> Json {
    match tree {
        Json::Array(parts) => match parts.as_slice() {
            [kind @ Json::String(_), content, Json::Number(_), Json::Number(_)] => {
                json!([kind, without_places(content), 0, 0])
            }
            parts => parts.iter().map(without_places).collect(),
        },
        other => other.clone(),
    }
}

/// What is left of a tree once it was printed: no places, no heredocs, no nulls, no JSON keys.
pub fn as_printed(tree: &Json) -> Json {
    match tree {
        Json::Array(parts) => match parts.as_slice() {
            [Json::String(kind), content, Json::Number(_), Json::Number(_)] => {
                let kind = match kind.as_str() {
                    "heredoc" => "string",
                    "json" => "quoted",
                    kind => kind,
                };
                json!([kind, as_printed(content)])
            }
            parts => parts.iter().filter(|part| part[1][0] != "null").map(as_printed).collect(),
        },
        other => other.clone(),
    }
}

/// Nothing and an empty list are one to a configuration.
pub fn without_empty(value: &Json) -> Json {
    match value {
        Json::Object(map) => map
            .iter()
            .map(|(k, v)| (k.clone(), without_empty(v)))
            .filter(|(_, v)| !v.is_null() && *v != json!([]) && *v != json!({}))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}
