//! `DataStore "sql"`: which database, and how it is reached (spire.md §3.10).

use std::time::Duration;

use steeple_cli::settings::{duration, invalid, place, refuse, refuse_on, string};
use steeple_config::{Block, PluginConfig, Strictness, UnknownKeys};
use steeple_datastore_sql::{DatabaseConfig, NetworkConfig, ServerKind, SqliteConfig};

use super::LoadError;

/// Keys that only a database server has a use for.
const SERVER_KEYS: [&str; 7] = [
    "ro_connection_string",
    "root_ca_path",
    "client_cert_path",
    "client_key_path",
    "max_open_conns",
    "max_idle_conns",
    "conn_max_lifetime",
];

pub(super) fn decode(
    plugin: &PluginConfig,
    mut block: Block<'_>,
    unknown: &mut UnknownKeys,
) -> Result<DatabaseConfig, LoadError> {
    let at = |text: String| LoadError::Other(format!("{}:{}: {text}", plugin.file, plugin.pos));
    if block.blocks("database_type").is_ok_and(|blocks| !blocks.is_empty()) {
        // aws_postgres, aws_mysql
        return Err(LoadError::Unsupported {
            place: place(&block, "database_type"),
            option: "database_type with IAM authentication".to_owned(),
        });
    }
    let kind = string(&mut block, "database_type")?
        .ok_or_else(|| at("datastore-sql: database_type must be set".to_owned()))?;
    let connection_string = string(&mut block, "connection_string")?;
    let disable_migration = block.bool("disable_migration")?.unwrap_or(false);
    refuse_on(&mut block, &["log_sql"])?;
    let missing = || at("datastore-sql: connection_string must be set".to_owned());
    let config = match kind.as_str() {
        "sqlite3" => {
            refuse(&block, &SERVER_KEYS)?;
            let connection_string = connection_string.ok_or_else(missing)?;
            DatabaseConfig::Sqlite(SqliteConfig { disable_migration, ..SqliteConfig::new(connection_string) })
        }
        "postgres" | "mysql" => {
            let kind = if kind == "postgres" { ServerKind::Postgres } else { ServerKind::MySql };
            let mut network = NetworkConfig::new(kind, connection_string.ok_or_else(missing)?);
            network.disable_migration = disable_migration;
            server(&mut block, &mut network)?;
            network.check().map_err(|reason| at(reason.to_string()))?;
            DatabaseConfig::Network(network)
        }
        other => {
            return Err(at(format!(
                "datastore-sql: unsupported database_type: {other}; expected sqlite3, postgres or mysql"
            )));
        }
    };
    // Plugins are not checked for unknown keys by SPIRE.
    block.finish(Strictness::Lax, "DataStore \"sql\"", unknown);
    Ok(config)
}

fn server(block: &mut Block<'_>, network: &mut NetworkConfig) -> Result<(), LoadError> {
    network.ro_connection_string = string(block, "ro_connection_string")?;
    network.root_ca_path = string(block, "root_ca_path")?.map(Into::into);
    network.client_cert_path = string(block, "client_cert_path")?.map(Into::into);
    network.client_key_path = string(block, "client_key_path")?.map(Into::into);
    network.max_open_conns = count(block, "max_open_conns")?;
    network.max_idle_conns = count(block, "max_idle_conns")?;
    network.conn_max_lifetime = match duration(block, "conn_max_lifetime")? {
        None => None,
        Some(lifetime) => Some(Duration::from_nanos(
            u64::try_from(lifetime.nanos())
                .map_err(|_| invalid(block, "conn_max_lifetime", "must not be negative"))?,
        )),
    };
    Ok(())
}

/// Zero and less: no limit, in Go's pool.
fn count(block: &mut Block<'_>, key: &str) -> Result<Option<u32>, LoadError> {
    let Some(number) = block.int(key)? else { return Ok(None) };
    u32::try_from(number.max(0)).map(Some).map_err(|_| invalid(block, key, "is out of range"))
}
