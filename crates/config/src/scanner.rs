//! HCL 1's tokens.

use std::sync::Arc;

use crate::Pos;
use crate::error::{ConfigError, Problem};
use crate::quote;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub kind: TokenKind,
    pub pos: Pos,
    /// Strings and heredocs: the value. Others: as written.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Eof,
    Ident,
    Bool,
    Number,
    Float,
    String,
    Heredoc,
    OpenBracket,
    CloseBracket,
    OpenBrace,
    CloseBrace,
    Comma,
    Assign,
}

impl TokenKind {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Eof => "the end of the file",
            Self::Ident => "a name",
            Self::Bool => "a boolean",
            Self::Number | Self::Float => "a number",
            Self::String => "a string",
            Self::Heredoc => "a heredoc",
            Self::OpenBracket => "'['",
            Self::CloseBracket => "']'",
            Self::OpenBrace => "'{'",
            Self::CloseBrace => "'}'",
            Self::Comma => "','",
            Self::Assign => "'='",
        }
    }
}

/// Reads tokens one by one. Comments and white space go unseen.
pub(crate) struct Scanner<'a> {
    file: &'a Arc<str>,
    text: &'a str,
    /// Byte offset of the next character, and its place.
    at: usize,
    pos: Pos,
}

impl<'a> Scanner<'a> {
    /// `text` has its line ends normalized to `\n`.
    pub fn new(file: &'a Arc<str>, text: &'a str) -> Self {
        Self { file, text, at: 0, pos: Pos { line: 1, column: 1 } }
    }

    pub fn token(&mut self) -> Result<Token, ConfigError> {
        self.skip_blank()?;
        let (start, pos) = (self.at, self.pos);
        let Some(c) = self.next() else {
            return Ok(Token { kind: TokenKind::Eof, pos, text: String::new() });
        };
        let kind = match c {
            c if is_letter(c) => {
                self.skip_while(|c| is_letter(c) || is_digit(c) || c == '-' || c == '.');
                match &self.text[start..self.at] {
                    "true" | "false" => TokenKind::Bool,
                    _ => TokenKind::Ident,
                }
            }
            '0'..='9' => self.number(c, start, pos)?,
            '-' if self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                let first = self.next().unwrap_or('0');
                self.number(first, start, pos)?
            }
            '.' if self.peek().is_some_and(|c| c.is_ascii_digit()) => {
                self.skip_while(|c| c.is_ascii_digit());
                // HCL 1 trips over an exponent here: `.5e3` has no value it could read.
                if matches!(self.peek(), Some('e' | 'E')) {
                    return Err(self.error_at(pos, "a number that starts with '.' cannot have an exponent"));
                }
                TokenKind::Float
            }
            '"' => return self.string(pos),
            '<' => return self.heredoc(start, pos),
            '[' => TokenKind::OpenBracket,
            ']' => TokenKind::CloseBracket,
            '{' => TokenKind::OpenBrace,
            '}' => TokenKind::CloseBrace,
            ',' => TokenKind::Comma,
            '=' => TokenKind::Assign,
            c => return Err(self.error_at(pos, format!("unexpected character {c:?}"))),
        };
        Ok(Token { kind, pos, text: self.text[start..self.at].to_owned() })
    }

    pub fn error_at(&self, pos: Pos, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.file, pos, Problem::Syntax(message.into()))
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        if c == '\n' {
            self.pos.line += 1;
            self.pos.column = 1;
        } else {
            self.pos.column += 1;
        }
        Some(c)
    }

    fn skip_while(&mut self, mut wanted: impl FnMut(char) -> bool) -> usize {
        let start = self.at;
        while self.peek().is_some_and(&mut wanted) {
            self.next();
        }
        self.at - start
    }

    fn skip_blank(&mut self) -> Result<(), ConfigError> {
        loop {
            self.skip_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
            let pos = self.pos;
            let rest = &self.text[self.at..];
            if rest.starts_with('#') || rest.starts_with("//") {
                self.skip_while(|c| c != '\n');
            } else if let Some(inside) = rest.strip_prefix("/*") {
                let Some(length) = inside.find("*/") else {
                    return Err(self.error_at(pos, "comment is not terminated"));
                };
                let end = self.at + 2 + length + 2;
                while self.at < end {
                    self.next();
                }
            } else {
                return Ok(());
            }
        }
    }

    /// Behind the first digit. A float is kept as written if HCL 1 could compute it, else refused here already.
    fn number(&mut self, first: char, start: usize, pos: Pos) -> Result<TokenKind, ConfigError> {
        let mut illegal_octal = false;
        if first == '0' {
            if matches!(self.peek(), Some('x' | 'X')) {
                self.next();
                if self.skip_while(|c| c.is_ascii_hexdigit()) == 0 {
                    return Err(self.error_at(pos, "hexadecimal number has no digits"));
                }
                return Ok(TokenKind::Number);
            }
            let digits = self.at;
            self.skip_while(|c| c.is_ascii_digit());
            // HCL 1 does not look at the digit right behind the zero: `08` stays, as text.
            illegal_octal = self.text[digits..self.at].chars().skip(1).any(|c| matches!(c, '8' | '9'));
        } else {
            self.skip_while(|c| c.is_ascii_digit());
        }
        let mut float = false;
        if self.peek() == Some('.') {
            self.next();
            self.skip_while(|c| c.is_ascii_digit());
            float = true;
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.next();
            if matches!(self.peek(), Some('-' | '+')) {
                self.next();
            }
            if self.skip_while(|c| c.is_ascii_digit()) == 0 {
                return Err(self.error_at(pos, "exponent has no digits"));
            }
            float = true;
        }
        if float {
            let value: Result<f64, _> = self.text[start..self.at].parse();
            if !value.is_ok_and(f64::is_finite) {
                return Err(self.error_at(pos, "number is out of range"));
            }
            return Ok(TokenKind::Float);
        }
        if illegal_octal {
            return Err(
                self.error_at(pos, "a number that starts with 0 is octal and cannot have the digits 8 and 9")
            );
        }
        Ok(TokenKind::Number)
    }

    /// Behind the opening quote.
    fn string(&mut self, pos: Pos) -> Result<Token, ConfigError> {
        let inner = self.at;
        // Depth inside `${ … }`, where quotes and line ends do not end the string.
        let mut depth = 0usize;
        loop {
            let escape_pos = self.pos;
            let end = self.at;
            match self.next() {
                None => return Err(self.error_at(pos, "string is not terminated")),
                Some('\n') if depth == 0 => {
                    return Err(self.error_at(pos, "string is not terminated on its line"));
                }
                Some('"') if depth == 0 => {
                    let text =
                        quote::unquote_hcl(&self.text[inner..end]).map_err(|e| self.error_at(pos, e))?;
                    return Ok(Token { kind: TokenKind::String, pos, text });
                }
                Some('$') if depth == 0 && self.peek() == Some('{') => {
                    self.next();
                    depth = 1;
                }
                Some('{') if depth > 0 => depth += 1,
                Some('}') if depth > 0 => depth -= 1,
                Some('\\') => self.escape(escape_pos)?,
                Some(_) => {}
            }
        }
    }

    /// Behind a backslash: checks the escape's form.
    fn escape(&mut self, pos: Pos) -> Result<(), ConfigError> {
        let (count, base) = match self.next() {
            Some('a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' | '"') => return Ok(()),
            Some('0'..='7') => (2, 8),
            Some('x') => (2, 16),
            Some('u') => (4, 16),
            Some('U') => (8, 16),
            _ => return Err(self.error_at(pos, "unknown escape in a string")),
        };
        for _ in 0..count {
            if !self.next().is_some_and(|c| c.is_digit(base)) {
                return Err(self.error_at(pos, "escape in a string has too few digits"));
            }
        }
        Ok(())
    }

    /// Behind the first `<`.
    fn heredoc(&mut self, start: usize, pos: Pos) -> Result<Token, ConfigError> {
        if self.next() != Some('<') {
            return Err(self.error_at(pos, "a heredoc starts with '<<'"));
        }
        // HCL 1 counts the dash of `<<-` to the marker when it compares lengths.
        let marked = self.at;
        if self.peek() == Some('-') {
            self.next();
        }
        let named = self.at;
        self.skip_while(|c| is_letter(c) || is_digit(c));
        if self.text[self.at..].starts_with("\r\n") {
            self.next();
        }
        let (length, marker) = (self.at - marked, &self.text[named..self.at]);
        if self.next() != Some('\n') {
            return Err(self.error_at(pos, "a heredoc's marker is one name, alone on its line"));
        }
        if marker.is_empty() {
            return Err(self.error_at(pos, "heredoc has no marker"));
        }
        loop {
            let line = self.at;
            self.skip_while(|c| c != '\n');
            let content = &self.text[line..self.at];
            if self.next().is_none() {
                return Err(
                    self.error_at(pos, format!("heredoc is not terminated: no line with {marker} alone"))
                );
            }
            if content.len() >= length && closes_heredoc(content, marker) {
                let text =
                    quote::unindent_heredoc(&self.text[start..self.at]).map_err(|e| self.error_at(pos, e))?;
                return Ok(Token { kind: TokenKind::Heredoc, pos, text });
            }
        }
    }
}

/// White space, the marker, carriage returns.
fn closes_heredoc(line: &str, marker: &str) -> bool {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\u{0b}' | '\u{0c}');
    line.trim_start_matches(blank).trim_end_matches('\r') == marker.trim_end_matches('\r')
        && (line.ends_with('\r') || !marker.ends_with('\r'))
}

fn is_letter(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic() || (!c.is_ascii() && c.is_alphabetic() && !c.is_numeric())
}

fn is_digit(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && c.is_numeric())
}
