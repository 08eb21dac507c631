//! Functions of lists, maps and choices.

use std::collections::BTreeMap;

use super::{Function, Value, list, one, text, three, two};

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "default" => |a| match a {
            [fallback] => Ok(fallback.clone()),
            _ => {
                two(a).map(|(fallback, value)| if value.is_true() { value.clone() } else { fallback.clone() })
            }
        },
        "empty" => |a| one(a).map(|value| Value::Bool(!value.is_true())),
        "coalesce" => |a| Ok(a.iter().find(|value| value.is_true()).cloned().unwrap_or(Value::Nil)),
        "all" => |a| Ok(Value::Bool(a.iter().all(Value::is_true))),
        "any" => |a| Ok(Value::Bool(a.iter().any(Value::is_true))),
        "ternary" => {
            |a| three(a).map(|(yes, no, choice)| if choice.is_true() { yes.clone() } else { no.clone() })
        }
        "compact" | "mustCompact" => {
            |a| Ok(Value::List(list(one(a)?)?.iter().filter(|value| value.is_true()).cloned().collect()))
        }
        "list" | "tuple" => |a| Ok(Value::List(a.to_vec())),
        "append" | "push" | "mustAppend" | "mustPush" => |a| {
            let (items, item) = two(a)?;
            Ok(Value::List(list(items)?.iter().chain([item]).cloned().collect()))
        },
        "prepend" | "mustPrepend" => |a| {
            let (items, item) = two(a)?;
            Ok(Value::List([item].into_iter().chain(list(items)?).cloned().collect()))
        },
        "first" | "mustFirst" => |a| Ok(list(one(a)?)?.first().cloned().unwrap_or(Value::Nil)),
        "last" | "mustLast" => |a| Ok(list(one(a)?)?.last().cloned().unwrap_or(Value::Nil)),
        "rest" | "mustRest" => |a| Ok(Value::List(list(one(a)?)?.get(1..).unwrap_or_default().to_vec())),
        "initial" | "mustInitial" => |a| {
            let items = list(one(a)?)?;
            Ok(Value::List(items[..items.len().saturating_sub(1)].to_vec()))
        },
        "reverse" | "mustReverse" => |a| Ok(Value::List(list(one(a)?)?.iter().rev().cloned().collect())),
        "uniq" | "mustUniq" => |a| {
            let mut out: Vec<Value> = Vec::new();
            for item in list(one(a)?)? {
                if !out.contains(item) {
                    out.push(item.clone());
                }
            }
            Ok(Value::List(out))
        },
        "without" | "mustWithout" => |a| {
            let (items, gone) = a.split_first().ok_or("missing argument")?;
            Ok(Value::List(list(items)?.iter().filter(|item| !gone.contains(item)).cloned().collect()))
        },
        "has" | "mustHas" => |a| {
            let (item, items) = two(a)?;
            Ok(Value::Bool(list(items)?.contains(item)))
        },
        "concat" => |a| {
            let mut out = Vec::new();
            for items in a {
                out.extend_from_slice(list(items)?);
            }
            Ok(Value::List(out))
        },
        "dict" => |a| {
            let pairs = a
                .chunks(2)
                .map(|pair| (pair[0].to_string(), pair.get(1).cloned().unwrap_or_else(|| "".into())));
            Ok(Value::Map(pairs.collect()))
        },
        "get" => |a| {
            let (items, key) = two(a)?;
            Ok(map(items)?.get(text(key)?).cloned().unwrap_or_else(|| "".into()))
        },
        "hasKey" => |a| {
            let (items, key) = two(a)?;
            Ok(Value::Bool(map(items)?.contains_key(text(key)?)))
        },
        "keys" => |a| {
            let mut out = Vec::new();
            for items in a {
                out.extend(map(items)?.keys().cloned());
            }
            Ok(Value::strings(out))
        },
        "values" => |a| Ok(Value::List(map(one(a)?)?.values().cloned().collect())),
        _ => return None,
    })
}

fn map(value: &Value) -> Result<&BTreeMap<String, Value>, String> {
    match value {
        Value::Map(items) => Ok(items),
        other => Err(format!("wrong type for value; expected a map; got {}", other.kind())),
    }
}
