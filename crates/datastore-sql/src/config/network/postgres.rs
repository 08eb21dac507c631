//! lib/pq's connection strings: `host=… dbname=…` and `postgres://…`.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::{PATIENCE, Server, unescape, wrong};
use crate::error::OpenError;

type Pairs = Vec<(String, String)>;

/// Several hosts, with as many ports or one, are tried in turn until one is a primary, as libpq does.
pub(super) fn parse(text: &str) -> Result<Server, OpenError> {
    let pairs = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        url(text)?
    } else {
        keywords(text)?
    };
    let mut options = PgConnectOptions::new();
    // lib/pq's default, where neither the string nor PGSSLMODE says otherwise.
    if std::env::var_os("PGSSLMODE").is_none() {
        options = options.ssl_mode(PgSslMode::Require);
    }
    let mut hosts = vec![String::from(options.get_host())];
    if std::env::var_os("PGHOST").is_none() && std::env::var_os("PGHOSTADDR").is_none() {
        hosts = vec!["localhost".into()];
    }
    let mut ports = vec![options.get_port()];
    let mut patience = PATIENCE;
    let mut mode = None;
    let mut has_root = false;
    let mut files = Vec::new();
    let mut has_database = options.get_database().is_some();
    for (key, value) in pairs {
        if ["sslrootcert", "sslcert", "sslkey"].contains(&key.as_str()) {
            files.push((key.clone(), value.clone()));
        }
        match key.as_str() {
            "host" | "hostaddr" => hosts = value.split(',').map(str::to_owned).collect(),
            "port" => {
                ports = value
                    .split(',')
                    .map(|port| port.parse().map_err(|_| bad("port", port, "a port number")))
                    .collect::<Result<_, _>>()?;
            }
            "user" => options = options.username(&value),
            "password" => options = options.password(&value),
            "dbname" => {
                has_database = true;
                options = options.database(&value);
            }
            "sslmode" => mode = Some(ssl_mode(&value)?),
            "sslrootcert" => {
                has_root = true;
                options = options.ssl_root_cert(value);
            }
            "sslcert" => options = options.ssl_client_cert(value),
            "sslkey" => options = options.ssl_client_key(value),
            "connect_timeout" => {
                let seconds: u64 =
                    value.parse().map_err(|_| bad("connect_timeout", &value, "a number of seconds"))?;
                patience = if seconds == 0 { PATIENCE } else { Duration::from_secs(seconds) };
            }
            "application_name" | "fallback_application_name" => options = options.application_name(&value),
            "target_session_attrs" if ["any", "read-write", "primary"].contains(&value.as_str()) => {}
            "target_session_attrs" => return Err(bad("target_session_attrs", &value, "read-write")),
            // What lib/pq has and needs no doing here.
            "binary_parameters"
            | "disable_prepared_binary_result"
            | "sslsni"
            | "client_encoding"
            | "datestyle" => {}
            "passfile" | "service" | "servicefile" | "sslinline" | "sslpassword" | "krbsrvname"
            | "krbspn" | "gssencmode" | "options" => return Err(OpenError::Parameter(key)),
            // A setting of the server, for the session.
            _ => options = options.options([(key, value)]),
        }
    }
    if let Some(mode) = mode {
        // libpq: a given root makes "require" check the chain.
        let mode = if matches!(mode, PgSslMode::Require) && has_root { PgSslMode::VerifyCa } else { mode };
        options = options.ssl_mode(mode);
    }
    // The driver would not say which file it misses.
    for (key, file) in files.iter().filter(|_| !matches!(mode, Some(PgSslMode::Disable))) {
        std::fs::File::open(file).map_err(|reason| {
            wrong(format!("connection_string's {key} {file:?} cannot be read: {reason}"))
        })?;
    }
    if !has_database {
        let user = options.get_username().to_owned();
        options = options.database(&user);
    }
    if ports.len() != 1 && ports.len() != hosts.len() {
        return Err(wrong(format!("connection_string has {} hosts and {} ports", hosts.len(), ports.len())));
    }
    let hosts = hosts
        .iter()
        .enumerate()
        .map(|(at, host)| {
            let port = if ports.len() == 1 { ports[0] } else { ports[at] };
            let options = options.clone().port(port).statement_cache_capacity(200);
            if host.starts_with('/') { options.socket(host) } else { options.host(host) }
        })
        .collect();
    Ok(Server::Postgres { hosts, patience })
}

fn bad(name: &'static str, value: &str, expected: &'static str) -> OpenError {
    OpenError::ParameterValue { name, value: value.into(), expected }
}

fn ssl_mode(value: &str) -> Result<PgSslMode, OpenError> {
    value
        .parse()
        .map_err(|_| bad("sslmode", value, "disable, allow, prefer, require, verify-ca or verify-full"))
}

/// `key=value key = 'a value'`, `\` before a quote or a backslash.
fn keywords(text: &str) -> Result<Pairs, OpenError> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .ok_or_else(|| wrong("connection_string of postgres is not a list of key=value"))?;
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(wrong("connection_string of postgres is not a list of key=value"));
        }
        let (value, after) = value(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

fn value(text: &str) -> Result<(String, &str), OpenError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, c)) => value.push(c),
                None => return Err(wrong("connection_string of postgres ends in a backslash")),
            },
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted {
        Err(wrong("connection_string of postgres has an unterminated quote"))
    } else {
        Ok((value, ""))
    }
}

/// `postgres://user:password@host:port,host:port/dbname?key=value`
fn url(text: &str) -> Result<Pairs, OpenError> {
    let (_, rest) = text.split_once("://").unwrap_or_default();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, places) = authority.rsplit_once('@').unwrap_or(("", authority));
    let mut pairs = Vec::new();
    let mut add = |key: &str, value: String| {
        if !value.is_empty() {
            pairs.push((key.to_owned(), value));
        }
    };
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    add("user", unescape(user, false)?);
    add("password", unescape(password, false)?);
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for place in places.split(',').filter(|place| !place.is_empty()) {
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (place, "5432"),
        };
        hosts.push(unescape(host.trim_matches(['[', ']']), false)?);
        ports.push(port.to_owned());
    }
    add("host", hosts.join(","));
    add("port", ports.join(","));
    add("dbname", unescape(database, false)?);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        add(&unescape(key, true)?, unescape(value, true)?);
    }
    Ok(pairs)
}
