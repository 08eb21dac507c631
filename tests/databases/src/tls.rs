//! Certificates for TLS between a server under test and its database.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::keeper;

/// A CA, what it gave the database, and a client certificate for the database user; PEM files.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// SPIRE's `root_ca_path`.
    pub ca: PathBuf,
    /// SPIRE's `client_cert_path`.
    pub client: PathBuf,
    /// SPIRE's `client_key_path`.
    pub client_key: PathBuf,
    /// A CA that did not sign anything here.
    pub other_ca: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) server_key: PathBuf,
}

impl Certificates {
    /// Writes them to `dir`, which the database's user owns.
    pub(crate) fn write(dir: &Path, user: &str) -> Result<Self> {
        let file = |name: &str| dir.join(name);
        authority(dir, "ca")?;
        authority(dir, "other-ca")?;
        leaf(dir, "server", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")?;
        leaf(dir, "client", user, "extendedKeyUsage=clientAuth")?;
        let made = Self {
            ca: file("ca.pem"),
            client: file("client.pem"),
            client_key: file("client.key"),
            other_ca: file("other-ca.pem"),
            server: file("server.pem"),
            server_key: file("server.key"),
        };
        for readable in [&made.ca, &made.server, &made.server_key] {
            keeper::own(readable)?;
        }
        Ok(made)
    }
}

/// RSA: MySQL 8.0.15 shakes hands with no other.
const KEY: [&str; 4] = ["-newkey", "rsa:2048", "-nodes", "-batch"];

fn authority(dir: &Path, name: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-days", "2", "-subj"]).arg(format!("/CN=steeple test {name}")).args(KEY);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
    run(command.current_dir(dir))
}

fn leaf(dir: &Path, name: &str, common_name: &str, extension: &str) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-days", "2", "-CA", "ca.pem", "-CAkey", "ca.key"]).args(KEY);
    command.args(["-subj", &format!("/CN={common_name}"), "-addext", extension]);
    command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]);
    run(command.current_dir(dir))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
