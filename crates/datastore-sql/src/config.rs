//! SPIRE's `connection_string` for `sqlite3`: a path, or a `file:` URI as SQLite reads it, whose parameters that
//! start with `_` are those of the Go driver SPIRE uses.

mod network;

use std::time::Duration;

use crate::error::OpenError;

pub(crate) use network::Server;
pub use network::{NetworkConfig, ServerKind};

/// How to open a SQLite database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    /// `path`, `file:path?parameters` or `:memory:`.
    pub connection_string: String,
    /// How many connections read at the same time.
    pub readers: usize,
    /// How often others' writes are looked for.
    pub poll: Duration,
    /// A database of an older schema is refused, not migrated.
    pub disable_migration: bool,
}

impl SqliteConfig {
    pub fn new(connection_string: impl Into<String>) -> Self {
        Self {
            connection_string: connection_string.into(),
            readers: 4,
            poll: Duration::from_millis(200),
            disable_migration: false,
        }
    }
}

/// How to open a database of any engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseConfig {
    Sqlite(SqliteConfig),
    Network(NetworkConfig),
}

/// A connection string, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// What SQLite is given: a path, or a URI without the driver's parameters.
    pub name: String,
    pub is_uri: bool,
    /// Gone with its one connection.
    pub in_memory: bool,
    pub busy_timeout: Duration,
    pub synchronous: Synchronous,
}

/// SQLite's levels; FULL unless the operator chose another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synchronous {
    Off,
    Normal,
    Full,
    Extra,
}

impl Synchronous {
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Normal => "NORMAL",
            Self::Full => "FULL",
            Self::Extra => "EXTRA",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_uppercase().as_str() {
            "0" | "OFF" => Some(Self::Off),
            "1" | "NORMAL" => Some(Self::Normal),
            "2" | "FULL" => Some(Self::Full),
            "3" | "EXTRA" => Some(Self::Extra),
            _ => None,
        }
    }
}

impl Target {
    pub fn parse(connection_string: &str) -> Result<Self, OpenError> {
        if connection_string.is_empty() {
            return Err(OpenError::NoConnectionString);
        }
        let mut target = Self {
            name: connection_string.into(),
            is_uri: false,
            in_memory: connection_string == ":memory:",
            busy_timeout: Duration::from_secs(5),
            synchronous: Synchronous::Full,
        };
        if target.in_memory {
            return Ok(target);
        }
        let path = match scheme(connection_string) {
            Some("file") => {
                target.is_uri = true;
                &connection_string["file:".len()..]
            }
            Some(other) => return Err(OpenError::Scheme(other.into())),
            None => connection_string,
        };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut left = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if !target.take_parameter(pair)? {
                left.push(pair);
            }
        }
        target.in_memory = path == ":memory:" || left.contains(&"mode=memory");
        if target.is_uri || !left.is_empty() {
            target.is_uri = true;
            let query = left.join("&");
            target.name = format!("file:{path}{}{query}", if query.is_empty() { "" } else { "?" });
        } else {
            target.name = path.into();
        }
        Ok(target)
    }

    /// Takes a parameter of SPIRE's Go driver; false leaves it to SQLite.
    fn take_parameter(&mut self, pair: &str) -> Result<bool, OpenError> {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !key.starts_with('_') {
            return Ok(false);
        }
        match key {
            "_busy_timeout" | "_timeout" => {
                let wrong = || OpenError::ParameterValue {
                    name: "_busy_timeout",
                    value: value.into(),
                    expected: "milliseconds",
                };
                self.busy_timeout = Duration::from_millis(value.parse().map_err(|_| wrong())?);
            }
            "_synchronous" | "_sync" => {
                self.synchronous = Synchronous::parse(value).ok_or_else(|| OpenError::ParameterValue {
                    name: "_synchronous",
                    value: value.into(),
                    expected: "OFF, NORMAL, FULL or EXTRA",
                })?;
            }
            // SPIRE overrides the journal mode and foreign keys with WAL and ON (its schema has no foreign keys); every
            // write transaction of ours is immediate.
            "_journal_mode" | "_journal" | "_foreign_keys" | "_fk" | "_txlock" => {}
            other => return Err(OpenError::Parameter(other.into())),
        }
        Ok(true)
    }
}

/// The URI scheme, if the text has one.
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let starts = scheme.starts_with(|c: char| c.is_ascii_alphabetic());
    let is_scheme = scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    (starts && is_scheme).then_some(scheme)
}

#[cfg(test)]
mod tests;
