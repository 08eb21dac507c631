//! Just enough DER to write certificates and to take keys and names apart. Reading of whole certificates
//! is x509-parser's.

use crate::UnixTime;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OID: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const PRINTABLE_STRING: u8 = 0x13;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;
/// `[n]`, primitive.
pub(crate) const fn context(n: u8) -> u8 {
    0x80 | n
}
/// `[n]`, constructed.
pub(crate) const fn context_constructed(n: u8) -> u8 {
    0xa0 | n
}

/// Appends DER to one buffer; lengths are patched in after the content.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { out: Vec::with_capacity(capacity) }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out
    }

    /// Appends what is DER already.
    pub(crate) fn raw(&mut self, der: &[u8]) {
        self.out.extend_from_slice(der);
    }

    pub(crate) fn byte(&mut self, byte: u8) {
        self.out.push(byte);
    }

    /// A value whose content is written by `content`.
    pub(crate) fn nested(&mut self, tag: u8, content: impl FnOnce(&mut Self)) {
        self.out.push(tag);
        let length_at = self.out.len();
        self.out.push(0);
        content(self);
        let len = self.out.len() - length_at - 1;
        if len < 0x80 {
            self.out[length_at] = len as u8;
            return;
        }
        let bytes = len.to_be_bytes();
        let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        let digits = &bytes[first..];
        self.out[length_at] = 0x80 | digits.len() as u8;
        let content_at = length_at + 1;
        self.out.splice(content_at..content_at, digits.iter().copied());
    }

    pub(crate) fn value(&mut self, tag: u8, content: &[u8]) {
        self.nested(tag, |w| w.raw(content));
    }

    /// A non-negative INTEGER from big-endian bytes.
    pub(crate) fn unsigned(&mut self, bytes: &[u8]) {
        let first = bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
        let digits = &bytes[first..];
        self.nested(INTEGER, |w| {
            if digits.first().is_none_or(|b| b & 0x80 != 0) {
                w.byte(0);
            }
            w.raw(digits);
        });
    }

    /// A BIT STRING without unused bits.
    pub(crate) fn bit_string(&mut self, bytes: &[u8]) {
        self.nested(BIT_STRING, |w| {
            w.byte(0);
            w.raw(bytes);
        });
    }

    /// UTCTime until 2049, GeneralizedTime beyond (RFC 5280 §4.1.2.5).
    pub(crate) fn time(&mut self, at: UnixTime) {
        let (year, month, day) = civil_from_days(at.div_euclid(86_400));
        let second = at.rem_euclid(86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let rest = format!("{month:02}{day:02}{hour:02}{minute:02}{second:02}Z");
        if (1950..2050).contains(&year) {
            self.value(UTC_TIME, format!("{:02}{rest}", year.rem_euclid(100)).as_bytes());
        } else {
            self.value(GENERALIZED_TIME, format!("{:04}{rest}", year.clamp(0, 9999)).as_bytes());
        }
    }
}

/// Proleptic Gregorian date of a day count from 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// Reads DER values off the front of a slice. `None` is malformed or not what was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(der: &'a [u8]) -> Self {
        Self { rest: der }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn peek_tag(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next value as (tag, content, whole encoding).
    pub(crate) fn any(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let whole = self.rest;
        let (&tag, rest) = whole.split_first()?;
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = if first < 0x80 {
            (usize::from(first), rest)
        } else {
            let digits = usize::from(first & 0x7f);
            if digits == 0 || digits > 4 || rest.len() < digits {
                return None;
            }
            let len = rest[..digits].iter().fold(0_usize, |len, b| len << 8 | usize::from(*b));
            // DER: the shortest form only.
            if len < 0x80 || rest[0] == 0 {
                return None;
            }
            (len, &rest[digits..])
        };
        if rest.len() < len {
            return None;
        }
        let (content, rest) = rest.split_at(len);
        self.rest = rest;
        Some((tag, content, &whole[..whole.len() - rest.len()]))
    }

    pub(crate) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (found, content, _) = self.any()?;
        (found == tag).then_some(content)
    }

    pub(crate) fn nested(&mut self, tag: u8) -> Option<Reader<'a>> {
        self.expect(tag).map(Reader::new)
    }

    /// A non-negative INTEGER as big-endian bytes without leading zeros.
    pub(crate) fn unsigned(&mut self) -> Option<&'a [u8]> {
        let content = self.expect(INTEGER)?;
        match content {
            [] => None,
            [first, ..] if first & 0x80 != 0 => None,
            [0, second, ..] if second & 0x80 == 0 => None,
            [0, rest @ ..] => Some(rest),
            all => Some(all),
        }
    }

    /// A BIT STRING that holds whole bytes.
    pub(crate) fn bit_string(&mut self) -> Option<&'a [u8]> {
        match self.expect(BIT_STRING)? {
            [0, bytes @ ..] => Some(bytes),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_use_the_shortest_form_and_read_back() {
        for len in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7_u8; len];
            let mut w = Writer::default();
            w.value(OCTET_STRING, &content);
            let der = w.finish();
            let mut r = Reader::new(&der);
            assert_eq!(r.expect(OCTET_STRING), Some(content.as_slice()), "{len}");
            assert!(r.is_empty());
        }
        assert!(Reader::new(&[0x04, 0x81, 0x01, 0x00]).any().is_none(), "long form of a short length");
        assert!(Reader::new(&[0x04, 0x05, 0x00]).any().is_none(), "cut off");
    }

    #[test]
    fn integers_are_minimal_and_positive() {
        for (bytes, want) in [
            (&[0_u8, 0, 0][..], &[2_u8, 1, 0][..]),
            (&[0x7f], &[2, 1, 0x7f]),
            (&[0x80], &[2, 2, 0, 0x80]),
            (&[0, 1, 2], &[2, 2, 1, 2]),
        ] {
            let mut w = Writer::default();
            w.unsigned(bytes);
            assert_eq!(w.finish(), want);
        }
    }

    #[test]
    fn times_switch_form_at_2050() {
        for (at, want) in [
            (0, "\u{17}\u{d}700101000000Z"),
            (951_782_399, "\u{17}\u{d}000228235959Z"),
            (951_782_400, "\u{17}\u{d}000229000000Z"),
            (2_524_607_999, "\u{17}\u{d}491231235959Z"),
            (2_524_608_000, "\u{18}\u{f}20500101000000Z"),
        ] {
            let mut w = Writer::default();
            w.time(at);
            assert_eq!(w.finish(), want.as_bytes(), "{at}");
        }
    }
}
