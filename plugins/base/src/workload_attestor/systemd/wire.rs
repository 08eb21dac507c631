//! The little of D-Bus's wire format that method calls with numbers and strings take (D-Bus specification, "Message
//! Protocol"). What arrives is bounded and checked: anybody on the machine may own a name on some bus.

/// The fixed part of a header, with the length of the fields.
pub const HEAD: usize = 16;
/// systemd's answers have some hundred bytes.
pub const MAX_MESSAGE: usize = 64 * 1024;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;

/// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A method call.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub destination: &'a str,
    pub arguments: &'a [Argument<'a>],
}

#[derive(Clone, Copy, Debug)]
pub enum Argument<'a> {
    U32(u32),
    Text(&'a str),
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Of which call it is the answer; 0 for signals and calls.
    pub reply_to: u32,
    /// The error's name, if it is one.
    pub error: Option<String>,
    signature: String,
    body: Vec<u8>,
    little: bool,
}

/// Why bytes are no message, or not the one expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("it speaks no D-Bus version 1")]
    Version,
    #[error("a message of more than {MAX_MESSAGE} bytes")]
    TooLong,
    #[error("a message that ends early")]
    Short,
    #[error("a message with a malformed {0}")]
    Malformed(&'static str),
    #[error("an answer of another type than asked for")]
    Type,
}

impl Call<'_> {
    /// In this machine's own order of bytes or not: a message says which it has.
    pub fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        let mut signature = String::new();
        for argument in self.arguments {
            match argument {
                Argument::U32(number) => {
                    signature.push('u');
                    pad(&mut body, 4);
                    body.extend(number.to_le_bytes());
                }
                Argument::Text(text) => {
                    signature.push('s');
                    put_text(&mut body, text);
                }
            }
        }
        let mut message = vec![b'l', METHOD_CALL, 0, 1];
        message.extend((body.len() as u32).to_le_bytes());
        message.extend(serial.to_le_bytes());
        message.extend([0; 4]);
        for (code, kind, text) in [
            (PATH, b'o', self.path),
            (DESTINATION, b's', self.destination),
            (INTERFACE, b's', self.interface),
            (MEMBER, b's', self.member),
        ] {
            pad(&mut message, 8);
            message.extend([code, 1, kind, 0]);
            put_text(&mut message, text);
        }
        if !signature.is_empty() {
            pad(&mut message, 8);
            message.extend([SIGNATURE, 1, b'g', 0, signature.len() as u8]);
            message.extend(signature.as_bytes());
            message.push(0);
        }
        let fields = (message.len() - HEAD) as u32;
        message[12..HEAD].copy_from_slice(&fields.to_le_bytes());
        pad(&mut message, 8);
        message.extend(body);
        message
    }
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

/// How many bytes follow the fixed part.
pub fn rest(head: &[u8; HEAD]) -> Result<usize, WireError> {
    let mut reader = Reader { bytes: head, at: 4, little: order(head)? };
    let body = reader.number()? as usize;
    reader.number()?;
    let fields = reader.number()? as usize;
    if body > MAX_MESSAGE || fields > MAX_MESSAGE {
        return Err(WireError::TooLong);
    }
    let rest = fields.next_multiple_of(8) + body;
    if rest > MAX_MESSAGE { Err(WireError::TooLong) } else { Ok(rest) }
}

fn order(head: &[u8; HEAD]) -> Result<bool, WireError> {
    match (head[0], head[3]) {
        (b'l', 1) => Ok(true),
        (b'B', 1) => Ok(false),
        _ => Err(WireError::Version),
    }
}

/// One whole message.
pub fn parse(bytes: &[u8]) -> Result<Message, WireError> {
    let head: &[u8; HEAD] = bytes.first_chunk().ok_or(WireError::Short)?;
    let little = order(head)?;
    if bytes.len() != HEAD + rest(head)? {
        return Err(WireError::Short);
    }
    let mut reader = Reader { bytes, at: 4, little };
    let body_length = reader.number()? as usize;
    let body_start = bytes.len() - body_length;
    reader.at = 12;
    let fields_end = HEAD + reader.number()? as usize;
    let mut message = Message {
        reply_to: 0,
        error: None,
        signature: String::new(),
        body: bytes[body_start..].to_vec(),
        little,
    };
    let mut error = None;
    while reader.at < fields_end {
        reader.align(8)?;
        let code = reader.byte()?;
        let signature = reader.signature()?;
        match (code, signature.as_str()) {
            (REPLY_SERIAL, "u") => message.reply_to = reader.number()?,
            (ERROR_NAME, "s") => error = Some(reader.text()?),
            (SIGNATURE, "g") => message.signature = reader.signature()?,
            (REPLY_SERIAL | ERROR_NAME | SIGNATURE, _) => return Err(WireError::Malformed("header field")),
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u" | "i" | "h") => drop(reader.number()?),
            _ => return Err(WireError::Malformed("header field")),
        }
    }
    if reader.at != fields_end {
        return Err(WireError::Malformed("header"));
    }
    match head[1] {
        METHOD_RETURN => {}
        ERROR => message.error = Some(error.ok_or(WireError::Malformed("error"))?),
        // Signals, calls and what may be invented later answer nothing.
        _ => message.reply_to = 0,
    }
    Ok(message)
}

impl Message {
    /// The one object path that it holds.
    pub fn object_path(&self) -> Result<String, WireError> {
        let path = self.only("o")?.text()?;
        let element =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let valid = path == "/" || path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(element));
        if valid { Ok(path) } else { Err(WireError::Malformed("object path")) }
    }

    /// The one variant that it holds, which is a string.
    pub fn text_variant(&self) -> Result<String, WireError> {
        let mut reader = self.only("v")?;
        if reader.signature()? != "s" {
            return Err(WireError::Type);
        }
        reader.text()
    }

    /// The error's text, where it has one.
    pub fn text(&self) -> Option<String> {
        self.signature.starts_with('s').then(|| self.reader().text().ok()).flatten()
    }

    fn only(&self, signature: &str) -> Result<Reader<'_>, WireError> {
        if self.signature == signature { Ok(self.reader()) } else { Err(WireError::Type) }
    }

    fn reader(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0, little: self.little }
    }
}

/// Values are aligned by their size, counted from the start of a message; so are bodies.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) -> Result<(), WireError> {
        let padding = self.at.next_multiple_of(to) - self.at;
        let padding = self.take(padding)?;
        if padding.iter().all(|b| *b == 0) { Ok(()) } else { Err(WireError::Malformed("padding")) }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let end = self.at.checked_add(length).ok_or(WireError::Short)?;
        let taken = self.bytes.get(self.at..end).ok_or(WireError::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, WireError> {
        Ok(self.take(1)?[0])
    }

    fn number(&mut self) -> Result<u32, WireError> {
        self.align(4)?;
        let bytes = *self.take(4)?.first_chunk().ok_or(WireError::Short)?;
        Ok(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn text(&mut self) -> Result<String, WireError> {
        let length = self.number()? as usize;
        self.terminated(length)
    }

    fn signature(&mut self) -> Result<String, WireError> {
        let length = usize::from(self.byte()?);
        self.terminated(length)
    }

    /// No NUL but the one behind it.
    fn terminated(&mut self, length: usize) -> Result<String, WireError> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| WireError::Malformed("string"))?;
        if self.byte()? != 0 || text.contains('\0') {
            return Err(WireError::Malformed("string"));
        }
        Ok(text.to_owned())
    }
}
