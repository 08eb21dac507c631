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
    ALPN_H2, LiveBundles, LiveIdentity, Servers, VERSIONS, provider,
    verify::{ExpectedServer, readable},
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
}

impl ClientTls {
    /// `identity` may be unset: then no certificate is shown (AttestAgent).
    pub fn new(
        server_id: SpiffeId,
        trust: ServerTrust,
        identity: LiveIdentity,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, rustls::Error> {
        let verifier = Arc::new(ExpectedServer::new(server_id, trust, clock));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(Shown(identity)));
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.resumption = Resumption::disabled();
        // The server is known by its SPIFFE ID, and SPIRE's agents send no name that would say more.
        config.enable_sni = false;
        Ok(Self { config: Arc::new(config) })
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
        let connecting = servers.connect(|stream| {
            let connector = connector.clone();
            async move { connector.connect(server_name()?, stream).await.map_err(readable) }
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
struct Shown(LiveIdentity);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.certified().filter(|certified| certified.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.0.is_set()
    }
}
