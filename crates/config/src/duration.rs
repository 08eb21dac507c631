//! Durations as Go writes and reads them.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A signed number of nanoseconds: Go's `time.Duration`. Parses `1h30m`, `1.5s`, `-300ms`; prints as Go does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GoDuration(i64);

impl GoDuration {
    pub const ZERO: Self = Self(0);

    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Saturates at Go's limits (about 292 years).
    pub const fn from_secs(seconds: i64) -> Self {
        Self(seconds.saturating_mul(SECOND as i64))
    }

    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Whole seconds, cut towards zero.
    pub const fn seconds(self) -> i64 {
        self.0 / SECOND as i64
    }

    pub const fn is_negative(self) -> bool {
        self.0 < 0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// `None` for a negative one.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

/// Saturates at Go's limits.
impl From<Duration> for GoDuration {
    fn from(duration: Duration) -> Self {
        Self(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// Not a duration. The texts are Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("time: invalid duration {}", quote(.0))]
    Invalid(String),
    #[error("time: missing unit in duration {}", quote(.0))]
    MissingUnit(String),
    #[error("time: unknown unit {} in duration {}", quote(.unit), quote(.text))]
    UnknownUnit { unit: String, text: String },
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let invalid = || DurationError::Invalid(text.to_owned());
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        // Up to and including 2^63, which only a negative duration may reach.
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (part, behind) = parse_part(text, rest)?;
            total = total.checked_add(part).filter(|t| *t <= 1 << 63).ok_or_else(invalid)?;
            rest = behind;
        }
        if negative {
            return 0i64.checked_sub_unsigned(total).map(Self).ok_or_else(invalid);
        }
        i64::try_from(total).map(Self).map_err(|_| invalid())
    }
}

/// One number with its unit, in nanoseconds, and what follows.
fn parse_part<'a>(text: &str, rest: &'a str) -> Result<(u64, &'a str), DurationError> {
    let invalid = || DurationError::Invalid(text.to_owned());
    let (whole_digits, rest) = split_digits(rest);
    let (fraction_digits, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole_digits.is_empty() && fraction_digits.is_empty() {
        return Err(invalid());
    }
    let whole: u64 = match whole_digits {
        "" => 0,
        digits => digits.parse().ok().filter(|v| *v <= 1 << 63).ok_or_else(invalid)?,
    };
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let unit = match unit {
        "" => return Err(DurationError::MissingUnit(text.to_owned())),
        "ns" => 1,
        // Micro sign and Greek mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return Err(DurationError::UnknownUnit { unit: unit.to_owned(), text: text.to_owned() }),
    };
    let mut nanos = whole.checked_mul(unit).filter(|v| *v <= 1 << 63).ok_or_else(invalid)?;
    let (fraction, scale) = fraction_of(fraction_digits);
    if fraction > 0 {
        // In floating point, as Go does it.
        nanos += (fraction as f64 * (unit as f64 / scale)) as u64;
        if nanos > 1 << 63 {
            return Err(invalid());
        }
    }
    Ok((nanos, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len()))
}

/// The digits as an integer, and ten to the power of how many were used: those past 63 bits are not.
fn fraction_of(digits: &str) -> (u64, f64) {
    let (mut value, mut scale) = (0u64, 1f64);
    for b in digits.bytes() {
        let next = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(b - b'0')));
        let Some(next) = next.filter(|_| value <= i64::MAX as u64 / 10).filter(|v| *v <= 1 << 63) else {
            break;
        };
        value = next;
        scale *= 10.0;
    }
    (value, scale)
}

/// `1h30m0s`, `1.5s`, `300ms`, `2µs`, `0s`.
impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        if self.0 < 0 {
            f.write_str("-")?;
        }
        match nanos {
            0 => f.write_str("0s"),
            1..MICROSECOND => write!(f, "{nanos}ns"),
            MICROSECOND..MILLISECOND => write!(f, "{}µs", decimal(nanos, MICROSECOND, 3)),
            MILLISECOND..SECOND => write!(f, "{}ms", decimal(nanos, MILLISECOND, 6)),
            _ => {
                let (hours, minutes) = (nanos / HOUR, nanos / MINUTE % 60);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                write!(f, "{}s", decimal(nanos % MINUTE, SECOND, 9))
            }
        }
    }
}

/// `nanos / unit` with its fraction of `width` digits, trailing zeros cut.
fn decimal(nanos: u64, unit: u64, width: usize) -> String {
    let text = format!("{}.{:0width$}", nanos / unit, nanos % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Quoting of Go's `time` package: like `%q`, but bytes that are not ASCII are escaped one by one.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..0x80 => out.push(char::from(byte)),
            _ => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
