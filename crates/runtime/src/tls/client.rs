//! The connecting side: the agent's way to its server.

use std::{fmt, io, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    pki_types::ServerName,
    sign::CertifiedKey,
};
use steeple_spiffe::SpiffeId;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::{
    ALPN_H2, KeyExchange, LiveBundles, LiveIdentity, Servers,
    verify::{ExpectedServer, no_common_exchange, readable},
};
use crate::clock::Clock;

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How a server proves that it is the one.
#[derive(Debug, Clone)]
pub enum ServerTrust {
    /// Its SVID verifies under the bundle of its trust domain, as it is at the handshake.
    Bundles(LiveBundles),
    /// `insecure_bootstrap`: only the ID in the certificate is looked at; anyone can write one.
    InsecureBootstrap,
}

/// Connects with TLS. Clones are the same; each new connection presents the identity of that moment.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    exchange: KeyExchange,
}

impl ClientTls {
    /// `identity` may be unset: then no certificate is shown (AttestAgent).
    pub fn new(
        server_id: SpiffeId,
        trust: ServerTrust,
        identity: LiveIdentity,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        Self::with_key_exchange(KeyExchange::Any, server_id, trust, identity, clock)
    }

    /// As [`ClientTls::new`], with servers that take part in such a key exchange only.
    pub fn with_key_exchange(
        exchange: KeyExchange,
        server_id: SpiffeId,
        trust: ServerTrust,
        identity: LiveIdentity,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        let verifier = Arc::new(ExpectedServer::new(server_id, trust, clock));
        let mut config = ClientConfig::builder_with_provider(exchange.provider())
            .with_protocol_versions(exchange.versions())?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(Shown(identity)));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.resumption = Resumption::disabled();
        // The server is known by its SPIFFE ID, and SPIRE's agents send no name that would say more.
        config.enable_sni = false;
        Ok(Self { config: Arc::new(config), exchange })
    }

    /// Another set of key exchanges, as an older peer has.
    #[cfg(test)]
    pub(super) fn use_provider_for_tests(&mut self, provider: Arc<rustls::crypto::CryptoProvider>) {
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.exchange.versions())
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols.clone_from(&self.config.alpn_protocols);
        self.config = Arc::new(config);
    }

    /// A channel to one of `servers` that connects at the first call and again after each loss, then perhaps to another.
    pub fn channel(&self, servers: &Arc<Servers>) -> Result<Channel, http::uri::InvalidUri> {
        let endpoint = endpoint(servers.first())?;
        let (this, servers) = (self.clone(), servers.clone());
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let (this, servers) = (this.clone(), servers.clone());
            async move { this.connect(&servers).await.map(TokioIo::new) }
        })))
    }

    /// One TLS connection.
    pub async fn connect(&self, servers: &Servers) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let connector = TlsConnector::from(self.config.clone());
        let exchange = self.exchange;
        let connecting = servers.connect(|stream| {
            let connector = connector.clone();
            async move {
                let connected = connector.connect(server_name()?, stream).await;
                connected.map_err(|error| readable(no_common_exchange(error, exchange)))
            }
        });
        tokio::time::timeout(CONNECT_DEADLINE, connecting).await.map_err(|_| {
            let address = servers.first();
            io::Error::new(io::ErrorKind::TimedOut, format!("{address}: connecting took too long"))
        })?
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

fn endpoint(address: &str) -> Result<Endpoint, http::uri::InvalidUri> {
    // The scheme is http: tonic must not do TLS of its own.
    let uri: Uri = format!("http://{address}").parse()?;
    Ok(Endpoint::from(uri)
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// Not checked against the certificate and not sent: rustls wants one all the same.
fn server_name() -> io::Result<ServerName<'static>> {
    ServerName::try_from("spire-server").map_err(io::Error::other)
}

#[derive(Debug)]
pub(super) struct Shown(pub LiveIdentity);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.certified().filter(|certified| certified.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.0.is_set()
    }
}
