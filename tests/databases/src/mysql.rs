//! MariaDB 10.11 and MySQL 8.0.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::engine::{Engine, program};
use crate::keeper::{private_dir, unprivileged};
use crate::server::{Server, run, run_unprivileged};

pub(crate) fn initialize(server: &Server) -> Result<()> {
    private_dir(&server.path("run"))?;
    // The client that asks from outside need not be the server's user.
    std::fs::set_permissions(server.path("run"), PermissionsExt::from_mode(0o755))?;
    if server.engine() == Engine::MariaDb {
        // Its server gives up now and then on a machine with much other work, without a word.
        let mut tries = 0;
        while let Err(error) = install_mariadb(server) {
            tries += 1;
            if tries == 3 {
                return Err(error);
            }
            std::fs::remove_dir_all(server.path("data"))?;
        }
    } else {
        copy_if_closed(server)?;
        private_dir(&server.path("work"))?;
        let home = home(server)?;
        run_unprivileged(&home.join("bin/mysqld"), |command| {
            command
                .args(["--no-defaults", "--initialize-insecure", "--innodb-use-native-aio=0"])
                .arg(format!("--basedir={}", home.display()))
                .arg(format!("--datadir={}", server.path("work").join("data").display()))
                .args(["--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0"])
        })?;
    }
    let users = server.path("users.sql");
    std::fs::write(&users, users_sql(server.engine()))?;
    Ok(())
}

fn install_mariadb(server: &Server) -> Result<()> {
    private_dir(&server.path("data"))?;
    let ran = run_unprivileged(&program(Engine::MariaDb, "mariadb-install-db", &[])?, |command| {
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", server.path("data").display()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"])
            .args(["--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0"])
            .arg("--innodb-use-native-aio=0")
    });
    ran.map(drop)
}

/// The administrator is root over the Unix socket. MySQL 8 hands out its newer password plugin; SPIRE's users have both.
fn users_sql(engine: Engine) -> String {
    let (user, password) = (Server::USER, Server::PASSWORD);
    let with = if engine == Engine::MySql { "with caching_sha2_password " } else { "" };
    format!(
        "create user if not exists '{user}'@'127.0.0.1' identified {with}by '{password}';\n\
         create user if not exists '{user}'@'localhost' identified {with}by '{password}';\n\
         grant all on *.* to '{user}'@'127.0.0.1';\n\
         grant all on *.* to '{user}'@'localhost';\n"
    )
}

pub(crate) fn command(server: &Server) -> Result<Command> {
    let (mut command, data) = if server.engine() == Engine::MariaDb {
        (unprivileged(&program(Engine::MariaDb, "mariadbd", &[])?), server.path("data"))
    } else {
        let home = home(server)?;
        let mut command = unprivileged(&home.join("bin/mysqld"));
        command.arg("--no-defaults").arg(format!("--basedir={}", home.display()));
        command.args([
            "--mysqlx=0",
            "--innodb-use-native-aio=0",
            "--skip-log-bin",
            "--default-time-zone=+00:00",
        ]);
        (command, server.path("work").join("data"))
    };
    if server.engine() == Engine::MariaDb {
        command.args(["--no-defaults", "--default-time-zone=+00:00"]);
    }
    let tls = server.tls();
    command
        .current_dir("/tmp")
        .arg(format!("--datadir={}", data.display()))
        .arg("--bind-address=127.0.0.1")
        .arg(format!("--port={}", server.port()))
        .arg(format!("--socket={}", server.path("run/sql.sock").display()))
        .arg(format!("--pid-file={}", server.path("run/sql.pid").display()))
        .arg(format!("--init-file={}", server.path("users.sql").display()))
        .arg(format!("--ssl-ca={}", tls.ca.display()))
        .arg(format!("--ssl-cert={}", tls.server.display()))
        .arg(format!("--ssl-key={}", tls.server_key.display()))
        // A commit reaches the operating system: durable enough for a killed server.
        .args([
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0",
        ])
        .args(["--innodb-log-file-size=16M", "--innodb-buffer-pool-size=64M", "--max-connections=400"]);
    Ok(command)
}

pub(crate) fn query(server: &Server, database: &str, sql: &str) -> Result<String> {
    let mut command = Command::new(program(server.engine(), "mariadb", &[])?);
    command.args(["--no-defaults", "-u", "root", "-B", "-N", "--skip-ssl", "-e", sql]);
    command.arg("-S").arg(server.path("run/sql.sock"));
    if !database.is_empty() {
        command.arg(database);
    }
    run(&mut command)
}

pub(crate) fn statements(server: &Server) -> Result<u64> {
    let told = query(server, "", "show global status like 'Questions'")?;
    let count: u64 = told.split_whitespace().last().context("no status")?.parse()?;
    // The client asks two questions of its own around each of ours.
    Ok(count)
}

/// Where `scripts/setup test` unpacked MySQL 8, or a copy of it that everybody may read.
fn home(server: &Server) -> Result<PathBuf> {
    let copy = server.path("mysql8");
    if copy.exists() { Ok(copy) } else { installed() }
}

fn installed() -> Result<PathBuf> {
    let cache = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../.cache/mysql8");
    let home = std::env::var_os("STEEPLE_MYSQL8").map_or(cache, PathBuf::from);
    if !home.join("bin/mysqld").is_file() {
        bail!("mysql8: {} is missing; run scripts/setup test", home.join("bin/mysqld").display());
    }
    Ok(home.canonicalize()?)
}

/// A checkout below a home folder is closed to the user that the server runs as.
fn copy_if_closed(server: &Server) -> Result<()> {
    let home = installed()?;
    let opens = |file: &Path| {
        unprivileged(Path::new("test")).arg("-x").arg(file).status().is_ok_and(|status| status.success())
    };
    if !opens(&home.join("bin/mysqld")) {
        run(Command::new("cp").arg("-r").arg(&home).arg(server.path("mysql8")))?;
    }
    Ok(())
}
