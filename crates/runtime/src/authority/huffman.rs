//! As much of HPACK's Huffman code (RFC 7541, appendix B) as it takes to find symbols and swap some for others of the
//! same length. The code is canonical: the symbols of a length are numbered in a row.

/// How many symbols have a code of 5, 6, … 30 bits.
const COUNTS: [u32; 26] =
    [10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 4];
const SHORTEST: u8 = 5;
/// The first code of each of these lengths.
const FIRST: [u32; 26] = first_codes();

const fn first_codes() -> [u32; 26] {
    let mut first = [0; 26];
    let mut at = 1;
    while at < first.len() {
        first[at] = (first[at - 1] + COUNTS[at - 1]) << 1;
        at += 1;
    }
    first
}

/// `:authority`, encoded.
pub const AUTHORITY: [u8; 8] = [0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// A code as it comes in, bit by bit, and where its bytes are.
#[derive(Debug, Clone, Default)]
pub struct Symbol {
    code: u32,
    bits: u8,
    /// The bit of the first byte it begins at, from the left.
    start: u8,
    /// Indices of the bytes that hold it. Replaceable symbols have at most 13 bits: three bytes.
    bytes: [usize; 3],
    byte_count: u8,
}

/// What became of a symbol with the bit that was added.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Incomplete,
    Complete,
    /// No symbol begins like this.
    Malformed,
}

impl Symbol {
    /// Adds bit `bit` (0 is the leftmost) of the byte at `index`, whose value is `byte`.
    pub fn push(&mut self, byte: u8, bit: u8, index: usize) -> Progress {
        if self.bits == 0 {
            self.start = bit;
            self.byte_count = 0;
        }
        if self.bits == 0 || bit == 0 {
            if let Some(slot) = self.bytes.get_mut(usize::from(self.byte_count)) {
                *slot = index;
            }
            self.byte_count = self.byte_count.saturating_add(1);
        }
        self.code = (self.code << 1) | u32::from((byte >> (7 - bit)) & 1);
        self.bits += 1;
        let Some(length) = self.bits.checked_sub(SHORTEST).map(usize::from) else {
            return Progress::Incomplete;
        };
        match (FIRST.get(length), COUNTS.get(length)) {
            (Some(first), Some(count)) if self.code.wrapping_sub(*first) < *count => Progress::Complete,
            (Some(_), Some(_)) => Progress::Incomplete,
            _ => Progress::Malformed,
        }
    }

    /// Where the first byte of an unfinished symbol is. Padding looks like one.
    pub fn begins_at(&self) -> Option<usize> {
        (self.bits > 0).then(|| self.bytes[0])
    }

    /// The bytes have moved towards the front.
    pub fn shift(&mut self, by: usize) {
        for index in &mut self.bytes {
            *index = index.wrapping_sub(by);
        }
    }

    /// Starts over.
    pub fn clear(&mut self) {
        self.code = 0;
        self.bits = 0;
    }

    /// Whether it is `/` or `%`, which a socket's path begins with.
    pub fn tells_a_path(&self) -> bool {
        matches!((self.bits, self.code), (6, SLASH | PERCENT))
    }

    /// Replaces a symbol that an authority may not have. In a path those go too that have a meaning in an authority.
    pub fn replace(&self, window: &mut [u8], in_path: bool) {
        let new = match (self.bits, self.code) {
            (6, SPACE | PERCENT | SLASH) => DASH,
            (7, COLON) if in_path => LETTER_B,
            (10, DOUBLE_QUOTE | QUESTION_MARK) => EXCLAMATION_MARK,
            (11, BAR) => PLUS,
            (13, NUL) => TILDE,
            (13, AT | OPENING_BRACKET | CLOSING_BRACKET) if in_path => TILDE,
            _ => return,
        };
        for offset in 0..self.bits {
            let at = self.start + offset;
            let Some(byte) = self.bytes.get(usize::from(at / 8)).and_then(|index| window.get_mut(*index))
            else {
                return;
            };
            let mask = 0x80 >> (at % 8);
            if (new >> (self.bits - 1 - offset)) & 1 == 1 {
                *byte |= mask;
            } else {
                *byte &= !mask;
            }
        }
    }
}

const SPACE: u32 = 0x14;
const PERCENT: u32 = 0x15;
const DASH: u32 = 0x16;
const SLASH: u32 = 0x18;
const COLON: u32 = 0x5c;
const LETTER_B: u32 = 0x5d;
const EXCLAMATION_MARK: u32 = 0x3f8;
const DOUBLE_QUOTE: u32 = 0x3f9;
const QUESTION_MARK: u32 = 0x3fc;
const PLUS: u32 = 0x7fb;
const BAR: u32 = 0x7fc;
const NUL: u32 = 0x1ff8;
const AT: u32 = 0x1ffa;
const OPENING_BRACKET: u32 = 0x1ffb;
const CLOSING_BRACKET: u32 = 0x1ffc;
const TILDE: u32 = 0x1ffd;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_complete() {
        assert_eq!(COUNTS.iter().sum::<u32>(), 257, "256 bytes and EOS");
        // Kraft: a complete prefix code uses up every sequence of bits.
        let used: u64 = (5u32..).zip(COUNTS).map(|(bits, count)| u64::from(count) << (30 - bits)).sum();
        assert_eq!(used, 1 << 30);
        // Spot checks against the table of the RFC.
        assert_eq!((FIRST[0], FIRST[1], FIRST[2], FIRST[3]), (0x0, 0x14, 0x5c, 0xf8));
        assert_eq!((FIRST[5], FIRST[8], FIRST[25]), (0x3f8, 0x1ff8, 0x3fff_fffc));
    }
}
