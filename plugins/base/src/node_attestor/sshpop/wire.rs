//! SSH's binary form (RFC 4251 §5).

/// Reads values off the front. `None` is cut off or malformed.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(usize::try_from(len).ok()?)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// A positive mpint as big-endian digits without leading zeros.
    pub fn unsigned(&mut self) -> Option<&'a [u8]> {
        match self.bytes()? {
            [first, ..] if first & 0x80 != 0 => None,
            [0, second, ..] if second & 0x80 == 0 => None,
            [0, digits @ ..] if !digits.is_empty() => Some(digits),
            [] | [0] => None,
            digits => Some(digits),
        }
    }
}

pub fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// A positive mpint.
pub fn put_unsigned(out: &mut Vec<u8>, digits: &[u8]) {
    let first = digits.iter().position(|byte| *byte != 0).unwrap_or(digits.len());
    let digits = &digits[first..];
    let pad = usize::from(digits.first().is_some_and(|byte| byte & 0x80 != 0));
    out.extend(((digits.len() + pad) as u32).to_be_bytes());
    out.extend(std::iter::repeat_n(0, pad));
    out.extend(digits);
}
