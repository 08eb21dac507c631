//! The one time layout of the agent commands, read as Go's `time.Parse` reads it.

use steeple_config::go_quote;

const LAYOUT: &str = "2006-01-02 15:04:05 -0700 -07";

/// Is `text` a time in [`LAYOUT`]? If not, Go's words for the first part that does not fit.
pub fn check(text: &str) -> Result<(), String> {
    let mut reader = Reader { text, rest: text };
    let year = reader.year()?;
    reader.literal('-')?;
    let month = reader.number("01", Digits::Two, 12, "month")?;
    if month == 0 {
        return Err(reader.out_of_range("month"));
    }
    reader.literal('-')?;
    let day = reader.number("02", Digits::Two, 99, "day")?;
    reader.space()?;
    reader.number("15", Digits::OneOrTwo, 23, "hour")?;
    reader.literal(':')?;
    reader.number("04", Digits::Two, 59, "minute")?;
    reader.literal(':')?;
    reader.number("05", Digits::Two, 59, "second")?;
    reader.fraction();
    reader.space()?;
    reader.offset("-0700")?;
    reader.space()?;
    reader.offset("-07")?;
    if !reader.rest.is_empty() {
        return Err(format!("parsing time {}: extra text: {}", go_quote(text), go_quote(reader.rest)));
    }
    if day == 0 || day > days_in(year, month) {
        return Err(reader.out_of_range("day"));
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum Digits {
    Two,
    OneOrTwo,
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    fn year(&mut self) -> Result<u32, String> {
        let year = self.rest.get(..4).filter(|year| year.bytes().all(|c| c.is_ascii_digit()));
        let year = year.and_then(|year| year.parse().ok()).ok_or_else(|| self.mismatch("2006"))?;
        self.rest = &self.rest[4..];
        Ok(year)
    }

    fn number(&mut self, part: &str, digits: Digits, highest: u32, name: &str) -> Result<u32, String> {
        let found = self.rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
        if found == 0 || (found == 1 && digits == Digits::Two) {
            return Err(self.mismatch(part));
        }
        let value = self.rest[..found].parse().unwrap_or(u32::MAX);
        self.rest = &self.rest[found..];
        if value > highest { Err(self.out_of_range(name)) } else { Ok(value) }
    }

    /// Part of a second: not in the layout, but Go takes it.
    fn fraction(&mut self) {
        let Some(digits) = self.rest.strip_prefix(['.', ',']) else { return };
        let rest = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() < digits.len() {
            self.rest = rest;
        }
    }

    /// `+0100` or `+01`.
    fn offset(&mut self, part: &str) -> Result<(), String> {
        let offset = self.rest.get(..part.len()).filter(|offset| {
            offset.starts_with(['+', '-']) && offset.bytes().skip(1).all(|c| c.is_ascii_digit())
        });
        let offset = offset.ok_or_else(|| self.mismatch(part))?;
        self.rest = &self.rest[part.len()..];
        let two = |at: usize| {
            offset.get(at..at + 2).and_then(|digits| digits.parse::<u32>().ok()).unwrap_or_default()
        };
        if two(1) > 24 {
            return Err(self.out_of_range("time zone offset hour"));
        }
        if two(3) > 60 {
            return Err(self.out_of_range("time zone offset minute"));
        }
        Ok(())
    }

    fn literal(&mut self, wanted: char) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(wanted).ok_or_else(|| self.mismatch(&wanted.to_string()))?;
        Ok(())
    }

    /// Any number of spaces, also none at the end.
    fn space(&mut self) -> Result<(), String> {
        if !self.rest.is_empty() && !self.rest.starts_with(' ') {
            return Err(self.mismatch(" "));
        }
        self.rest = self.rest.trim_start_matches(' ');
        Ok(())
    }

    fn mismatch(&self, part: &str) -> String {
        let (text, layout, rest) = (go_quote(self.text), go_quote(LAYOUT), go_quote(self.rest));
        format!("parsing time {text} as {layout}: cannot parse {rest} as {}", go_quote(part))
    }

    fn out_of_range(&self, what: &str) -> String {
        format!("parsing time {}: {what} out of range", go_quote(self.text))
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones() {
        for text in [
            "2026-11-23 16:00:00 +0100 +01",
            "2026-11-23 1:00:00 +0100 +01",
            "2026-11-23  16:00:00.5 -0100 -01",
            "2028-02-29 00:00:00 +0000 +00",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn bad_ones() {
        for (text, message) in [
            ("nope", "cannot parse \"nope\" as \"2006\""),
            ("2026", "cannot parse \"\" as \"-\""),
            ("2026/11", "cannot parse \"/11\" as \"-\""),
            ("2026-11-23", "cannot parse \"\" as \"15\""),
            ("2026-11-23 16:00:00 Z", "cannot parse \"Z\" as \"-0700\""),
            ("2026-00-23 16:00:00 +0100 +01", "month out of range"),
            ("2026-13-23 16:00:00 +0100 +01", "month out of range"),
            ("2026-02-29 16:00:00 +0100 +01", "day out of range"),
            ("2026-11-23 24:00:00 +0100 +01", "hour out of range"),
            ("2026-11-23 16:00:00 +9900 +01", "time zone offset hour out of range"),
            ("2026-11-23 16:00:00 +0100 +01x", "extra text: \"x\""),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.ends_with(message), "{error}");
        }
    }
}
