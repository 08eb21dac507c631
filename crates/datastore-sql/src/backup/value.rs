//! One value of a row: as the file holds it, as engines do.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value as Json;

use super::tables::Kind;
use crate::conn::{Arg, Dialect};

/// A value that no engine owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Flag(bool),
    Text(String),
    Blob(Vec<u8>),
    Time(Timestamp),
}

impl Value {
    /// In the file: numbers, booleans, text, base64, RFC 3339 in UTC.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Int(value) => (*value).into(),
            Self::Flag(value) => (*value).into(),
            Self::Text(value) => value.as_str().into(),
            Self::Blob(bytes) => STANDARD.encode(bytes).into(),
            Self::Time(time) => time.to_string().into(),
        }
    }

    /// `None` if the file's value is not of the column's kind.
    pub fn from_json(json: &Json, kind: Kind) -> Option<Self> {
        Some(match (kind, json) {
            (_, Json::Null) => Self::Null,
            (Kind::Int, json) => Self::Int(json.as_i64()?),
            (Kind::Flag, json) => Self::Flag(json.as_bool()?),
            (Kind::Text, json) => Self::Text(json.as_str()?.to_owned()),
            (Kind::Blob, json) => Self::Blob(STANDARD.decode(json.as_str()?).ok()?),
            (Kind::Time, json) => Self::Time(json.as_str()?.parse().ok()?),
        })
    }

    /// The value with a time in the text form that the engine reads: SQLite's columns hold text as SPIRE writes it; the
    /// columns of MySQL's that SPIRE makes hold whole seconds, and SPIRE reports times to the nearest.
    pub fn prepared(self, dialect: Dialect) -> Self {
        let Self::Time(time) = self else { return self };
        Self::Text(match dialect {
            Dialect::Sqlite => format!("{}+00:00", time.strftime("%Y-%m-%d %H:%M:%S%.f")),
            Dialect::Postgres => format!("{}+00", time.strftime("%Y-%m-%d %H:%M:%S%.6f")),
            Dialect::MySql => nearest_second(time).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        })
    }

    /// For a statement; times are [`prepared`](Self::prepared) before.
    pub fn arg(&self) -> Arg<'_> {
        match self {
            Self::Null | Self::Time(_) => Arg::Null,
            Self::Int(value) => Arg::Int(*value),
            Self::Flag(value) => Arg::Flag(*value),
            Self::Text(value) => Arg::Text(value),
            Self::Blob(value) => Arg::Blob(value),
        }
    }
}

fn nearest_second(time: Timestamp) -> Timestamp {
    let seconds = time.as_nanosecond().saturating_add(500_000_000).div_euclid(1_000_000_000);
    i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn through_the_file() {
        let time: Timestamp = "2026-11-23T14:30:40.668858094Z".parse().unwrap();
        for (value, kind) in [
            (Value::Null, Kind::Time),
            (Value::Int(i64::MIN), Kind::Int),
            (Value::Int(i64::MAX), Kind::Int),
            (Value::Flag(true), Kind::Flag),
            (Value::Text("a\"\u{2028}\n\u{1f511}".into()), Kind::Text),
            (Value::Blob(vec![0, 255, 10]), Kind::Blob),
            (Value::Blob(Vec::new()), Kind::Blob),
            (Value::Time(time), Kind::Time),
        ] {
            let line = value.to_json().to_string();
            assert_eq!(Value::from_json(&line.parse().unwrap(), kind), Some(value));
        }
        assert_eq!(Value::from_json(&"no base64!".into(), Kind::Blob), None);
        assert_eq!(Value::from_json(&"soon".into(), Kind::Time), None);
        assert_eq!(Value::from_json(&1.5.into(), Kind::Int), None);
        assert_eq!(Value::from_json(&1.into(), Kind::Text), None);
    }

    #[test]
    fn times_of_the_engines() {
        let time = |text: &str| Value::Time(text.parse().unwrap());
        let text = |value: &str| Value::Text(value.into());
        let fine = time("2026-11-23T14:30:40.668858094Z");
        assert_eq!(fine.clone().prepared(Dialect::Sqlite), text("2026-11-23 14:30:40.668858094+00:00"));
        assert_eq!(fine.clone().prepared(Dialect::Postgres), text("2026-11-23 14:30:40.668858+00"));
        assert_eq!(fine.prepared(Dialect::MySql), text("2026-11-23 14:30:41"));
        let whole = time("2026-11-23T23:59:59.4Z");
        assert_eq!(whole.clone().prepared(Dialect::Sqlite), text("2026-11-23 23:59:59.4+00:00"));
        assert_eq!(whole.prepared(Dialect::MySql), text("2026-11-23 23:59:59"));
        assert_eq!(time("2026-11-23T14:30:40Z").prepared(Dialect::Sqlite), text("2026-11-23 14:30:40+00:00"));
    }
}
