//! SPIRE's datetime columns: text such as `2026-11-23 14:30:40.668858094+00:00`, with as many digits after the
//! second as there are.

use jiff::Timestamp;

/// Unix seconds as SPIRE stores them.
pub(crate) fn to_text(seconds: i64) -> String {
    let stamp =
        Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX });
    stamp.strftime("%Y-%m-%d %H:%M:%S+00:00").to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways() {
        assert_eq!(to_text(1_795_444_240), "2026-11-23 14:30:40+00:00");
        assert_eq!(seconds("2026-11-23 14:30:40.668858094+00:00"), Some(1_795_444_240));
        assert_eq!(nearest_second("2026-11-23 14:30:40.668858094+00:00"), Some(1_795_444_241));
        assert_eq!(nearest_second("2026-11-23 14:30:40.4+00:00"), Some(1_795_444_240));
        assert_eq!(seconds("2026-11-23 16:30:40+02:00"), Some(1_795_444_240));
        assert_eq!(seconds("2110-01-01 00:00:00+00:00"), Some(4_417_977_600));
        assert_eq!(seconds(""), None);
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds(&to_text(-5)), Some(-5));
        assert!(to_text(i64::MAX).starts_with("9999-"));
    }
}
