//! Datetime columns. SQLite's hold text such as `2026-11-23 14:30:40.668858094+00:00`, with as many digits after the
//! second as there are; the other engines have a type for it.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Unix seconds, to be stored in a datetime column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(pub i64);

/// `stamp(now)`, for statements' arguments.
pub(crate) fn stamp(seconds: i64) -> Stamp {
    Stamp(seconds)
}

impl Stamp {
    fn timestamp(self) -> Timestamp {
        let end = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_second(self.0).unwrap_or(end)
    }

    /// As SPIRE stores it in SQLite.
    pub fn text(self) -> String {
        self.timestamp().strftime("%Y-%m-%d %H:%M:%S+00:00").to_string()
    }

    /// As MySQL reads it; its times know no zone and are UTC.
    pub fn mysql_text(self) -> String {
        self.timestamp().strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// As PostgreSQL sends it: microseconds since 2000-01-01.
    pub fn postgres_micros(self) -> i64 {
        self.timestamp().as_microsecond() - 946_684_800_000_000
    }
}

/// Unix seconds, cut; `None` if the text is no time.
pub(crate) fn seconds(text: &str) -> Option<i64> {
    Some(text.parse::<Timestamp>().ok()?.as_second())
}

/// Unix seconds, to the nearest: how SPIRE reports when an entry was created.
pub(crate) fn nearest_second(text: &str) -> Option<i64> {
    let stamp: Timestamp = text.parse().ok()?;
    Some(stamp.as_nanosecond().saturating_add(500_000_000).div_euclid(1_000_000_000) as i64)
}

/// Microseconds of Unix time from MySQL's binary DATETIME: length, year (little endian), month, day, and, if not
/// midnight, hour, minute, second, and, if not whole, microseconds.
pub(crate) fn mysql_micros(bytes: &[u8]) -> Option<i64> {
    let at = |index: usize| bytes.get(index).map_or(0, |byte| *byte as i8);
    let year = i16::from_le_bytes([*bytes.get(1)?, *bytes.get(2)?]);
    let micros = match bytes.get(8..12) {
        Some(micros) => i32::from_le_bytes(micros.try_into().ok()?),
        None => 0,
    };
    let time = DateTime::new(year, at(3), at(4), at(5), at(6), at(7), micros.checked_mul(1000)?).ok()?;
    Some(TimeZone::UTC.to_timestamp(time).ok()?.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        assert_eq!(Stamp(1_795_444_240).text(), "2026-11-23 14:30:40+00:00");
        assert_eq!(Stamp(1_795_444_240).mysql_text(), "2026-11-23 14:30:40");
        assert_eq!(Stamp(946_684_801).postgres_micros(), 1_000_000);
        assert_eq!(seconds("2026-11-23 14:30:40.668858094+00:00"), Some(1_795_444_240));
        assert_eq!(nearest_second("2026-11-23 14:30:40.668858094+00:00"), Some(1_795_444_241));
        assert_eq!(nearest_second("2026-11-23 14:30:40.4+00:00"), Some(1_795_444_240));
        assert_eq!(seconds("2026-11-23 16:30:40+02:00"), Some(1_795_444_240));
        assert_eq!(seconds("2110-01-01 00:00:00+00:00"), Some(4_417_977_600));
        assert_eq!(seconds(""), None);
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds(&Stamp(-5).text()), Some(-5));
        assert!(Stamp(i64::MAX).text().starts_with("9999-"));
    }

    #[test]
    fn datetimes_of_mysql() {
        assert_eq!(mysql_micros(&[7, 0xea, 0x07, 11, 23, 14, 30, 40]), Some(1_795_444_240_000_000));
        assert_eq!(mysql_micros(&[4, 0xea, 0x07, 11, 23]), Some(1_795_392_000_000_000));
        let micros = [11, 0xea, 0x07, 11, 23, 14, 30, 40, 0x40, 0x42, 0x0f, 0];
        assert_eq!(mysql_micros(&micros), None);
        assert_eq!(mysql_micros(&[0]), None);
        assert_eq!(mysql_micros(&[]), None);
    }
}
