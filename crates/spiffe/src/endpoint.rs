//! The address of a Workload API endpoint (SPIFFE Workload Endpoint §4).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The environment variable that names the endpoint.
pub const SOCKET_ENV: &str = "SPIFFE_ENDPOINT_SOCKET";

/// Where a Workload API is served: `unix:///run/agent.sock` or `tcp://127.0.0.1:8000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

/// Why an address is none, in words close to go-spiffe's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    #[error("workload endpoint socket is not a valid URI")]
    NotAUri,
    #[error("workload endpoint socket URI must have a \"tcp\" or \"unix\" scheme")]
    UnknownScheme,
    #[error(
        "workload endpoint unix socket URI must not include a host or user info, and its path must be absolute"
    )]
    BadUnixPath,
    #[error("workload endpoint unix socket URI must not include query values or a fragment")]
    UnixExtras,
    #[error("workload endpoint tcp socket URI host component must be an IP:port")]
    BadTcpAddress,
    #[error("workload endpoint tcp socket URI must not include user info, path, query values, or a fragment")]
    TcpExtras,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(uri: &str) -> Result<Self, EndpointError> {
        if uri.bytes().any(|c| c.is_ascii_control() || c == b' ') {
            return Err(EndpointError::NotAUri);
        }
        let (scheme, rest) = uri.split_once(':').ok_or(EndpointError::NotAUri)?;
        if scheme.eq_ignore_ascii_case("unix") {
            unix(rest)
        } else if scheme.eq_ignore_ascii_case("tcp") {
            tcp(rest)
        } else {
            Err(EndpointError::UnknownScheme)
        }
    }
}

fn unix(rest: &str) -> Result<Endpoint, EndpointError> {
    if rest.contains(['?', '#']) {
        return Err(EndpointError::UnixExtras);
    }
    // Either no authority at all or an empty one.
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if !path.starts_with('/') || path == "/" {
        return Err(EndpointError::BadUnixPath);
    }
    let path = percent_decode(path).ok_or(EndpointError::NotAUri)?;
    Ok(Endpoint::Unix(Path::new(&path).to_owned()))
}

fn tcp(rest: &str) -> Result<Endpoint, EndpointError> {
    let authority = rest.strip_prefix("//").ok_or(EndpointError::BadTcpAddress)?;
    if authority.contains(['/', '?', '#', '@']) {
        return Err(EndpointError::TcpExtras);
    }
    let (host, port) = authority.rsplit_once(':').ok_or(EndpointError::BadTcpAddress)?;
    let ip = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().map(IpAddr::V6),
        None => host.parse::<std::net::Ipv4Addr>().map(IpAddr::V4),
    };
    let ip = ip.map_err(|_| EndpointError::BadTcpAddress)?;
    if port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit()) {
        return Err(EndpointError::BadTcpAddress);
    }
    let port = port.parse().map_err(|_| EndpointError::BadTcpAddress)?;
    Ok(Endpoint::Tcp(SocketAddr::new(ip, port)))
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push((high * 16 + low) as u8);
    }
    let text = String::from_utf8(out).ok()?;
    (!text.contains('\0')).then_some(text)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}
