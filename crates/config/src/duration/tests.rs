use super::*;

fn nanos(text: &str) -> Result<i64, String> {
    text.parse::<GoDuration>().map(GoDuration::nanos).map_err(|e| e.to_string())
}

#[test]
fn reads() {
    let cases = [
        ("0", 0),
        ("1h30m", 5_400_000_000_000),
        ("300ms", 300_000_000),
        ("-1.5s", -1_500_000_000),
        ("+5us", 5_000),
        ("2µs", 2_000),
        (".5h", 1_800_000_000_000),
        ("1.s", 1_000_000_000),
        ("9223372036854775807ns", i64::MAX),
        ("-9223372036854775808ns", i64::MIN),
    ];
    for (text, want) in cases {
        assert_eq!(nanos(text), Ok(want), "{text}");
    }
}

#[test]
fn refuses_in_gos_words() {
    let cases = [
        ("", "time: invalid duration \"\""),
        ("-", "time: invalid duration \"-\""),
        ("5", "time: missing unit in duration \"5\""),
        ("5x", "time: unknown unit \"x\" in duration \"5x\""),
        ("1h ", "time: unknown unit \"h \" in duration \"1h \""),
        (".s", "time: invalid duration \".s\""),
        ("9223372036854775808ns", "time: invalid duration \"9223372036854775808ns\""),
        ("2562048h", "time: invalid duration \"2562048h\""),
        ("18446744073709551616s", "time: invalid duration \"18446744073709551616s\""),
        // Go's sum wraps around to zero here.
        (
            "9223372036854775808ns9223372036854775808ns",
            "time: invalid duration \"9223372036854775808ns9223372036854775808ns\"",
        ),
        ("é", "time: invalid duration \"\\xc3\\xa9\""),
    ];
    for (text, want) in cases {
        assert_eq!(nanos(text), Err(want.to_owned()), "{text}");
    }
}

#[test]
fn prints() {
    let cases = [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (3_300_000_000, "3.3s"),
        (60_000_000_000, "1m0s"),
        (5_400_000_000_000, "1h30m0s"),
        (3_600_000_000_001, "1h0m0.000000001s"),
        (-1_500_000_000, "-1.5s"),
        (i64::MAX, "2562047h47m16.854775807s"),
        (i64::MIN, "-2562047h47m16.854775808s"),
    ];
    for (nanos, want) in cases {
        assert_eq!(GoDuration::from_nanos(nanos).to_string(), want);
    }
}

#[test]
fn converts() {
    assert_eq!(GoDuration::from_secs(90).seconds(), 90);
    assert_eq!(GoDuration::from_secs(i64::MAX).nanos(), i64::MAX);
    assert_eq!(GoDuration::from_secs(1).to_std(), Some(Duration::from_secs(1)));
    assert_eq!(GoDuration::from_secs(-1).to_std(), None);
    assert!(GoDuration::from_secs(-1).is_negative() && GoDuration::ZERO.is_zero());
    assert_eq!(GoDuration::from(Duration::from_millis(5)).to_string(), "5ms");
    assert_eq!(GoDuration::from(Duration::MAX).nanos(), i64::MAX);
}
