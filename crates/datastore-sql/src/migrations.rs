//! Bringing SPIRE's schema to the version that this release serves, as a SPIRE server of that release would: by the
//! one row of `migrations`, whose `code_version` says which release wrote there last.

mod version;

use steeple_datastore::Result;

use self::version::CodeVersion;
use crate::conn::{Conn, Dialect, args};
use crate::error::OpenError;
use crate::schema::{CODE_VERSION, VERSION};

/// The oldest version that is migrated. SPIRE's release 1.16 starts here, too.
pub(crate) const OLDEST: i64 = 23;

/// What `migrations` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub version: i64,
    pub code_version: String,
}

/// The row of `migrations`. SPIRE takes an empty table for version 0.
pub(crate) fn stored(conn: &Conn) -> Result<Stored> {
    let row = conn.first("SELECT version, code_version FROM migrations ORDER BY id LIMIT 1", &[], |row| {
        Ok(Stored { version: row.int(0)?, code_version: row.text(1)?.to_owned() })
    })?;
    Ok(row.unwrap_or(Stored { version: 0, code_version: String::new() }))
}

/// What is to be done with a database.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// The schema is ours.
    Serve {
        /// A newer release than the last one opens it: noted, so that older ones know.
        note_release: bool,
    },
    /// One release ahead of us, and such releases understand each other.
    ServeNewer,
    Migrate,
}

/// Makes the schema version 25, or says why not. Inside a transaction, where the engine's DDL knows them; each step
/// looks first whether it was done, so that one that was cut short is finished by the next start.
pub(crate) fn bring_up(conn: &Conn, place: &str, disabled: bool) -> std::result::Result<(), OpenError> {
    let setup = |source| OpenError::Setup { path: place.into(), source };
    let stored = stored(conn).map_err(setup)?;
    match plan(&stored, place, disabled)? {
        Plan::Serve { note_release: false } => Ok(()),
        Plan::Serve { note_release: true } => note(conn, VERSION).map_err(setup),
        Plan::ServeNewer => {
            tracing::warn!(
                subsystem_name = "sql",
                schema = stored.version,
                version_info = stored.code_version,
                "DB schema is ahead of code version, upgrading the server is recommended"
            );
            Ok(())
        }
        Plan::Migrate => migrate(conn, &stored).map_err(setup),
    }
}

/// Decides; the order of the questions is SPIRE's.
fn plan(stored: &Stored, place: &str, disabled: bool) -> std::result::Result<Plan, OpenError> {
    let refused = |advice: &'static str| OpenError::Version {
        path: place.into(),
        found: stored.version,
        expected: VERSION,
        code_version: stored.code_version.clone(),
        advice,
    };
    let ours = CodeVersion::OURS;
    let theirs: CodeVersion =
        stored.code_version.parse().map_err(|reason: version::NotAVersion| OpenError::CodeVersion {
            path: place.into(),
            found: stored.code_version.clone(),
            reason: reason.to_string(),
        })?;
    let compatible = ours.is_compatible(&theirs);
    match stored.version {
        VERSION => Ok(Plan::Serve { note_release: ours > theirs }),
        // SPIRE starts on older schemas, too, and then fails at the first column that is missing.
        _ if disabled && !compatible => Err(refused("auto-migration must be enabled for current DB")),
        OLDEST..VERSION if disabled => Err(refused(
            "columns are missing and disable_migration is set; start one server without disable_migration",
        )),
        OLDEST..VERSION => Ok(Plan::Migrate),
        ..OLDEST => Err(refused(
            "migrating it requires a previous SPIRE release: upgrade it with SPIRE release by release up to 1.16, \
             then start this server",
        )),
        _ if compatible => Ok(Plan::ServeNewer),
        _ => Err(refused("incompatible DB schema and code version: use a newer release of this server")),
    }
}

fn migrate(conn: &Conn, stored: &Stored) -> Result<()> {
    tracing::info!(
        subsystem_name = "sql",
        schema = stored.version,
        version_info = stored.code_version,
        "Running migrations..."
    );
    for from in stored.version..VERSION {
        tracing::info!(
            subsystem_name = "sql",
            schema = stored.version,
            version_info = from,
            "Migrating version"
        );
        for column in COLUMNS.iter().filter(|column| column.since == from + 1) {
            if !has_column(conn, column.table, column.name)? {
                let kind = column.kind.in_ddl(conn.dialect());
                conn.script(&format!("ALTER TABLE {} ADD {} {kind}", column.table, column.name))?;
            }
        }
        note(conn, from + 1)?;
    }
    tracing::info!(
        subsystem_name = "sql",
        schema = stored.version,
        version_info = stored.code_version,
        "Done running migrations"
    );
    Ok(())
}

fn note(conn: &Conn, version: i64) -> Result<()> {
    let now = conn.dialect().now();
    conn.exec(
        &format!("UPDATE migrations SET version = ?, code_version = ?, updated_at = {now}"),
        &args![version, CODE_VERSION],
    )?;
    Ok(())
}

/// Whether a table has a column.
pub(crate) fn has_column(conn: &Conn, table: &str, column: &str) -> Result<bool> {
    let sql = match conn.dialect() {
        Dialect::Sqlite => "SELECT 1 FROM pragma_table_info(?) WHERE name = ?",
        Dialect::Postgres => {
            "SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass(?) AND attname = ? AND NOT attisdropped"
        }
        Dialect::MySql => {
            "SELECT 1 FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ? \
             AND column_name = ?"
        }
    };
    Ok(conn.first(sql, &args![table, column], |_| Ok(()))?.is_some())
}

/// Refuses what a backup could not read, with SPIRE's reasons.
pub(crate) fn check_readable(stored: &Stored, place: &str) -> std::result::Result<(), OpenError> {
    plan(stored, place, false).map(drop)
}

/// A column that came later than the table.
pub(crate) struct Added {
    /// The version that brought it.
    pub since: i64,
    pub table: &'static str,
    pub name: &'static str,
    pub kind: ColumnKind,
}

/// What the engines spell differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    /// Up to 255 characters.
    Name,
    /// Bytes.
    Blob,
}

impl ColumnKind {
    /// As SPIRE makes it.
    fn in_ddl(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Self::Name, Dialect::Sqlite | Dialect::MySql) => "varchar(255)",
            (Self::Name, Dialect::Postgres) => "text",
            (Self::Blob, Dialect::Sqlite) => "blob",
            (Self::Blob, Dialect::Postgres) => "bytea",
            (Self::Blob, Dialect::MySql) => "longblob",
        }
    }
}

pub(crate) const COLUMNS: [Added; 2] = [
    Added { since: 24, table: "attested_node_entries", name: "agent_version", kind: ColumnKind::Name },
    Added { since: 25, table: "registered_entries", name: "additional_attributes", kind: ColumnKind::Blob },
];

#[cfg(test)]
mod tests;
