//! Which database.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// A database that the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    Sqlite,
    /// PostgreSQL 15.
    Postgres,
    /// MariaDB 10.11.
    MariaDb,
    /// MySQL 8.0.
    MySql,
}

impl Engine {
    pub const ALL: [Self; 4] = [Self::Sqlite, Self::Postgres, Self::MariaDb, Self::MySql];
    /// Those with a server.
    pub const SERVERS: [Self; 3] = [Self::Postgres, Self::MariaDb, Self::MySql];

    /// The name in `STEEPLE_E2E_DATABASE`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql8",
        }
    }

    /// SPIRE's `database_type`.
    pub fn database_type(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite3",
            Self::Postgres => "postgres",
            Self::MariaDb | Self::MySql => "mysql",
        }
    }
}

impl FromStr for Engine {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|engine| engine.name() == name)
            .with_context(|| format!("no database is called {name:?}; there are {}", known()))
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A program of one of the engines: the first of `places` that exists, else on the `PATH`.
pub(crate) fn program(engine: Engine, name: &str, places: &[PathBuf]) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let found = places
        .iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .chain(sbin)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    match found {
        Some(file) => Ok(file),
        None => bail!("{engine}: the program {name} is missing; run scripts/setup test"),
    }
}
