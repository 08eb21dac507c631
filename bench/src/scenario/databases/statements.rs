//! What PostgreSQL tells of its statements.

use std::time::Duration;

use anyhow::{Context, Result};
use steeple_e2e::{Database, Engine};

/// Tables that grow with the entries.
const GROWING: &str = "'registered_entries', 'selectors', 'registered_entries_events', 'steeple_changes'";
/// Connections report what they read when they next do something, at most once a second; an idle server asks every
/// two seconds.
const REPORTED: Duration = Duration::from_secs(5);

/// What it spent its time on since the last such look.
pub fn tell(database: &Database, what: &str) -> Result<()> {
    let Some(server) = database.server().filter(|_| database.engine() == Engine::Postgres) else {
        return Ok(());
    };
    let told = server.query(
        "postgres",
        "select calls, round(total_exec_time), left(replace(query, chr(10), ' '), 130) \
         from pg_stat_statements s join pg_roles r on r.oid = s.userid \
         where r.rolname <> 'postgres' order by total_exec_time desc limit 12",
    )?;
    println!("  statements, {what}: calls|ms|text");
    told.lines().for_each(|line| println!("    {line}"));
    forget(database)
}

pub fn forget(database: &Database) -> Result<()> {
    if let Some(server) = database.server().filter(|_| database.engine() == Engine::Postgres) {
        server.query("postgres", "create extension if not exists pg_stat_statements")?;
        server.query("postgres", "select pg_stat_statements_reset()")?;
    }
    Ok(())
}

/// Rows of growing tables that were read because no index was used, since the database was made. Small tables are
/// rightly read so. Only PostgreSQL counts them.
pub fn rows_read_in_full(database: &Database) -> Result<Option<u64>> {
    if database.engine() != Engine::Postgres {
        return Ok(None);
    }
    std::thread::sleep(REPORTED);
    let sql = format!(
        "select coalesce(sum(seq_tup_read), 0) from pg_stat_user_tables where relname in ({GROWING})"
    );
    let told = database.query(&sql)?;
    told.trim().parse().map(Some).with_context(|| format!("no number: {told:?}"))
}
