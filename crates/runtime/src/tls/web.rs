//! TLS as browsers know it, for bundle endpoints: the server shows a certificate, the client none.

use std::fmt;
use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::NoServerSessionStorage,
};
use steeple_spiffe::SpiffeId;
use steeple_spiffe::x509::Certificate;

use super::{
    KeyExchange, LiveBundles, LiveIdentity, ServerTrust, VERSIONS, provider, server::Presented, verify,
};
use crate::clock::Clock;

const ALPN_HTTP1: &[u8] = b"http/1.1";

/// How a bundle endpoint proves that it is the one (SPIFFE Federation §5.2).
#[derive(Clone, Debug)]
pub enum EndpointTrust {
    /// `https_web`: a certificate for the URL's host under one of these roots.
    Web(Arc<RootCertStore>),
    /// `https_spiffe`: an X.509-SVID with this ID under the bundle of its trust domain. The host does not matter.
    Spiffe { id: SpiffeId, bundles: LiveBundles },
}

/// The machine's own roots, as of now. `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. Reads files.
pub fn system_roots() -> Result<Arc<RootCertStore>, NoRoots> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        return Err(NoRoots(why.unwrap_or_else(|| format!("none found, {unusable} unusable"))));
    }
    Ok(Arc::new(roots))
}

/// No public authority is known, so no server can be.
#[derive(Debug, thiserror::Error)]
#[error(
    "the system has no trusted root certificates ({0}); install its CA certificates or name a file in SSL_CERT_FILE"
)]
pub struct NoRoots(String);

/// A client of one bundle endpoint.
pub(crate) fn client_config(trust: EndpointTrust, clock: Arc<dyn Clock>) -> Result<ClientConfig, Error> {
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        EndpointTrust::Web(roots) => {
            let web = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
            Arc::new(WebServer(web.map_err(|error| Error::General(error.to_string()))?))
        }
        EndpointTrust::Spiffe { id, bundles } => {
            Arc::new(verify::ExpectedServer::new(id, ServerTrust::Bundles(bundles), clock))
        }
    };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A server that anyone may ask (SPIFFE Federation §5.2.1.3, §5.2.2.3: no client authentication).
pub(crate) fn server_config(identity: LiveIdentity, exchange: KeyExchange) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(exchange.provider())
        .with_protocol_versions(exchange.versions())?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Presented(identity)));
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Public PKI, which says so when the server is of the other profile.
struct WebServer(Arc<WebPkiServerVerifier>);

#[derive(Debug, thiserror::Error)]
#[error(
    "the server's certificate contains SPIFFE ID \"{id}\" and is not valid for web authentication ({reason}): maybe use \
     https_spiffe instead of https_web"
)]
struct MaybeSpiffe {
    id: SpiffeId,
    reason: Error,
}

impl ServerCertVerifier for WebServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_server_cert(leaf, rest, name, ocsp, now).map_err(|reason| match Certificate::from_der(
            leaf,
        )
        .ok()
        .and_then(|leaf| leaf.spiffe_id().ok())
        {
            None => reason,
            Some(id) => Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(
                MaybeSpiffe { id, reason },
            )))),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

impl fmt::Debug for WebServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebServer").finish_non_exhaustive()
    }
}
