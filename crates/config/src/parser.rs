//! HCL 1's grammar.

use std::sync::Arc;

use crate::ast::{Body, Item, Key, KeyKind, List, Literal, LiteralKind, Object, Value};
use crate::error::{ConfigError, Problem};
use crate::scanner::{Scanner, Token, TokenKind};

/// Nothing people write comes near; it bounds the stack.
pub(crate) const MAX_DEPTH: usize = 128;

pub(crate) fn parse_hcl(file: &Arc<str>, text: &str) -> Result<Body, ConfigError> {
    let normalized;
    let text = if text.contains("\r\n") {
        normalized = text.replace("\r\n", "\n");
        &normalized
    } else {
        text
    };
    let mut scanner = Scanner::new(file, text);
    let token = scanner.token()?;
    let mut parser = Parser { file, scanner, token, depth: 0 };
    let items = parser.items(false)?;
    Ok(Body::new(Arc::clone(file), items))
}

struct Parser<'a> {
    file: &'a Arc<str>,
    scanner: Scanner<'a>,
    /// Looked at, not yet taken.
    token: Token,
    depth: usize,
}

impl Parser<'_> {
    fn advance(&mut self) -> Result<Token, ConfigError> {
        let next = self.scanner.token()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn unexpected(&self, wanted: &str) -> ConfigError {
        self.scanner
            .error_at(self.token.pos, format!("expected {wanted}, found {}", self.token.kind.describe()))
    }

    fn enter(&mut self) -> Result<(), ConfigError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self
                .scanner
                .error_at(self.token.pos, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        Ok(())
    }

    /// The items of a file or, up to but without the brace, of a block. One comma may follow each.
    fn items(&mut self, in_block: bool) -> Result<Vec<Item>, ConfigError> {
        let mut items = Vec::new();
        loop {
            match self.token.kind {
                TokenKind::Eof => break,
                TokenKind::CloseBrace if in_block => break,
                _ => items.push(self.item()?),
            }
            if self.token.kind == TokenKind::Comma {
                self.advance()?;
            }
        }
        Ok(items)
    }

    fn item(&mut self) -> Result<Item, ConfigError> {
        let keys = self.keys()?;
        if self.token.kind == TokenKind::OpenBrace {
            let value = Value::Object(self.object()?);
            return Ok(Item { keys, assigned: false, value });
        }
        let assign = self.advance()?;
        if self.token.kind == TokenKind::Eof {
            let key = keys.first().map(|k| k.text.clone()).unwrap_or_default();
            return Err(ConfigError::new(self.file, assign.pos, Problem::Truncated(key)));
        }
        Ok(Item { keys, assigned: true, value: self.value()? })
    }

    /// Keys and labels up to, without, `=` or `{`.
    fn keys(&mut self) -> Result<Vec<Key>, ConfigError> {
        let mut keys: Vec<Key> = Vec::new();
        loop {
            let kind = match self.token.kind {
                TokenKind::Ident => KeyKind::Bare,
                TokenKind::String => KeyKind::Quoted,
                TokenKind::Assign if keys.len() == 1 => return Ok(keys),
                TokenKind::OpenBrace if !keys.is_empty() => return Ok(keys),
                TokenKind::Assign if keys.len() > 1 => {
                    return Err(self.unexpected("'{' after a block's labels"));
                }
                _ if keys.is_empty() => return Err(self.unexpected("a key")),
                _ => return Err(self.unexpected("'=' or '{' after the key")),
            };
            let token = self.advance()?;
            keys.push(Key { text: token.text, kind, pos: token.pos });
        }
    }

    fn value(&mut self) -> Result<Value, ConfigError> {
        match self.token.kind {
            TokenKind::OpenBrace => Ok(Value::Object(self.object()?)),
            TokenKind::OpenBracket => Ok(Value::List(self.list()?)),
            kind => match literal_kind(kind) {
                Some(kind) => {
                    let token = self.advance()?;
                    Ok(Value::Literal(Literal { kind, text: token.text, pos: token.pos }))
                }
                None => Err(self.unexpected("a value")),
            },
        }
    }

    fn object(&mut self) -> Result<Object, ConfigError> {
        self.enter()?;
        let open = self.advance()?;
        let items = self.items(true)?;
        if self.token.kind != TokenKind::CloseBrace {
            return Err(self.unexpected(&format!("'}}' for the block opened at {}", open.pos)));
        }
        self.advance()?;
        self.depth -= 1;
        Ok(Object { items, pos: open.pos })
    }

    fn list(&mut self) -> Result<List, ConfigError> {
        self.enter()?;
        let open = self.advance()?;
        let mut items = Vec::new();
        let mut needs_comma = false;
        loop {
            match self.token.kind {
                TokenKind::CloseBracket => break,
                TokenKind::Comma => {
                    self.advance()?;
                    needs_comma = false;
                }
                _ if needs_comma => return Err(self.unexpected("',' or ']' in a list")),
                _ => {
                    let value = self.value()?;
                    // HCL 1 asks for no comma behind a list inside a list.
                    needs_comma = !matches!(value, Value::List(_));
                    items.push(value);
                }
            }
        }
        self.advance()?;
        self.depth -= 1;
        Ok(List { items, pos: open.pos })
    }
}

fn literal_kind(kind: TokenKind) -> Option<LiteralKind> {
    match kind {
        TokenKind::Bool => Some(LiteralKind::Bool),
        TokenKind::Number => Some(LiteralKind::Number),
        TokenKind::Float => Some(LiteralKind::Float),
        TokenKind::String => Some(LiteralKind::String),
        TokenKind::Heredoc => Some(LiteralKind::Heredoc),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
