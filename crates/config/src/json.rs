//! JSON as a configuration: what Helm charts write. Parsed to the same tree as HCL 1.
//!
//! HCL 1's own JSON reader stops in silence at the first thing it does not understand and drops booleans in lists.
//! This one reads JSON proper, plus trailing commas, and refuses the rest by line and column.

use std::sync::Arc;

use crate::ast::{Body, Item, Key, KeyKind, List, Literal, LiteralKind, Object, Pos, Value};
use crate::error::{ConfigError, Problem};
use crate::parser::MAX_DEPTH;
use crate::quote;

mod flatten;

pub(crate) fn parse_json(file: &Arc<str>, text: &str) -> Result<Body, ConfigError> {
    let mut parser = Parser { file, text, at: 0, pos: Pos { line: 1, column: 1 }, depth: 0 };
    parser.skip_blank();
    let root = parser.object()?;
    parser.skip_blank();
    if parser.peek().is_some() {
        return Err(parser.unexpected("the end of the file"));
    }
    Ok(Body::new(Arc::clone(file), flatten::flatten(root.items)))
}

struct Parser<'a> {
    file: &'a Arc<str>,
    text: &'a str,
    at: usize,
    pos: Pos,
    depth: usize,
}

impl Parser<'_> {
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

    fn skip_while(&mut self, wanted: impl Fn(char) -> bool) -> usize {
        let start = self.at;
        while self.peek().is_some_and(&wanted) {
            self.next();
        }
        self.at - start
    }

    fn skip_blank(&mut self) {
        self.skip_while(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
    }

    /// Takes `c` if it comes next, and the white space behind it.
    fn take(&mut self, c: char) -> bool {
        if self.peek() != Some(c) {
            return false;
        }
        self.next();
        self.skip_blank();
        true
    }

    fn error(&self, pos: Pos, message: impl Into<String>) -> ConfigError {
        ConfigError::new(self.file, pos, Problem::Syntax(message.into()))
    }

    fn unexpected(&self, wanted: &str) -> ConfigError {
        let found = self.peek().map_or("the end of the file".to_owned(), |c| format!("{c:?}"));
        self.error(self.pos, format!("expected {wanted}, found {found}"))
    }

    fn enter(&mut self) -> Result<(), ConfigError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(self.pos, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    fn object(&mut self) -> Result<Object, ConfigError> {
        self.enter()?;
        let pos = self.pos;
        if !self.take('{') {
            return Err(self.unexpected("'{'"));
        }
        let mut items = Vec::new();
        while !self.take('}') {
            let key_pos = self.pos;
            if self.peek() != Some('"') {
                return Err(self.unexpected("a key in double quotes or '}'"));
            }
            let key = Key { text: self.string()?, kind: KeyKind::Json, pos: key_pos };
            if !self.take(':') {
                return Err(self.unexpected("':'"));
            }
            items.push(Item { keys: vec![key], assigned: true, value: self.value()? });
            if !self.take(',') && self.peek() != Some('}') {
                return Err(self.unexpected("',' or '}'"));
            }
        }
        self.depth -= 1;
        Ok(Object { items, pos })
    }

    fn list(&mut self) -> Result<List, ConfigError> {
        self.enter()?;
        let pos = self.pos;
        self.take('[');
        let mut items = Vec::new();
        while !self.take(']') {
            let value = self.value()?;
            if let Value::Literal(Literal { kind: LiteralKind::Null, pos, .. }) = value {
                return Err(self.error(pos, "null in a list"));
            }
            items.push(value);
            if !self.take(',') && self.peek() != Some(']') {
                return Err(self.unexpected("',' or ']'"));
            }
        }
        self.depth -= 1;
        Ok(List { items, pos })
    }

    /// A value and the white space behind it.
    fn value(&mut self) -> Result<Value, ConfigError> {
        let (start, pos) = (self.at, self.pos);
        let (kind, text) = match self.peek() {
            Some('{') => return Ok(Value::Object(self.object()?)),
            Some('[') => return Ok(Value::List(self.list()?)),
            Some('"') => (LiteralKind::String, self.string()?),
            Some('-' | '0'..='9') => {
                let kind = self.number(pos)?;
                (kind, self.text[start..self.at].to_owned())
            }
            _ => {
                self.skip_while(|c| c.is_ascii_alphanumeric() || c == '_');
                let word = &self.text[start..self.at];
                match word {
                    "true" | "false" => (LiteralKind::Bool, word.to_owned()),
                    "null" => (LiteralKind::Null, String::new()),
                    "" => return Err(self.unexpected("a value")),
                    _ => return Err(self.error(pos, format!("expected a value, found {word:?}"))),
                }
            }
        };
        self.skip_blank();
        Ok(Value::Literal(Literal { kind, text, pos }))
    }

    fn number(&mut self, pos: Pos) -> Result<LiteralKind, ConfigError> {
        let start = self.at;
        if self.peek() == Some('-') {
            self.next();
        }
        let zero = self.peek() == Some('0');
        let digits = self.skip_while(|c| c.is_ascii_digit());
        let mut kind = LiteralKind::Number;
        let mut complete = digits > 0;
        if self.peek() == Some('.') {
            self.next();
            complete &= self.skip_while(|c| c.is_ascii_digit()) > 0;
            kind = LiteralKind::Float;
        }
        if matches!(self.peek(), Some('e' | 'E')) {
            self.next();
            if matches!(self.peek(), Some('-' | '+')) {
                self.next();
            }
            complete &= self.skip_while(|c| c.is_ascii_digit()) > 0;
            kind = LiteralKind::Float;
        }
        if !complete {
            return Err(self.error(pos, "number lacks digits"));
        }
        if zero && digits > 1 && kind == LiteralKind::Number {
            return Err(self.error(pos, "numbers cannot start with 0"));
        }
        let value: Result<f64, _> = self.text[start..self.at].parse();
        if kind == LiteralKind::Float && !value.is_ok_and(f64::is_finite) {
            return Err(self.error(pos, "number is out of range"));
        }
        Ok(kind)
    }

    /// A string and the white space behind it.
    fn string(&mut self) -> Result<String, ConfigError> {
        let pos = self.pos;
        self.next();
        let inner = self.at;
        loop {
            let end = self.at;
            match self.next() {
                None | Some('\n') => return Err(self.error(pos, "string is not terminated on its line")),
                Some('\\') => {
                    self.next();
                }
                Some('"') => {
                    let text = quote::unquote_json(&self.text[inner..end]).map_err(|e| self.error(pos, e))?;
                    self.skip_blank();
                    return Ok(text);
                }
                Some(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
