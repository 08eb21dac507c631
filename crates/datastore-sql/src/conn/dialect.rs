//! What SQL spells differently from engine to engine.

use super::Arg;
use crate::time::Stamp;

/// Whose SQL a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
    /// MySQL and MariaDB.
    MySql,
}

impl Dialect {
    /// SPIRE's `database_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite3",
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
        }
    }

    /// The time now, as a datetime column holds it. The engine's clock stamps event rows: they are pruned by it.
    pub fn now(self) -> &'static str {
        match self {
            Self::Sqlite => "strftime('%Y-%m-%d %H:%M:%f', 'now') || '+00:00'",
            Self::Postgres => "clock_timestamp()",
            Self::MySql => "UTC_TIMESTAMP()",
        }
    }

    /// A condition on a datetime column that its index serves, where it can, and the condition's argument.
    pub fn earlier(self, column: &str, than: i64) -> (String, Arg<'static>) {
        match self {
            Self::Sqlite => (format!("CAST(strftime('%s', {column}) AS INTEGER) < ?"), Arg::Int(than)),
            Self::Postgres | Self::MySql => (format!("{column} < ?"), Arg::Time(Stamp(than))),
        }
    }

    /// A datetime column less 12 hours.
    pub fn less_twelve_hours(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("strftime('%Y-%m-%d %H:%M:%f', {column}, '-12 hours')"),
            Self::Postgres => format!("{column} - INTERVAL '12 hours'"),
            Self::MySql => format!("{column} - INTERVAL 12 HOUR"),
        }
    }

    /// Unix seconds by the engine's clock.
    pub fn unix_now(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(strftime('%s', 'now') AS INTEGER)",
            Self::Postgres => "EXTRACT(EPOCH FROM clock_timestamp())::bigint",
            Self::MySql => "UNIX_TIMESTAMP()",
        }
    }

    /// The highest id that a table ever gave out, or the highest it holds.
    pub fn last_id_of(self, table: &str) -> String {
        match self {
            Self::Sqlite => {
                format!("COALESCE((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0)")
            }
            Self::Postgres | Self::MySql => format!("COALESCE((SELECT MAX(id) FROM {table}), 0)"),
        }
    }

    /// A column, or a list of columns in parentheses, to be compared byte by byte: MySQL's columns are compared without
    /// regard to case. No index serves that.
    pub fn exact(self, columns: &str) -> String {
        if self != Self::MySql {
            return columns.to_owned();
        }
        match columns.strip_prefix('(').and_then(|columns| columns.strip_suffix(')')) {
            Some(list) => {
                let all: Vec<String> = list.split(", ").map(|column| self.exact(column)).collect();
                format!("({})", all.join(", "))
            }
            None => format!("CAST({columns} AS BINARY)"),
        }
    }

    /// A condition that a text column is the argument, which it takes as often as it says.
    pub fn is(self, column: &str) -> (String, usize) {
        match self {
            Self::Sqlite | Self::Postgres => (format!("{column} = ?"), 1),
            Self::MySql => (format!("{column} = ? AND {} = ?", self.exact(column)), 2),
        }
    }

    /// A list of pairs, for `(a, b) IN (…)`.
    pub fn pairs(self, count: usize) -> String {
        let pairs = vec!["(?, ?)"; count].join(", ");
        match self {
            // PostgreSQL plans a long list of pairs as that many conditions, and these as a join.
            Self::Sqlite | Self::Postgres => format!("VALUES {pairs}"),
            Self::MySql => pairs,
        }
    }

    /// How a row of `bundles` looks: it changes with every write of a SPIRE server. MySQL's times are whole seconds.
    pub fn bundle_mark(self) -> &'static str {
        match self {
            Self::Sqlite => "COALESCE(updated_at, '') || '/' || LENGTH(data)",
            Self::Postgres => {
                "COALESCE(EXTRACT(EPOCH FROM updated_at)::text, '') || '/' || COALESCE(LENGTH(data), 0)::text"
            }
            Self::MySql => {
                "CONCAT(COALESCE(updated_at, ''), '/', COALESCE(LENGTH(data), 0), '/', COALESCE(CRC32(data), 0))"
            }
        }
    }

    /// Ends a SELECT whose row is about to be written. A SPIRE server on the same database locks rows in this way;
    /// SQLite has one writer.
    pub fn for_update(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres | Self::MySql => " FOR UPDATE",
        }
    }

    /// Ends an INSERT of a row whose id is wanted.
    pub(super) fn returning_id(self) -> &'static str {
        match self {
            Self::Postgres => " RETURNING id",
            Self::Sqlite | Self::MySql => "",
        }
    }

    /// SQL text with the engine's placeholders. Texts hold no `?` but placeholders.
    pub(super) fn translate(self, sql: &str) -> String {
        if self != Self::Postgres {
            return sql.to_owned();
        }
        let mut text = String::with_capacity(sql.len() + 16);
        let mut parts = sql.split('?');
        text.push_str(parts.next().unwrap_or_default());
        for (number, part) in parts.enumerate() {
            text.push('$');
            text.push_str(&(number + 1).to_string());
            text.push_str(part);
        }
        text
    }
}
