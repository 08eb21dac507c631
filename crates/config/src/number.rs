//! Integers as Go's `strconv.ParseInt(s, 0, 64)` reads them.

/// Why a text is not an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IntError {
    Syntax,
    Range,
}

/// Base by prefix: `0x`, `0o`, `0b`, `0` (octal), else decimal. Underscores may stand between digits and after the
/// prefix. A sign may lead.
pub(crate) fn parse_int(text: &str) -> Result<i64, IntError> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let lower = unsigned.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    let prefixed = digits.len() != lower.len();
    let mut value: u64 = 0;
    let mut overflow = false;
    // Go allows one underscore wherever the character before it is a digit or the base prefix.
    let mut may_underscore = prefixed;
    let mut last_digit = false;
    for c in digits.chars() {
        if c == '_' {
            if !may_underscore {
                return Err(IntError::Syntax);
            }
            may_underscore = false;
            last_digit = false;
            continue;
        }
        let digit = c.to_digit(base).ok_or(IntError::Syntax)?;
        match value.checked_mul(u64::from(base)).and_then(|v| v.checked_add(u64::from(digit))) {
            Some(v) => value = v,
            None => overflow = true,
        }
        may_underscore = true;
        last_digit = true;
    }
    if !last_digit {
        return Err(IntError::Syntax);
    }
    if overflow {
        return Err(IntError::Range);
    }
    if negative {
        0i64.checked_sub_unsigned(value).ok_or(IntError::Range)
    } else {
        i64::try_from(value).map_err(|_| IntError::Range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        let cases: &[(&str, Result<i64, IntError>)] = &[
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("+7", Ok(7)),
            ("8081", Ok(8081)),
            ("0x1F", Ok(31)),
            ("0X1f", Ok(31)),
            ("0755", Ok(493)),
            ("0o17", Ok(15)),
            ("0b101", Ok(5)),
            ("1_000", Ok(1000)),
            ("0x_1f", Ok(31)),
            ("0_7", Ok(7)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(IntError::Range)),
            ("99999999999999999999999", Err(IntError::Range)),
            ("", Err(IntError::Syntax)),
            ("-", Err(IntError::Syntax)),
            ("0x", Err(IntError::Syntax)),
            ("08", Err(IntError::Syntax)),
            ("1__0", Err(IntError::Syntax)),
            ("_1", Err(IntError::Syntax)),
            ("1_", Err(IntError::Syntax)),
            (" 1", Err(IntError::Syntax)),
            ("1.5", Err(IntError::Syntax)),
            ("abc", Err(IntError::Syntax)),
        ];
        for (text, want) in cases {
            assert_eq!(parse_int(text), *want, "{text:?}");
        }
    }
}
