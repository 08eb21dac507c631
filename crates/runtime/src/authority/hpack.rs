//! Walks a header block (RFC 7541 §6) byte by byte, without tables, and rewrites the values of `:authority`.

use super::huffman::{self, Progress, Symbol};

const NAME: &[u8] = b":authority";
/// `:authority` in the static table.
const STATIC_INDEX: u32 = 1;
/// Longer integers than this many continuation bytes are for h2 to refuse.
const MAX_SHIFT: u8 = 28;

/// The block cannot be read: leave the connection alone from here on.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Where in a header block we are.
#[derive(Debug, Default)]
pub struct Block {
    step: Step,
    /// In an `:authority` value: whether it has turned out to be a path.
    in_path: bool,
    symbol: Symbol,
}

#[derive(Debug, Clone, Copy, Default)]
enum Step {
    /// A representation begins.
    #[default]
    Field,
    /// An integer goes on.
    Integer { of: Integer, value: u32, shift: u8 },
    /// A string's length begins.
    Length { of: Text },
    /// A name is read, and equals `:authority` up to here (`Some`) or not.
    Name { left: u32, huffman: bool, matched: Option<u32> },
    /// A value that does not concern us.
    Other { left: u32 },
    /// The value of `:authority`.
    Authority { left: u32, huffman: bool },
}

/// What an integer says.
#[derive(Debug, Clone, Copy)]
enum Integer {
    /// An index or a table size, with nothing behind it.
    Alone,
    /// The index of a literal's name; 0 is a literal name.
    NameIndex,
    Length {
        of: Text,
        huffman: bool,
    },
}

#[derive(Debug, Clone, Copy)]
enum Text {
    Name,
    Value { authority: bool },
}

impl Block {
    /// Whether the block may end here.
    pub fn is_complete(&self) -> bool {
        matches!(self.step, Step::Field)
    }

    /// Bytes from here on must not be passed on yet: they may still change.
    pub fn held_from(&self) -> Option<usize> {
        match self.step {
            Step::Authority { huffman: true, .. } => self.symbol.begins_at(),
            _ => None,
        }
    }

    /// The window's bytes have moved towards the front.
    pub fn shift(&mut self, by: usize) {
        self.symbol.shift(by);
    }

    /// Reads `window[from..to]`, rewriting what is to be.
    pub fn walk(&mut self, window: &mut [u8], from: usize, to: usize) -> Result<(), Malformed> {
        let mut at = from;
        while at < to {
            at = match self.step {
                Step::Other { left } => self.skip(left, at, to),
                Step::Name { left, huffman, matched } => self.name(window[at], left, huffman, matched, at),
                Step::Authority { left, huffman } => self.authority(window, left, huffman, at)?,
                Step::Field => {
                    self.field(window[at])?;
                    at + 1
                }
                Step::Integer { of, value, shift } => {
                    self.integer(window[at], of, value, shift)?;
                    at + 1
                }
                Step::Length { of } => {
                    let huffman = window[at] & 0x80 != 0;
                    self.prefix(window[at], 7, Integer::Length { of, huffman })?;
                    at + 1
                }
            };
        }
        Ok(())
    }

    fn field(&mut self, byte: u8) -> Result<(), Malformed> {
        match byte {
            0x80.. => self.prefix(byte, 7, Integer::Alone), // §6.1 indexed
            0x40..=0x7f => self.prefix(byte, 6, Integer::NameIndex), // §6.2.1 with incremental indexing
            0x20..=0x3f => self.prefix(byte, 5, Integer::Alone), // §6.3 table size update
            _ => self.prefix(byte, 4, Integer::NameIndex),  // §6.2.2, §6.2.3 without, never
        }
    }

    /// §5.1: the first byte of an integer.
    fn prefix(&mut self, byte: u8, bits: u8, of: Integer) -> Result<(), Malformed> {
        let most = (1u8 << bits) - 1;
        let value = byte & most;
        if value == most {
            self.step = Step::Integer { of, value: u32::from(value), shift: 0 };
            return Ok(());
        }
        self.known(of, u32::from(value))
    }

    fn integer(&mut self, byte: u8, of: Integer, value: u32, shift: u8) -> Result<(), Malformed> {
        if shift > MAX_SHIFT {
            return Err(Malformed);
        }
        let more = u32::from(byte & 0x7f).checked_mul(1 << shift).ok_or(Malformed)?;
        let value = value.checked_add(more).ok_or(Malformed)?;
        if byte & 0x80 == 0 {
            return self.known(of, value);
        }
        self.step = Step::Integer { of, value, shift: shift + 7 };
        Ok(())
    }

    fn known(&mut self, of: Integer, value: u32) -> Result<(), Malformed> {
        self.step = match of {
            Integer::Alone => Step::Field,
            Integer::NameIndex if value == 0 => Step::Length { of: Text::Name },
            Integer::NameIndex => Step::Length { of: Text::Value { authority: value == STATIC_INDEX } },
            // A header without a name, or a value that is empty.
            Integer::Length { of: Text::Name, .. } if value == 0 => return Err(Malformed),
            Integer::Length { of: Text::Value { .. }, .. } if value == 0 => Step::Field,
            Integer::Length { of: Text::Name, huffman } => {
                let expected = if huffman { huffman::AUTHORITY.len() } else { NAME.len() };
                let matched = (value as usize == expected).then_some(0);
                Step::Name { left: value, huffman, matched }
            }
            Integer::Length { of: Text::Value { authority: false }, .. } => Step::Other { left: value },
            Integer::Length { of: Text::Value { authority: true }, huffman } => {
                self.in_path = false;
                self.symbol.clear();
                Step::Authority { left: value, huffman }
            }
        };
        Ok(())
    }

    fn name(&mut self, byte: u8, left: u32, huffman: bool, matched: Option<u32>, at: usize) -> usize {
        let expected: &[u8] = if huffman { &huffman::AUTHORITY } else { NAME };
        let matched =
            matched.filter(|so_far| expected.get(*so_far as usize) == Some(&byte)).map(|so_far| so_far + 1);
        self.step = if left > 1 {
            Step::Name { left: left - 1, huffman, matched }
        } else {
            Step::Length { of: Text::Value { authority: matched.is_some() } }
        };
        at + 1
    }

    fn skip(&mut self, left: u32, at: usize, to: usize) -> usize {
        let count = (to - at).min(left as usize);
        let left = left - count as u32;
        self.step = if left > 0 { Step::Other { left } } else { Step::Field };
        at + count
    }

    fn authority(
        &mut self,
        window: &mut [u8],
        left: u32,
        huffman: bool,
        at: usize,
    ) -> Result<usize, Malformed> {
        if huffman {
            self.symbols(window, at)?;
        } else {
            self.raw(&mut window[at]);
        }
        self.step = if left > 1 { Step::Authority { left: left - 1, huffman } } else { Step::Field };
        Ok(at + 1)
    }

    fn symbols(&mut self, window: &mut [u8], at: usize) -> Result<(), Malformed> {
        for bit in 0..8 {
            // Replacing a symbol leaves the bits behind it alone, so the byte may be read again.
            match self.symbol.push(window[at], bit, at) {
                Progress::Incomplete => {}
                Progress::Malformed => return Err(Malformed),
                Progress::Complete => {
                    self.in_path |= self.symbol.tells_a_path();
                    self.symbol.replace(window, self.in_path);
                    self.symbol.clear();
                }
            }
        }
        Ok(())
    }

    fn raw(&mut self, byte: &mut u8) {
        self.in_path |= matches!(byte, b'/' | b'%');
        let stays = match byte {
            b':' | b'@' | b'[' | b']' => !self.in_path,
            _ => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte),
        };
        if !stays {
            *byte = b'-';
        }
    }
}
