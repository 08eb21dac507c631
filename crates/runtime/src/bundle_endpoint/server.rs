//! Being a bundle endpoint. Anyone may ask, so whoever asks gets little: one answer to a connection, soon or not at all.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::tls::{KeyExchange, LiveIdentity, server_config};

/// As SPIRE's.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// From the first byte of the handshake to the last of the answer.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(20);
/// More wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 512;
/// hyper's smallest buffer; no request here is longer.
const MAX_HEADERS: usize = 8 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The document to serve now; `None` = there is none, which is our fault.
pub type Answer = Arc<dyn Fn() -> Option<Bytes> + Send + Sync>;

/// Bound, not yet serving.
pub struct BundleEndpoint {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    answer: Answer,
    limits: Limits,
}

#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub headers: Duration,
    pub connection: Duration,
    pub connections: usize,
}

impl BundleEndpoint {
    pub fn new(listener: TcpListener, identity: LiveIdentity, answer: Answer) -> Result<Self, rustls::Error> {
        Self::with_key_exchange(KeyExchange::Any, listener, identity, answer)
    }

    pub fn with_key_exchange(
        exchange: KeyExchange,
        listener: TcpListener,
        identity: LiveIdentity,
        answer: Answer,
    ) -> Result<Self, rustls::Error> {
        let acceptor = TlsAcceptor::from(Arc::new(server_config(identity, exchange)?));
        let limits = Limits {
            headers: HEADER_DEADLINE,
            connection: CONNECTION_DEADLINE,
            connections: MAX_CONNECTIONS,
        };
        Ok(Self { listener, acceptor, answer, limits })
    }

    #[cfg(test)]
    pub(super) fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped.
    pub async fn serve(self) {
        let mut connections = JoinSet::new();
        loop {
            while connections.len() >= self.limits.connections {
                connections.join_next().await;
            }
            while connections.try_join_next().is_some() {}
            match self.listener.accept().await {
                Ok((stream, from)) => {
                    let one = connection(self.acceptor.clone(), stream, self.answer.clone(), self.limits);
                    let deadline = self.limits.connection;
                    connections.spawn(async move {
                        match tokio::time::timeout(deadline, one).await {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => {
                                tracing::debug!(subsystem_name = "bundle_endpoint", caller_addr = %from, error, "Connection failed");
                            }
                            Err(_) => {
                                tracing::debug!(subsystem_name = "bundle_endpoint", caller_addr = %from, "Connection took too long");
                            }
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(subsystem_name = "bundle_endpoint", %error, "Cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl std::fmt::Debug for BundleEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BundleEndpoint").field("listener", &self.listener).finish_non_exhaustive()
    }
}

async fn connection(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    answer: Answer,
    limits: Limits,
) -> Result<(), String> {
    let tls = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
    let service = service_fn(move |request| {
        let response = respond(&answer, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .max_buf_size(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(tls), service)
        .await
        .map_err(|error| error.to_string())
}

// SPIRE looks at the method first, and its texts are Go's.
fn respond(answer: &Answer, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "405 method not allowed\n");
    }
    if request.uri().path() != "/" {
        return refusal(StatusCode::NOT_FOUND, "404 page not found\n");
    }
    match answer() {
        Some(document) => {
            let mut response = Response::new(Full::new(document));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        None => refusal(StatusCode::INTERNAL_SERVER_ERROR, "500 unable to retrieve local bundle\n"),
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
