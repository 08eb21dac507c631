//! How Go writes things: people's scripts read these forms.

use std::fmt::Write as _;
use std::io;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use steeple_config::GoDuration;

/// `2026-11-23 16:00:00 +0000 UTC`: a `time.Time` in UTC printed with `%v`.
pub fn time_utc(unix: i64) -> String {
    time_in(unix, TimeZone::UTC)
}

/// The same in the system's time zone: `2026-11-23 17:00:00 +0100 CET`.
pub fn time_local(unix: i64) -> String {
    time_in(unix, TimeZone::system())
}

fn time_in(unix: i64, zone: TimeZone) -> String {
    // Without any configured zone Go takes UTC.
    let zone = if zone.is_unknown() { TimeZone::UTC } else { zone };
    let Ok(timestamp) = Timestamp::from_second(unix) else { return unix.to_string() };
    let abbreviation = zone.to_offset_info(timestamp).abbreviation().to_owned();
    let time = timestamp.to_zoned_datetime(zone);
    format!("{} {abbreviation}", time.strftime("%Y-%m-%d %H:%M:%S %z"))
}

/// `2026-11-23T16:00:00Z`.
pub fn rfc3339_utc(unix: i64) -> String {
    match Timestamp::from_second(unix) {
        Ok(timestamp) => timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => unix.to_string(),
    }
}

/// `1h2m3s`.
pub fn seconds(seconds: i64) -> String {
    nanos(i128::from(seconds) * 1_000_000_000)
}

/// `12.345678ms`. What does not fit Go's 292 years is capped.
pub fn nanos(nanos: i128) -> String {
    let nanos = i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX });
    GoDuration::from_nanos(nanos).to_string()
}

/// A system error without Rust's `(os error 2)`: `no such file or directory`.
pub fn io_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    if error.raw_os_error().is_none() {
        return text.to_owned();
    }
    // strerror begins with a capital, Go's table does not.
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// `path.Join(directory, name)`.
pub fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { clean(name) } else { clean(&format!("{directory}/{name}")) }
}

/// `path.Clean`: no `.`, no doubled slashes, no `..` behind a name.
pub fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// A float as encoding/json and protojson write it: shortest digits, exponent only below 1e-6 and from 1e21.
pub fn float(value: f64) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        // Rust: 1e21, 1.5e-7; Go: 1e+21, 1.5e-07, of which JSON drops the zero.
        let text = format!("{value:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
            _ => text,
        };
    }
    format!("{value}")
}

/// A JSON string as encoding/json writes it: `<`, `>`, `&` and the two line separators escaped when `html`.
pub fn json_string(text: &str, html: bool, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if html => push_escape(out, c),
            c if c < ' ' => push_escape(out, c),
            c => out.push(c),
        }
    }
    out.push('"');
}

fn push_escape(out: &mut String, c: char) {
    let _ = write!(out, "\\u{:04x}", u32::from(c));
}

/// `1 entry`, `2 entries`, `0 entries`.
pub fn plural(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time_utc(0), "1970-01-01 00:00:00 +0000 UTC");
        assert_eq!(time_utc(4_102_444_800), "2100-01-01 00:00:00 +0000 UTC");
        assert_eq!(rfc3339_utc(4_102_444_800), "2100-01-01T00:00:00Z");
        assert_eq!(seconds(3723), "1h2m3s");
        assert_eq!(nanos(1_500_000), "1.5ms");
    }

    #[test]
    fn zones_go_by_their_abbreviation() {
        let zone = |name: &str| TimeZone::posix(name).unwrap();
        assert_eq!(time_in(0, zone("CET-1")), "1970-01-01 01:00:00 +0100 CET");
        assert_eq!(time_in(0, zone("<-03>3")), "1969-12-31 21:00:00 -0300 -03");
        assert_eq!(time_in(0, TimeZone::unknown()), "1970-01-01 00:00:00 +0000 UTC");
    }

    #[test]
    fn system_errors() {
        let missing = std::fs::read("/nonexistent/file").err().map(|e| io_error(&e));
        assert_eq!(missing.as_deref(), Some("no such file or directory"));
        assert_eq!(io_error(&io::Error::other("Plain Text")), "Plain Text");
    }

    #[test]
    fn paths() {
        for (directory, joined) in [
            (".", "svid.pem"),
            ("", "svid.pem"),
            ("/tmp//x/", "/tmp/x/svid.pem"),
            ("a/../b", "b/svid.pem"),
            ("..", "../svid.pem"),
            ("/..", "/svid.pem"),
        ] {
            assert_eq!(join(directory, "svid.pem"), joined, "{directory}");
        }
        assert_eq!(join("", "/tmp/token"), "/tmp/token");
        assert_eq!((clean("").as_str(), clean("/..").as_str()), (".", "/"));
    }

    #[test]
    fn floats() {
        for (value, text) in [
            (1_795_449_600.0, "1795449600"),
            (0.0, "0"),
            (1.5, "1.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e-7, "1.5e-7"),
            (0.000_001, "0.000001"),
            (-2.0, "-2"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn strings() {
        let mut out = String::new();
        json_string("a<b>&\u{2028}\"\\\n\u{1}é", true, &mut out);
        assert_eq!(out, "\"a\\u003cb\\u003e\\u0026\\u2028\\\"\\\\\\n\\u0001é\"");
        out.clear();
        json_string("a<b>", false, &mut out);
        assert_eq!(out, "\"a<b>\"");
    }
}
