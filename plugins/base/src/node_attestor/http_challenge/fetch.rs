//! The server's call to an agent that has proved nothing yet.
//!
//! What an attacker can make of it is bounded: one GET without a body, to a fixed path, on a name the operator allowed; to
//! addresses that cannot be the server's own or a cloud's metadata service (unless the operator named them); no redirect,
//! no proxy; 64 bytes read of an answer that is read whole within the deadline or not at all; so many calls at once, and no
//! more. The caller never hears what the call found.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// For everything from looking up the name to the last byte (SPIRE).
const DEADLINE: Duration = Duration::from_secs(10);
/// For one address of several.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
const MAX_ADDRESSES: usize = 4;
/// Of the answer; what is behind is not looked at (SPIRE).
const MAX_BODY: usize = 64;
/// Of the answer's head. The smallest the library has.
const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 32;
/// Calls to agents at one time, all attestations together.
const MAX_CALLS: usize = 32;

/// Makes the calls.
#[derive(Clone)]
pub struct Fetcher {
    calls: Arc<Semaphore>,
    /// Loopback addresses count: the operator's patterns named the hosts.
    loopback: bool,
    deadline: Duration,
}

/// Why there is no answer, for the server's log.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("cannot look up {host}: {problem}")]
    Lookup { host: String, problem: String },
    #[error("{host} has the address {address}, which is not one of an agent's: {why}")]
    Refused { host: String, address: IpAddr, why: &'static str },
    #[error("cannot connect to {address}: {problem}")]
    Connect { address: SocketAddr, problem: String },
    #[error("the answer is no good: {0}")]
    Answer(String),
    #[error("no answer within {} seconds", DEADLINE.as_secs())]
    Late,
    #[error("{MAX_CALLS} challenges are being fetched already")]
    Busy,
}

impl Fetcher {
    pub fn new(loopback: bool) -> Self {
        Self { calls: Arc::new(Semaphore::new(MAX_CALLS)), loopback, deadline: DEADLINE }
    }

    #[cfg(test)]
    pub fn within(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The first bytes of what `host` answers, as text.
    pub async fn fetch(&self, host: &str, port: u16, path: &str) -> Result<String, FetchError> {
        match tokio::time::timeout(self.deadline, self.fetch_in_turn(host, port, path)).await {
            Ok(fetched) => fetched,
            Err(_) if self.calls.available_permits() == 0 => Err(FetchError::Busy),
            Err(_) => Err(FetchError::Late),
        }
    }

    async fn fetch_in_turn(&self, host: &str, port: u16, path: &str) -> Result<String, FetchError> {
        let turn = self.calls.clone().acquire_owned().await.map_err(|_| FetchError::Busy)?;
        let turn = Arc::new(turn);
        let lookup = |problem: String| FetchError::Lookup { host: host.to_owned(), problem };
        // The system's resolver cannot be stopped: a lookup that hangs holds its turn as long as it hangs.
        let (name, held) = (host.to_owned(), turn.clone());
        let looked_up = tokio::task::spawn_blocking(move || {
            let found = (name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            drop(held);
            found
        });
        let addresses = looked_up.await.map_err(|error| lookup(error.to_string()))?;
        let addresses = addresses.map_err(|error| lookup(error.to_string()))?;
        // What is connected to is what was checked: the name is not looked up again.
        let allowed = self.allowed(host, &addresses)?;
        let stream = connect(&allowed).await?;
        let fetched = get(stream, host, port, path).await;
        drop(turn);
        fetched
    }

    fn allowed(&self, host: &str, addresses: &[SocketAddr]) -> Result<Vec<SocketAddr>, FetchError> {
        let mut refusal =
            FetchError::Lookup { host: host.to_owned(), problem: "it has no address".to_owned() };
        let mut out = Vec::new();
        for address in addresses {
            match self.objection(address.ip()) {
                None => out.push(*address),
                Some(why) => {
                    refusal = FetchError::Refused { host: host.to_owned(), address: address.ip(), why };
                }
            }
        }
        out.truncate(MAX_ADDRESSES);
        if out.is_empty() { Err(refusal) } else { Ok(out) }
    }

    /// Why an address is not called.
    fn objection(&self, address: IpAddr) -> Option<&'static str> {
        let address = address.to_canonical();
        let (link_local, broadcast) = match address {
            IpAddr::V4(v4) => (v4.is_link_local(), v4.is_broadcast() || v4.octets()[0] == 0),
            // fe80::/10, and where AWS has its metadata service.
            IpAddr::V6(v6) => {
                (v6.is_unicast_link_local() || v6.segments()[..6] == [0xfd00, 0xec2, 0, 0, 0, 0], false)
            }
        };
        if address.is_unspecified() || address.is_multicast() || broadcast {
            Some("it is no host's")
        } else if link_local {
            Some("it is link-local, as metadata services are")
        } else if address.is_loopback() && !self.loopback {
            Some("it is this machine's own; list the name in allowed_dns_patterns if an agent runs here")
        } else {
            None
        }
    }
}

async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, FetchError> {
    let mut last = FetchError::Late;
    for &address in addresses {
        match tokio::time::timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = FetchError::Connect { address, problem: error.to_string() },
            Err(_) => last = FetchError::Connect { address, problem: "no answer".to_owned() },
        }
    }
    Err(last)
}

async fn get(stream: TcpStream, host: &str, port: u16, path: &str) -> Result<String, FetchError> {
    let failed = |error: &dyn ToString| FetchError::Answer(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(&error))?;
    let request = Request::get(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Answer(format!("status {}", answer.status())));
        }
        let mut body = answer.into_body();
        let mut read = Vec::with_capacity(MAX_BODY);
        while read.len() < MAX_BODY {
            let Some(frame) = body.frame().await else { break };
            let frame = frame.map_err(|error| failed(&error))?;
            if let Some(data) = frame.data_ref() {
                read.extend_from_slice(&data[..data.len().min(MAX_BODY - read.len())]);
            }
        }
        Ok(String::from_utf8_lossy(&read).into_owned())
    };
    // The connection is worked on here, and gone when this returns.
    let exchange = std::pin::pin!(exchange);
    let mut connection = std::pin::pin!(connection);
    let mut exchange = exchange;
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            done = &mut exchange => return done,
            _ = &mut connection, if open => open = false,
        }
    }
}
