//! Is this JSON? If not, Go's words for why: people paste them into search engines.

/// Checks a whole document.
pub(super) fn check(data: &[u8]) -> Result<(), String> {
    let mut scanner = Scanner { data, at: 0, depth: 0 };
    scanner.space();
    scanner.value("looking for beginning of value")?;
    scanner.space();
    match scanner.peek() {
        None => Ok(()),
        Some(_) => scanner.refuse("after top-level value"),
    }
}

/// As encoding/json.
const MAX_DEPTH: usize = 10_000;

struct Scanner<'a> {
    data: &'a [u8],
    at: usize,
    depth: usize,
}

impl Scanner<'_> {
    fn value(&mut self, context: &str) -> Result<(), String> {
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.refuse(context),
        }
    }

    fn nested(&mut self, read: fn(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        self.at += 1;
        self.space();
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self) -> Result<(), String> {
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            if self.peek() != Some(b'"') {
                return self.refuse("looking for beginning of object key string");
            }
            self.string()?;
            self.space();
            if !self.take(b':') {
                return self.refuse("after object key");
            }
            self.space();
            self.value("looking for beginning of value")?;
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.refuse("after object key:value pair");
            }
            self.space();
        }
    }

    fn array(&mut self) -> Result<(), String> {
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.value("looking for beginning of value")?;
            self.space();
            if self.take(b']') {
                return Ok(());
            }
            if !self.take(b',') {
                return self.refuse("after array element");
            }
            self.space();
        }
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
                        Some(b'u') => self.hex()?,
                        _ => return self.refuse("in string escape code"),
                    }
                }
                Some(0x20..) => self.at += 1,
                _ => return self.refuse("in string literal"),
            }
        }
    }

    fn hex(&mut self) -> Result<(), String> {
        for _ in 0..4 {
            self.at += 1;
            if !self.peek().is_some_and(|c| c.is_ascii_hexdigit()) {
                return self.refuse("in \\u hexadecimal character escape");
            }
        }
        self.at += 1;
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return self.refuse(&format!("in literal {word} (expecting {})", quote(expected)));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        self.take(b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.refuse("in numeric literal"),
        }
        if self.take(b'.') {
            if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
                return self.refuse("after decimal point in numeric literal");
            }
            self.digits();
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            if !self.peek().is_some_and(|c| c.is_ascii_digit()) {
                return self.refuse("in exponent of numeric literal");
            }
            self.digits();
        }
        Ok(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let there = self.peek() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    fn refuse(&self, context: &str) -> Result<(), String> {
        match self.peek() {
            None => Err("unexpected end of JSON input".to_owned()),
            Some(byte) => Err(format!("invalid character {} {context}", quote(byte))),
        }
    }
}

/// A byte as Go quotes a rune.
fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        byte => {
            let quoted = steeple_config::go_quote(&char::from(byte).to_string());
            format!("'{}'", &quoted[1..quoted.len() - 1])
        }
    }
}
