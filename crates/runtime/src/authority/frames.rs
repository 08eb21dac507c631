//! Finds header blocks in what a client sends (RFC 9113 §4).

use super::hpack::Block;

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER: usize = 9;
const HEADERS: u8 = 0x1;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_LENGTH: u32 = 5;
/// Between the bytes of one symbol there may be frame headers, of empty frames even. Beyond this the client plays games.
const MAX_HELD: usize = 64;

/// Where in the stream we are.
#[derive(Debug, Default)]
pub struct Frames {
    step: Step,
    block: Block,
    /// A block has begun and goes on in CONTINUATION.
    in_block: bool,
}

#[derive(Debug)]
enum Step {
    /// So many bytes of the preface have come.
    Preface(u8),
    Header {
        have: u8,
        bytes: [u8; HEADER],
    },
    /// The payload of a frame that does not concern us.
    Skip {
        left: u32,
    },
    /// The pad length of HEADERS.
    PadLength {
        left: u32,
        flags: u8,
    },
    /// The priority of HEADERS.
    Priority {
        skip: u32,
        left: u32,
        pad: u32,
        end: bool,
    },
    Fragment {
        left: u32,
        pad: u32,
        end: bool,
    },
    /// Not HTTP/2, or malformed: no longer our business.
    Passing,
}

impl Default for Step {
    fn default() -> Self {
        Self::Preface(0)
    }
}

const NO_HEADER: Step = Step::Header { have: 0, bytes: [0; HEADER] };

impl Frames {
    /// Reads `window[from..]`, what is before having been read; rewrites in place, and answers how many bytes may be
    /// passed on. The rest has to be at the front of the next window.
    pub fn process(&mut self, window: &mut [u8], from: usize) -> usize {
        let mut at = from;
        while at < window.len() {
            at = match self.step {
                Step::Passing => return window.len(),
                Step::Skip { left } => self.skip(left, at, window.len()),
                Step::Fragment { left, pad, end } => self.fragment(window, left, pad, end, at),
                Step::Priority { skip, left, pad, end } => {
                    let count = (window.len() - at).min(skip as usize);
                    let skip = skip - count as u32;
                    self.step = if skip > 0 {
                        Step::Priority { skip, left, pad, end }
                    } else {
                        Step::Fragment { left, pad, end }
                    };
                    self.finish_empty();
                    at + count
                }
                Step::Preface(_) | Step::Header { .. } | Step::PadLength { .. } => {
                    self.byte(window[at]);
                    at + 1
                }
            };
        }
        let held_from = if matches!(self.step, Step::Passing) { None } else { self.block.held_from() };
        let passed = held_from.unwrap_or(window.len());
        if window.len() - passed > MAX_HELD {
            self.step = Step::Passing;
            return window.len();
        }
        self.block.shift(passed);
        passed
    }

    fn byte(&mut self, byte: u8) {
        match &mut self.step {
            Step::Preface(have) => {
                if PREFACE.get(usize::from(*have)) != Some(&byte) {
                    self.step = Step::Passing;
                    return;
                }
                *have += 1;
                if usize::from(*have) == PREFACE.len() {
                    self.step = NO_HEADER;
                }
            }
            Step::Header { have, bytes } => {
                bytes[usize::from(*have)] = byte;
                *have += 1;
                if usize::from(*have) == HEADER {
                    let [a, b, c, kind, flags, ..] = *bytes;
                    self.frame(u32::from_be_bytes([0, a, b, c]), kind, flags);
                }
            }
            Step::PadLength { left, flags } => {
                let (left, flags) = (*left - 1, *flags);
                self.headers(left, u32::from(byte), flags);
            }
            _ => {}
        }
    }

    fn frame(&mut self, length: u32, kind: u8, flags: u8) {
        match (kind, self.in_block) {
            (HEADERS, false) => {
                self.in_block = true;
                self.block = Block::default();
                if flags & PADDED == 0 {
                    self.headers(length, 0, flags);
                } else if length == 0 {
                    self.step = Step::Passing;
                } else {
                    self.step = Step::PadLength { left: length, flags };
                }
            }
            (CONTINUATION, true) => {
                self.step = Step::Fragment { left: length, pad: 0, end: flags & END_HEADERS != 0 };
                self.finish_empty();
            }
            (_, false) if length == 0 => self.step = NO_HEADER,
            (_, false) => self.step = Step::Skip { left: length },
            // Nothing may come between the frames of a block.
            (_, true) => self.step = Step::Passing,
        }
    }

    fn headers(&mut self, left: u32, pad: u32, flags: u8) {
        let skip = if flags & PRIORITY == 0 { 0 } else { PRIORITY_LENGTH };
        let Some(left) = left.checked_sub(skip).and_then(|left| left.checked_sub(pad)) else {
            self.step = Step::Passing;
            return;
        };
        let end = flags & END_HEADERS != 0;
        self.step = if skip > 0 {
            Step::Priority { skip, left, pad, end }
        } else {
            Step::Fragment { left, pad, end }
        };
        self.finish_empty();
    }

    fn fragment(&mut self, window: &mut [u8], left: u32, pad: u32, end: bool, at: usize) -> usize {
        let count = (window.len() - at).min(left as usize);
        if self.block.walk(window, at, at + count).is_err() {
            self.step = Step::Passing;
            return window.len();
        }
        self.step = Step::Fragment { left: left - count as u32, pad, end };
        self.finish_empty();
        at + count
    }

    /// Goes on behind a fragment that has been read to its end.
    fn finish_empty(&mut self) {
        let Step::Fragment { left: 0, pad, end } = self.step else { return };
        if end {
            if !self.block.is_complete() {
                self.step = Step::Passing;
                return;
            }
            self.in_block = false;
        }
        self.step = if pad > 0 { Step::Skip { left: pad } } else { NO_HEADER };
    }

    fn skip(&mut self, left: u32, at: usize, end: usize) -> usize {
        let count = (end - at).min(left as usize);
        let left = left - count as u32;
        self.step = if left > 0 { Step::Skip { left } } else { NO_HEADER };
        at + count
    }
}
