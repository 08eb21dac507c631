//! The tree both syntaxes parse to: HCL 1's, which JSON is folded into.

use std::fmt;
use std::sync::Arc;

/// Where something stands in its file: line and column count from 1, columns in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Pos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A parsed file, or the inside of one block cut out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    file: Arc<str>,
    items: Vec<Item>,
}

impl Body {
    pub(crate) fn new(file: Arc<str>, items: Vec<Item>) -> Self {
        Self { file, items }
    }

    /// The name given to `parse`, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    pub(crate) fn file_arc(&self) -> &Arc<str> {
        &self.file
    }

    pub fn items(&self) -> &[Item] {
        &self.items
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// One attribute or block: `key = value`, `key "label" { … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Never empty. An attribute has one; a block has one and its labels.
    pub keys: Vec<Key>,
    /// Written with `=` (or, in JSON, `:`).
    pub assigned: bool,
    pub value: Value,
}

/// A key or a block label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Unquoted.
    pub text: String,
    pub kind: KeyKind,
    pub pos: Pos,
}

/// How a key was written; SPIRE's search for unknown keys depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// `key`
    Bare,
    /// `"key"` in HCL
    Quoted,
    /// `"key"` in JSON
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Literal(Literal),
    List(List),
    Object(Object),
}

impl Value {
    pub fn pos(&self) -> Pos {
        match self {
            Self::Literal(v) => v.pos,
            Self::List(v) => v.pos,
            Self::Object(v) => v.pos,
        }
    }

    /// What it is, in words for an error message. Never the value itself: it may be a secret.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Literal(v) => v.kind.describe(),
            Self::List(_) => "a list",
            Self::Object(_) => "a block",
        }
    }
}

/// A string, number, boolean or null. Its `Debug` form leaves the text out: it may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Literal {
    pub kind: LiteralKind,
    /// Strings and heredocs: the value. The others: as written.
    pub text: String,
    pub pos: Pos,
}

impl fmt::Debug for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({} bytes)@{}", self.kind, self.text.len(), self.pos)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiteralKind {
    Number,
    Float,
    Bool,
    String,
    Heredoc,
    /// JSON only.
    Null,
}

impl LiteralKind {
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Float => "a number with a fraction",
            Self::Bool => "a boolean",
            Self::String => "a string",
            Self::Heredoc => "a heredoc",
            Self::Null => "null",
        }
    }
}

/// `[ … ]`; `pos` is the bracket's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    pub items: Vec<Value>,
    pub pos: Pos,
}

/// `{ … }`; `pos` is the brace's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    pub items: Vec<Item>,
    pub pos: Pos,
}
