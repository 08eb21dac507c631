//! go-sql-driver's DSN: `user:password@protocol(address)/dbname?parameters`.

use std::time::Duration;

use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

use super::{NetworkConfig, PATIENCE, Server, unescape, wrong};
use crate::error::OpenError;

pub(super) fn parse(text: &str, config: &NetworkConfig) -> Result<Server, OpenError> {
    let slash = text
        .rfind('/')
        .ok_or_else(|| wrong("invalid DSN: missing the slash separating the database name"))?;
    let (before, after) = (&text[..slash], &text[slash + 1..]);
    let (login, address) = before.rsplit_once('@').unwrap_or(("", before));
    let (database, query) = after.split_once('?').unwrap_or((after, ""));
    let mut options = MySqlConnectOptions::new().charset("utf8mb4").statement_cache_capacity(200);
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    options = options.username(user);
    if let Some(password) = password {
        options = options.password(password);
    }
    options = place(options, address)?;
    let database = unescape(database, false)?;
    if !database.is_empty() {
        options = options.database(&database);
    }
    let mut parameters = Parameters { parse_time: false, patience: PATIENCE, mode: None, cleartext: false };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.take(key, &unescape(value, true)?)?;
    }
    if !parameters.parse_time {
        // SPIRE's words.
        return Err(wrong("invalid mysql config: missing parseTime=true param in connection_string"));
    }
    // The driver uses no TLS unless it is told to, and encrypts MySQL 8's passwords by itself; here they want TLS.
    let own = has_own_tls(config);
    let or_tls = parameters.mode.is_none() && !own;
    options = options
        .ssl_mode(parameters.mode.unwrap_or(MySqlSslMode::Disabled))
        .enable_cleartext_plugin(parameters.cleartext);
    options = own_tls(options, config)?;
    Ok(Server::MySql { options: Box::new(options), patience: parameters.patience, or_tls })
}

fn place(options: MySqlConnectOptions, address: &str) -> Result<MySqlConnectOptions, OpenError> {
    if address.is_empty() {
        return Ok(options.host("127.0.0.1").port(3306));
    }
    let (protocol, rest) = address.split_once('(').unwrap_or((address, ")"));
    let at = rest
        .strip_suffix(')')
        .ok_or_else(|| wrong("invalid DSN: network address not terminated (missing closing brace)"))?;
    match protocol {
        "unix" => Ok(options.socket(if at.is_empty() { "/tmp/mysql.sock" } else { at })),
        "tcp" | "" => {
            let (host, port) = match at.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => (host, port),
                _ => (at, "3306"),
            };
            let port = port.parse().map_err(|_| wrong(format!("invalid DSN: bad port {port:?}")))?;
            let host = host.trim_matches(['[', ']']);
            Ok(options.host(if host.is_empty() { "127.0.0.1" } else { host }).port(port))
        }
        other => Err(wrong(format!("invalid DSN: unsupported protocol {other:?}, expected tcp or unix"))),
    }
}

struct Parameters {
    parse_time: bool,
    patience: Duration,
    mode: Option<MySqlSslMode>,
    cleartext: bool,
}

impl Parameters {
    fn take(&mut self, key: &str, value: &str) -> Result<(), OpenError> {
        let bad = |name, expected| OpenError::ParameterValue { name, value: value.into(), expected };
        match key {
            "parseTime" => self.parse_time = flag(value).ok_or_else(|| bad("parseTime", "true"))?,
            "allowCleartextPasswords" => {
                self.cleartext =
                    flag(value).ok_or_else(|| bad("allowCleartextPasswords", "true or false"))?;
            }
            "timeout" => {
                self.patience = duration(value).ok_or_else(|| bad("timeout", "a duration such as 5s"))?;
            }
            "tls" => {
                self.mode = Some(match value.to_ascii_lowercase().as_str() {
                    "false" | "0" => MySqlSslMode::Disabled,
                    "true" | "1" => MySqlSslMode::VerifyIdentity,
                    "skip-verify" => MySqlSslMode::Required,
                    "preferred" => MySqlSslMode::Preferred,
                    _ => return Err(bad("tls", "true, false, skip-verify or preferred")),
                });
            }
            // SPIRE's times are UTC.
            "loc" if value.eq_ignore_ascii_case("utc") => {}
            "loc" => return Err(bad("loc", "UTC")),
            // What the driver has and needs no doing here.
            "allowNativePasswords"
            | "allowOldPasswords"
            | "allowAllFiles"
            | "allowFallbackToPlaintext"
            | "charset"
            | "checkConnLiveness"
            | "clientFoundRows"
            | "collation"
            | "columnsWithAlias"
            | "compress"
            | "connectionAttributes"
            | "interpolateParams"
            | "maxAllowedPacket"
            | "multiStatements"
            | "readTimeout"
            | "rejectReadOnly"
            | "timeTruncate"
            | "writeTimeout" => {}
            other => return Err(OpenError::Parameter(other.into())),
        }
        Ok(())
    }
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "TRUE" | "True" => Some(true),
        "0" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// One number with one unit.
fn duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

fn has_own_tls(config: &NetworkConfig) -> bool {
    let client = config.client_cert_path.is_some() && config.client_key_path.is_some();
    config.root_ca_path.is_some() || client
}

/// SPIRE's own TLS options, with its refusals.
fn own_tls(
    mut options: MySqlConnectOptions,
    config: &NetworkConfig,
) -> Result<MySqlConnectOptions, OpenError> {
    let client = config.client_cert_path.as_ref().zip(config.client_key_path.as_ref());
    if !has_own_tls(config) {
        return Ok(options);
    }
    options = options.ssl_mode(MySqlSslMode::VerifyIdentity);
    if let Some(path) = &config.root_ca_path {
        let pem = std::fs::read(path)
            .map_err(|_| wrong("invalid mysql config: cannot find Root CA defined in root_ca_path"))?;
        let parses = |pem: &[u8]| {
            let text = std::str::from_utf8(pem).unwrap_or_default();
            steeple_spiffe::Certificate::from_pem(text).is_ok_and(|found| !found.is_empty())
        };
        if !parses(&pem) {
            return Err(wrong("invalid mysql config: failed to parse Root CA defined in root_ca_path"));
        }
        options = options.ssl_ca_from_pem(pem);
    }
    if let Some((certificate, key)) = client {
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|_| {
                wrong(
                    "invalid mysql config: failed to load client certificate defined in client_cert_path and \
                     client_key_path",
                )
            })
        };
        options = options.ssl_client_cert_from_pem(read(certificate)?).ssl_client_key_from_pem(read(key)?);
    }
    Ok(options)
}
