//! PostgreSQL 15.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::engine::{Engine, program};
use crate::keeper::{own, private_dir, unprivileged};
use crate::server::{Server, run, run_unprivileged};

/// Nothing outlives the test: the operating system's cache is durable enough, also for a killed server.
const SETTINGS: &str = "
fsync = off
full_page_writes = off
shared_buffers = 64MB
max_connections = 400
wal_level = replica
max_wal_senders = 5
hot_standby = on
ssl = on
shared_preload_libraries = 'pg_stat_statements'
pg_stat_statements.track_utility = on
timezone = 'UTC'
log_timezone = 'UTC'
";

/// Debian keeps the server's programs off the `PATH`.
const BIN: &str = "/usr/lib/postgresql/15/bin";

pub(crate) fn initialize(server: &Server) -> Result<()> {
    let data = server.path("data");
    private_dir(&data)?;
    private_dir(&server.path("run"))?;
    run_unprivileged(&tool("initdb")?, |command| {
        command.arg("-D").arg(&data).args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ])
    })?;
    // Over the Unix socket only this harness comes in, over TCP who has the password (or, over TLS, a certificate).
    let rules = "local all all trust\n\
                 local replication all trust\n\
                 host replication all 127.0.0.1/32 trust\n\
                 host all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(data.join("pg_hba.conf"), rules)?;
    let mut settings = std::fs::read_to_string(data.join("postgresql.conf"))?;
    settings.push_str(SETTINGS);
    std::fs::write(data.join("postgresql.conf"), settings)?;
    // A standby started from this needs the same roles: they are made in single-user mode, before the first start.
    let sql = format!("create role {} login password '{}' createdb", Server::USER, Server::PASSWORD);
    let script = server.path("roles.sql");
    std::fs::write(&script, format!("{sql};\n"))?;
    own(&script)?;
    let shell = format!(
        "{} --single -D {} postgres < {}",
        tool("postgres")?.display(),
        data.display(),
        script.display()
    );
    run_unprivileged(&PathBuf::from("/bin/sh"), |command| command.args(["-c", &shell]))?;
    Ok(())
}

/// A copy of `primary` that follows it.
pub(crate) fn initialize_standby(server: &Server, primary: &Server) -> Result<()> {
    private_dir(&server.path("data"))?;
    private_dir(&server.path("run"))?;
    run_unprivileged(&tool("pg_basebackup")?, |command| {
        command
            .arg("-D")
            .arg(server.path("data"))
            .args(["-h", "127.0.0.1", "-p", &primary.port().to_string(), "-U", "postgres"])
            .args(["-R", "-X", "stream", "--checkpoint=fast", "--no-sync"])
    })?;
    Ok(())
}

pub(crate) fn promote(server: &Server) -> Result<()> {
    run_unprivileged(&tool("pg_ctl")?, |command| {
        command.arg("-w").arg("-D").arg(server.path("data")).arg("promote")
    })?;
    Ok(())
}

pub(crate) fn command(server: &Server) -> Result<Command> {
    let mut command = unprivileged(&tool("postgres")?);
    let tls = server.tls();
    command.current_dir("/tmp").arg("-D").arg(server.path("data"));
    for (name, value) in [
        ("listen_addresses", "127.0.0.1".to_owned()),
        ("port", server.port().to_string()),
        ("unix_socket_directories", server.path("run").display().to_string()),
        ("ssl_ca_file", tls.ca.display().to_string()),
        ("ssl_cert_file", tls.server.display().to_string()),
        ("ssl_key_file", tls.server_key.display().to_string()),
    ] {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    Ok(command)
}

pub(crate) fn query(server: &Server, database: &str, sql: &str) -> Result<String> {
    let mut command = Command::new(program(Engine::Postgres, "psql", &[PathBuf::from(BIN)])?);
    command
        .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql])
        .arg("-h")
        .arg(server.path("run"))
        .args(["-p", &server.port().to_string()]);
    run(&mut command)
}

pub(crate) fn statements(server: &Server) -> Result<u64> {
    query(server, "postgres", "create extension if not exists pg_stat_statements")?;
    let sql = "select coalesce(sum(calls), 0) from pg_stat_statements s join pg_roles r on r.oid = s.userid \
               where r.rolname <> 'postgres'";
    query(server, "postgres", sql)?.trim().parse().context("pg_stat_statements told no number")
}

fn tool(name: &str) -> Result<PathBuf> {
    program(Engine::Postgres, name, &[PathBuf::from(BIN)])
}
