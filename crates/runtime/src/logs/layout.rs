//! How logrus writes a line.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::{self, Write},
    sync::OnceLock,
};

use jiff::{
    Timestamp,
    fmt::temporal::DateTimePrinter,
    tz::{Offset, TimeZone},
};

use super::{LogFormat, LogLevel};
use crate::clock::{Clock, SystemClock};

/// Fields by name, as logrus sorts them.
pub(super) type Fields = BTreeMap<Cow<'static, str>, Value>;

/// What a field holds.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    Int(i128),
    Float(f64),
    Bool(bool),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Int(int) => write!(f, "{int}"),
            Self::Float(float) => write!(f, "{float}"),
            Self::Bool(bool) => write!(f, "{bool}"),
        }
    }
}

/// One line, newline included.
pub(super) fn line(format: LogFormat, level: LogLevel, message: &str, fields: &Fields) -> String {
    match format {
        LogFormat::Json => json(level, message, fields),
        LogFormat::Default => text(&now(false), level, message, fields),
        LogFormat::Text => text(&now(true), level, message, fields),
    }
}

fn text(time: &str, level: LogLevel, message: &str, fields: &Fields) -> String {
    let mut line = String::with_capacity(128);
    pair(&mut line, "time", time);
    pair(&mut line, "level", level.name());
    if !message.is_empty() {
        pair(&mut line, "msg", message);
    }
    let mut in_order: Vec<_> = fields.iter().map(|(name, value)| (renamed(name), value)).collect();
    in_order.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, value) in in_order {
        match value {
            Value::Text(text) => pair(&mut line, &name, text),
            other => pair(&mut line, &name, &other.to_string()),
        }
    }
    line.push('\n');
    line
}

fn json(level: LogLevel, message: &str, fields: &Fields) -> String {
    use serde_json::Value as Json;
    let mut all = BTreeMap::new();
    for (name, value) in fields {
        let value = match value {
            Value::Text(text) => Json::from(text.as_str()),
            Value::Int(int) => i64::try_from(*int)
                .map(Json::from)
                .or_else(|_| u64::try_from(*int).map(Json::from))
                .unwrap_or_else(|_| Json::from(int.to_string())),
            Value::Float(float) => Json::from(*float),
            Value::Bool(bool) => Json::from(*bool),
        };
        all.insert(renamed(name), value);
    }
    all.insert("level".into(), Json::from(level.name()));
    all.insert("msg".into(), Json::from(message));
    all.insert("time".into(), Json::from(now(true)));
    // Go escapes these three for HTML's sake; readers see no difference, byte comparisons do.
    let mut line = serde_json::to_string(&all).unwrap_or_default();
    if line.contains(['<', '>', '&']) {
        line = line.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    }
    line.push('\n');
    line
}

/// A field with the name of a fixed one gets a prefix.
fn renamed(name: &str) -> Cow<'_, str> {
    match name {
        "time" | "msg" | "level" => format!("fields.{name}").into(),
        _ => name.into(),
    }
}

fn pair(line: &mut String, name: &str, value: &str) {
    if !line.is_empty() {
        line.push(' ');
    }
    line.push_str(name);
    line.push('=');
    if value.chars().all(is_plain) {
        line.push_str(value);
    } else {
        quote(line, value);
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/' | '@' | '^' | '+')
}

/// Go's `%q`.
fn quote(line: &mut String, value: &str) {
    line.push('"');
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            '\u{7}' => line.push_str("\\a"),
            '\u{8}' => line.push_str("\\b"),
            '\u{b}' => line.push_str("\\v"),
            '\u{c}' => line.push_str("\\f"),
            ' '..='~' => line.push(c),
            c if c < '\u{80}' => drop(write!(line, "\\x{:02x}", u32::from(c))),
            c if !is_printable(c) && c <= '\u{ffff}' => drop(write!(line, "\\u{:04x}", u32::from(c))),
            c if !is_printable(c) => drop(write!(line, "\\U{:08x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line.push('"');
}

/// Near enough to Go's `strconv.IsPrint`: what could break or disguise a line is escaped.
fn is_printable(c: char) -> bool {
    let invisible = c.is_control()
        || c.is_whitespace()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{fffd}'..='\u{ffff}')
        || c >= '\u{e0000}';
    !invisible || c == '\u{fffd}'
}

/// RFC 3339 in local time, as Go prints it: fractions without trailing zeros, UTC as `Z`.
fn now(nanos: bool) -> String {
    let now = Timestamp::from_nanosecond(SystemClock.now_nanos()).unwrap_or_default();
    rfc3339(now, local().to_offset(now), nanos)
}

/// `/etc/localtime`, or what `TZ` names; read once, as Go does. The library's own look-up reads the folders of all zones there are to
/// find the file's name.
fn local() -> &'static TimeZone {
    static LOCAL: OnceLock<TimeZone> = OnceLock::new();
    LOCAL.get_or_init(|| {
        let file = std::env::var_os("TZ").is_none().then(|| std::fs::read("/etc/localtime").ok()).flatten();
        let zone = file.and_then(|bytes| TimeZone::tzif("Local", &bytes).ok());
        zone.unwrap_or_else(TimeZone::system)
    })
}

fn rfc3339(time: Timestamp, offset: Offset, nanos: bool) -> String {
    let printer = DateTimePrinter::new().precision((!nanos).then_some(0));
    if offset.seconds() == 0 {
        printer.timestamp_to_string(&time)
    } else {
        printer.timestamp_with_offset_to_string(&time, offset)
    }
}
