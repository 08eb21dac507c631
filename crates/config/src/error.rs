//! Errors of a configuration's text: always with the place.

use std::sync::Arc;

use crate::Pos;

/// A configuration that cannot be read. `Display` is `file:line:column: message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{pos}: {problem}")]
pub struct ConfigError {
    file: Arc<str>,
    pos: Pos,
    problem: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("{0}")]
    Syntax(String),
    /// HCL 1 accepts this and drops the key; here a truncated file is an error.
    #[error("key {0:?} has no value: the file ends after '='")]
    Truncated(String),
    #[error("{key}: expected {expected}, found {found}")]
    Type { key: String, expected: &'static str, found: &'static str },
    #[error("{key}: {problem}")]
    Value { key: String, problem: String },
    #[error("plugin {kind:?}/{name:?} declared more than once")]
    DuplicatePlugin { kind: String, name: String },
}

impl ConfigError {
    pub(crate) fn new(file: &Arc<str>, pos: Pos, problem: Problem) -> Self {
        Self { file: Arc::clone(file), pos, problem }
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn pos(&self) -> Pos {
        self.pos
    }

    /// The text does not parse (as opposed to: it parses, and a value has the wrong type).
    pub fn is_syntax(&self) -> bool {
        matches!(self.problem, Problem::Syntax(_) | Problem::Truncated(_))
    }

    /// The file ends where a value should follow.
    pub fn is_truncated(&self) -> bool {
        matches!(self.problem, Problem::Truncated(_))
    }
}
