//! Several servers behind one address: which one to try first.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;

/// A server that does not answer keeps the next one waiting no longer than this.
const EACH: Duration = Duration::from_secs(3);

/// The servers of a trust domain: hosts with one port. Every name is asked for anew at each connection, all its addresses count, and the
/// order is drawn by lot, so that many agents spread evenly (SPIRE: gRPC's `round_robin` over `dns:///`).
#[derive(Debug)]
pub struct Servers {
    targets: Vec<String>,
    peers: Mutex<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    connected: Option<SocketAddr>,
    avoided: Option<SocketAddr>,
}

impl Servers {
    /// `address` is `host:port`, or `host,host,…:port`.
    pub fn new(address: &str) -> Self {
        let (hosts, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let targets = hosts.split(',').map(|host| format!("{}:{port}", bracketed(host.trim()))).collect();
        Self { targets, peers: Mutex::default() }
    }

    /// The first of them, for messages and URIs.
    pub fn first(&self) -> &str {
        self.targets.first().map_or("", String::as_str)
    }

    /// The server of the last connection is tried last from now on.
    pub fn avoid_last(&self) {
        let mut peers = self.peers();
        if peers.connected.is_some() {
            peers.avoided = peers.connected;
        }
    }

    /// One TCP connection with the first server for which `prepare` (the TLS handshake) succeeds.
    pub async fn connect<T, F>(&self, prepare: impl Fn(TcpStream) -> F) -> io::Result<T>
    where
        F: Future<Output = io::Result<T>>,
    {
        let avoided = self.peers().avoided;
        let addresses = order(self.resolve().await?, avoided, |below| fastrand::usize(..below));
        let alone = addresses.len() == 1;
        let mut failure = None;
        for address in addresses {
            let connecting = async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                prepare(stream).await
            };
            // The only one has all the time there is.
            let done = if alone { connecting.await } else { within(address, connecting).await };
            match done {
                Ok(connection) => {
                    self.peers().connected = Some(address);
                    return Ok(connection);
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "A server cannot be reached");
                    failure = Some(error);
                }
            }
        }
        Err(failure.unwrap_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{}: no address", self.first()))
        }))
    }

    /// All addresses. A name that is not known does not keep the others from being tried.
    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let mut addresses = Vec::new();
        let mut failure = None;
        for target in &self.targets {
            match tokio::net::lookup_host(target).await {
                Ok(found) => addresses.extend(found),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if addresses.is_empty() => Err(error),
            _ => Ok(addresses),
        }
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn within<T>(address: SocketAddr, connecting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("{address}: connecting took too long"));
    tokio::time::timeout(EACH, connecting).await.map_err(|_| late())?
}

/// Each address once, by lot, the avoided one last. `draw(n)` answers a number below `n`.
fn order(
    addresses: Vec<SocketAddr>,
    avoided: Option<SocketAddr>,
    mut draw: impl FnMut(usize) -> usize,
) -> Vec<SocketAddr> {
    let mut left = addresses;
    left.sort_unstable();
    left.dedup();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        ordered.push(left.swap_remove(draw(left.len())));
    }
    ordered.sort_by_key(|address| Some(*address) == avoided);
    ordered
}

fn bracketed(host: &str) -> String {
    let host = host.trim_matches(['[', ']']);
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn address(n: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], n))
    }

    #[test]
    fn lots_are_even_and_the_avoided_one_is_last() {
        let mut firsts = BTreeMap::new();
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..3000 {
            let ordered =
                order(vec![address(1), address(2), address(3), address(2)], None, |n| random.usize(..n));
            assert_eq!(ordered.len(), 3);
            *firsts.entry(ordered[0].port()).or_insert(0) += 1;
        }
        assert!(firsts.values().all(|count| (900..1100).contains(count)), "{firsts:?}");
        for draw in 0..3 {
            let ordered =
                order(vec![address(1), address(2), address(3)], Some(address(2)), |n| draw.min(n - 1));
            assert_eq!(ordered.last(), Some(&address(2)));
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        let targets = |text| Servers::new(text).targets;
        assert_eq!(targets("server:8081"), ["server:8081"]);
        assert_eq!(targets("a, b:8081"), ["a:8081", "b:8081"]);
        assert_eq!(targets("[::1]:8081"), ["[::1]:8081"]);
        assert_eq!(targets("::1,[::2],c:8081"), ["[::1]:8081", "[::2]:8081", "c:8081"]);
    }

    #[tokio::test]
    async fn the_next_server_is_tried_when_one_is_down_or_refuses() {
        let up = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = up.local_addr().unwrap().port();
        // Nobody listens at the other addresses on this port.
        let servers = Servers::new(&format!("127.0.0.3,127.0.0.2,127.0.0.4:{port}"));
        for _ in 0..10 {
            let stream = servers.connect(|stream| async { Ok(stream) }).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), up.local_addr().unwrap());
        }
        let other = tokio::net::TcpListener::bind(("127.0.0.3", port)).await.unwrap();
        servers.avoid_last();
        for _ in 0..10 {
            let stream = servers.connect(|stream| async { Ok(stream) }).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), other.local_addr().unwrap());
        }
        let refused = servers.connect(|_| async { Err::<(), _>(io::Error::other("handshake")) }).await;
        assert!(refused.is_err());
    }
}
