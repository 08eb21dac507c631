//! What templates work with.

use std::collections::BTreeMap;
use std::fmt;

/// A value as Go would have it, as far as paths are made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    /// A number that may be larger: decimal and hexadecimal digits.
    Big {
        decimal: String,
        hex: String,
    },
    Str(String),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    /// Fields with fixed names, and the text that the whole prints as.
    Struct {
        text: String,
        fields: BTreeMap<&'static str, Value>,
    },
}

impl Value {
    pub fn record(text: impl Into<String>, fields: impl IntoIterator<Item = (&'static str, Value)>) -> Self {
        Self::Struct { text: text.into(), fields: fields.into_iter().collect() }
    }

    pub fn strings<S: Into<String>>(items: impl IntoIterator<Item = S>) -> Self {
        Self::List(items.into_iter().map(|item| Self::Str(item.into())).collect())
    }

    /// Go's truth of templates: not empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nil => false,
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Big { .. } | Self::Struct { .. } => true,
            Self::Str(text) => !text.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Map(items) => !items.is_empty(),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Big { .. } => "number",
            Self::Str(_) => "string",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Struct { .. } => "record",
        }
    }

    /// One step of `.A.B`.
    pub(super) fn field(&self, name: &str) -> Result<&Value, String> {
        let found = match self {
            Self::Struct { fields, .. } => {
                return fields.get(name).ok_or_else(|| format!("there is no field {name:?}"));
            }
            Self::Map(items) => items.get(name),
            other => return Err(format!("there is no field {name:?} in a {}", other.kind())),
        };
        found.ok_or_else(|| format!("map has no entry for key {name:?}"))
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("<no value>"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Big { decimal: text, .. } | Self::Str(text) | Self::Struct { text, .. } => {
                f.write_str(text)
            }
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", items.join(" "))
            }
            Self::Map(items) => {
                let items: Vec<String> = items.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                write!(f, "map[{}]", items.join(" "))
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text)
    }
}
