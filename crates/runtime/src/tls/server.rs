//! The accepting side.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::Stream;
use rustls::{
    ServerConfig,
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use steeple_spiffe::{SpiffeId, x509::Certificate};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Sleep,
};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::Connected;

use super::{
    ALPN_H2, KeyExchange, LiveBundles, LiveIdentity,
    verify::{OptionalSvid, no_common_exchange, parse_chain, readable},
};
use crate::clock::Clock;

/// A client that has not finished its handshake by then is dropped.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How many handshakes may be under way; more wait in the listener's backlog.
const MAX_HANDSHAKES: usize = 1_024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Terminates TLS with a live identity. A client certificate is optional, but one that is shown must be an SVID
/// under the live bundles of its trust domain, or the handshake fails.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    exchange: KeyExchange,
    deadline: Duration,
}

impl ServerTls {
    pub fn new(
        identity: LiveIdentity,
        bundles: LiveBundles,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        Self::with_key_exchange(KeyExchange::Any, identity, bundles, clock)
    }

    pub fn with_key_exchange(
        exchange: KeyExchange,
        identity: LiveIdentity,
        bundles: LiveBundles,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(exchange.provider())
            .with_protocol_versions(exchange.versions())?
            .with_client_cert_verifier(Arc::new(OptionalSvid::new(bundles, clock)))
            .with_cert_resolver(Arc::new(Presented(identity)));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), exchange, deadline: HANDSHAKE_DEADLINE })
    }

    #[cfg(test)]
    pub(super) fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Accepts on `listener`: a stream of [`TlsStream`] for `serve_with_incoming`. It never ends by itself, and a
    /// client that dawdles or fails its handshake holds nobody up.
    pub fn incoming(&self, listener: TcpListener) -> TlsIncoming {
        TlsIncoming {
            acceptor: TlsAcceptor::from(self.config.clone()),
            exchange: self.exchange,
            deadline: self.deadline,
            listener,
            handshakes: JoinSet::new(),
            pause: None,
        }
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// See [`ServerTls::incoming`].
pub struct TlsIncoming {
    acceptor: TlsAcceptor,
    exchange: KeyExchange,
    deadline: Duration,
    listener: TcpListener,
    handshakes: JoinSet<Option<TlsStream>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl TlsIncoming {
    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) {
        while self.handshakes.len() < MAX_HANDSHAKES {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, addr))) => {
                    self.handshakes.spawn(handshake(
                        self.acceptor.clone(),
                        stream,
                        addr,
                        self.exchange,
                        self.deadline,
                    ));
                }
                Poll::Ready(Err(error)) if concerns_one_connection(&error) => {}
                Poll::Ready(Err(error)) => {
                    tracing::error!(error = %error, "Cannot accept connections");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl Stream for TlsIncoming {
    type Item = io::Result<TlsStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            this.poll_accept(cx);
            match this.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(stream)))) => return Poll::Ready(Some(Ok(stream))),
                Poll::Ready(Some(Ok(None) | Err(_))) => {}
                // None: no handshake under way; the listener has the waker.
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl fmt::Debug for TlsIncoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIncoming").field("listener", &self.listener).finish_non_exhaustive()
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    addr: SocketAddr,
    exchange: KeyExchange,
    deadline: Duration,
) -> Option<TlsStream> {
    // gRPC's small frames must not wait for one another.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(deadline, acceptor.accept(stream)).await {
        Ok(Ok(io)) => {
            let peer = peer_of(&io, addr);
            Some(TlsStream { io, peer, written: false })
        }
        Ok(Err(error)) => {
            tracing::debug!(caller_addr = %addr, error = %readable(no_common_exchange(error, exchange)), "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(caller_addr = %addr, "TLS handshake took too long");
            None
        }
    }
}

fn peer_of(io: &tokio_rustls::server::TlsStream<TcpStream>, addr: SocketAddr) -> TlsPeer {
    // The verifier has parsed and judged the chain already: this does not fail.
    let chain = io
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::split_first)
        .and_then(|(leaf, rest)| parse_chain(leaf, rest).ok());
    let spiffe_id = chain.as_ref().and_then(|chain| chain.first()).and_then(|leaf| leaf.spiffe_id().ok());
    TlsPeer { addr, chain: chain.map(Arc::new), spiffe_id }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// What tonic hands to a handler: `request.extensions().get::<TlsPeer>()`.
#[derive(Debug, Clone)]
pub struct TlsPeer {
    pub addr: SocketAddr,
    /// The certificates the client showed, leaf first. They were valid at the handshake.
    pub chain: Option<Arc<Vec<Certificate>>>,
    /// The ID in them. `None` for a client without a certificate.
    pub spiffe_id: Option<SpiffeId>,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct TlsStream {
    io: tokio_rustls::server::TlsStream<TcpStream>,
    peer: TlsPeer,
    written: bool,
}

impl TlsStream {
    pub fn peer(&self) -> &TlsPeer {
        &self.peer
    }
}

impl Connected for TlsStream {
    type ConnectInfo = TlsPeer;

    fn connect_info(&self) -> TlsPeer {
        self.peer.clone()
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(cx, buf)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.written = true;
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    /// Asked before the first write, h2 decides by it up to what size it copies a message behind its header: 1 KiB if not
    /// vectored, else 256 bytes; what is not copied is a TLS record and a write of its own, and so are the trailers after
    /// it. Asked at each later write, it is about the pieces of large messages.
    fn is_write_vectored(&self) -> bool {
        self.written && self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}

#[derive(Debug)]
pub(super) struct Presented(pub(super) LiveIdentity);

impl ResolvesServerCert for Presented {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.certified()
    }
}
