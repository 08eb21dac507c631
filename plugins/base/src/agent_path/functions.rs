//! The functions templates may call: Go's own, and those of Sprig that SPIRE allows and that make sense in a path.

mod collections;
mod texts;

use std::cmp::Ordering;

use super::Value;

type Outcome = Result<Value, String>;
type Function = fn(&[Value]) -> Outcome;

/// SPIRE allows these, or Go has them, and no agent path needs them: each would need a library, or gives an agent another
/// ID each time it attests.
const REFUSED: &[&str] = &[
    "abbrevboth",
    "adler32sum",
    "call",
    "camelcase",
    "chunk",
    "dig",
    "html",
    "initials",
    "js",
    "kebabcase",
    "merge",
    "mergeOverwrite",
    "mustChunk",
    "mustMerge",
    "mustMergeOverwrite",
    "omit",
    "pick",
    "plural",
    "pluck",
    "seq",
    "set",
    "snakecase",
    "unset",
    "urlJoin",
    "urlParse",
    "urlquery",
    "uuidv4",
    "wrap",
    "wrapWith",
];

/// Whether templates may name a function.
pub(super) fn check(name: &str) -> Result<(), String> {
    if REFUSED.contains(&name) {
        return Err(format!("function {name:?} is not supported in agent path templates"));
    }
    match find(name) {
        Some(_) => Ok(()),
        None if matches!(name, "and" | "or") => Ok(()),
        None => Err(format!("function {name:?} not defined")),
    }
}

pub(super) fn call(name: &str, arguments: Vec<Value>) -> Outcome {
    match find(name) {
        Some(function) => function(&arguments),
        None => Err(format!("function {name:?} not defined")),
    }
}

fn find(name: &str) -> Option<Function> {
    go(name).or_else(|| texts::find(name)).or_else(|| collections::find(name))
}

fn go(name: &str) -> Option<Function> {
    Some(match name {
        "not" => |a| one(a).map(|value| Value::Bool(!value.is_true())),
        "len" => |a| match one(a)? {
            Value::Str(text) => Ok(Value::Int(text.len() as i64)),
            Value::List(items) => Ok(Value::Int(items.len() as i64)),
            Value::Map(items) => Ok(Value::Int(items.len() as i64)),
            other => Err(format!("len of a {}", other.kind())),
        },
        "index" => |a| {
            let (first, steps) = a.split_first().ok_or("missing argument")?;
            steps.iter().try_fold(first.clone(), |value, step| index(&value, step))
        },
        "slice" | "mustSlice" => slice,
        "eq" => |a| {
            let (first, others) = a.split_first().ok_or("missing argument for comparison")?;
            if others.is_empty() {
                return Err("missing argument for comparison".to_owned());
            }
            Ok(Value::Bool(others.iter().any(|other| same(first, other))))
        },
        "ne" => |a| two(a).map(|(x, y)| Value::Bool(!same(x, y))),
        "lt" => |a| compared(a, Ordering::is_lt),
        "le" => |a| compared(a, Ordering::is_le),
        "gt" => |a| compared(a, Ordering::is_gt),
        "ge" => |a| compared(a, Ordering::is_ge),
        "print" => |a| {
            // Go puts spaces between neighbours of which neither is a string.
            let mut out = String::new();
            for (i, value) in a.iter().enumerate() {
                if i > 0 && !matches!(value, Value::Str(_)) && !matches!(a[i - 1], Value::Str(_)) {
                    out.push(' ');
                }
                out.push_str(&value.to_string());
            }
            Ok(out.into())
        },
        "printf" => |a| texts::printf(a),
        _ => return None,
    })
}

fn index(value: &Value, step: &Value) -> Outcome {
    match (value, step) {
        (Value::List(items), Value::Int(at)) => usize::try_from(*at)
            .ok()
            .and_then(|at| items.get(at))
            .cloned()
            .ok_or_else(|| format!("index out of range: {at}")),
        // The zero value of Go's map[string]string.
        (Value::Map(items), key) => Ok(items.get(&key.to_string()).cloned().unwrap_or_else(|| "".into())),
        (other, _) => Err(format!("can't index a {}", other.kind())),
    }
}

fn slice(arguments: &[Value]) -> Outcome {
    let (first, bounds) = arguments.split_first().ok_or("missing argument")?;
    let bounds = bounds.iter().map(number).collect::<Result<Vec<_>, _>>()?;
    let cut = |len: usize| -> Result<(usize, usize), String> {
        let from = bounds.first().copied().unwrap_or(0);
        let to = bounds.get(1).copied().unwrap_or(len as i64);
        match (usize::try_from(from), usize::try_from(to)) {
            (Ok(from), Ok(to)) if from <= to && to <= len => Ok((from, to)),
            _ => Err(format!("slice bounds out of range: {from}:{to}")),
        }
    };
    match first {
        Value::List(items) => cut(items.len()).map(|(from, to)| Value::List(items[from..to].to_vec())),
        Value::Str(text) => {
            let (from, to) = cut(text.len())?;
            text.get(from..to).map(Value::from).ok_or_else(|| "slice cuts a character".to_owned())
        }
        other => Err(format!("slice of a {}", other.kind())),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Big { decimal, .. }, Value::Int(number))
        | (Value::Int(number), Value::Big { decimal, .. }) => *decimal == number.to_string(),
        (a, b) => a == b,
    }
}

fn compared(arguments: &[Value], is: fn(Ordering) -> bool) -> Outcome {
    let ordering = match two(arguments)? {
        (Value::Int(a), Value::Int(b)) => a.cmp(b),
        (Value::Str(a), Value::Str(b)) => a.cmp(b),
        (a, b) => return Err(format!("incompatible types for comparison: {} and {}", a.kind(), b.kind())),
    };
    Ok(Value::Bool(is(ordering)))
}

fn one(arguments: &[Value]) -> Result<&Value, String> {
    match arguments {
        [value] => Ok(value),
        _ => Err(wrong_number(1, arguments)),
    }
}

fn two(arguments: &[Value]) -> Result<(&Value, &Value), String> {
    match arguments {
        [a, b] => Ok((a, b)),
        _ => Err(wrong_number(2, arguments)),
    }
}

fn three(arguments: &[Value]) -> Result<(&Value, &Value, &Value), String> {
    match arguments {
        [a, b, c] => Ok((a, b, c)),
        _ => Err(wrong_number(3, arguments)),
    }
}

fn wrong_number(want: usize, got: &[Value]) -> String {
    format!("wrong number of args: want {want} got {}", got.len())
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Str(text) => Ok(text),
        other => Err(format!("wrong type for value; expected string; got {}", other.kind())),
    }
}

fn number(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(number) => Ok(*number),
        other => Err(format!("wrong type for value; expected int; got {}", other.kind())),
    }
}

fn list(value: &Value) -> Result<&[Value], String> {
    match value {
        Value::List(items) => Ok(items),
        other => Err(format!("wrong type for value; expected a list; got {}", other.kind())),
    }
}
