//! A handshake that is there to be looked at: it trusts nobody and everybody, and tells what the peer showed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use rustls::{
    AlertDescription, ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::client::Shown;
use super::{LiveIdentity, VERSIONS, provider};

/// What a peer did.
#[derive(Debug, Default)]
pub struct Probe {
    /// DER, leaf first; empty if it showed none.
    pub chain: Vec<Vec<u8>>,
    /// Of the handshake, once it is complete: `TLSv1_3`, `TLS13_AES_256_GCM_SHA384`, `X25519MLKEM768`.
    pub version: Option<String>,
    pub cipher_suite: Option<String>,
    pub key_exchange: Option<String>,
    pub failure: Option<Failure>,
}

/// Why it came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Connect(String),
    /// What came is no TLS.
    NotTls(String),
    /// The peer said no, before or after it showed its certificate.
    Alert(String),
    /// Anything else that ended the handshake.
    Handshake(String),
}

/// With TLS 1.3 a peer says no to our certificate after the handshake is over for us.
const ALERT_WITHIN: Duration = Duration::from_secs(1);

/// Connects to `address` (`host:port`) and shows `identity`, if it is set. The server name is sent if the host is one.
pub async fn probe(address: &str, identity: LiveIdentity, within: Duration) -> Probe {
    let mut probe = Probe::default();
    match tokio::time::timeout(within, run(address, identity, &mut probe)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => probe.failure = Some(failure),
        Err(_) => {
            let text = format!("no answer within {within:?}");
            let failure =
                if probe.chain.is_empty() { Failure::Connect(text) } else { Failure::Handshake(text) };
            probe.failure = Some(failure);
        }
    }
    probe
}

async fn run(address: &str, identity: LiveIdentity, probe: &mut Probe) -> Result<(), Failure> {
    let stream = TcpStream::connect(address).await;
    let stream = stream.map_err(|error| Failure::Connect(format!("{address}: {error}")))?;
    let seen = Arc::new(Witness::default());
    let config = config(identity, seen.clone()).map_err(|error| Failure::Handshake(error.to_string()))?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).or_else(|_| ServerName::try_from("peer"));
    let name = name.map_err(|error| Failure::Handshake(error.to_string()))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    probe.chain = seen.take();
    let mut tls = connected.map_err(|error| failure(&error))?;
    {
        let (_, session) = tls.get_ref();
        probe.version = session.protocol_version().map(|version| format!("{version:?}"));
        probe.cipher_suite = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
        probe.key_exchange =
            session.negotiated_key_exchange_group().map(|group| format!("{:?}", group.name()));
    }
    // A peer that waits for us to speak says nothing, which is a yes.
    match tokio::time::timeout(ALERT_WITHIN, tls.read(&mut [0; 1])).await {
        Ok(Err(error)) if error.kind() != io::ErrorKind::UnexpectedEof => Err(failure(&error)),
        _ => Ok(()),
    }
}

fn failure(error: &io::Error) -> Failure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::AlertReceived(alert)) => Failure::Alert(alert_name(*alert)),
        Some(Error::InvalidMessage(_)) => Failure::NotTls(error.to_string()),
        Some(_) => Failure::Handshake(error.to_string()),
        // A peer that hangs up without a word gives no more than that.
        None => Failure::Handshake(format!("the peer ended the connection: {error}")),
    }
}

/// As RFC 8446 names it: `unknown_ca`.
fn alert_name(alert: AlertDescription) -> String {
    let mut name = String::new();
    for c in format!("{alert:?}").chars() {
        if c.is_ascii_uppercase()
            && !name.is_empty()
            && !name.ends_with(|last: char| last.is_ascii_uppercase())
        {
            name.push('_');
        }
        name.push(c);
    }
    name.to_lowercase()
}

fn config(identity: LiveIdentity, seen: Arc<Witness>) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(seen)
        .with_client_cert_resolver(Arc::new(Shown(identity)));
    // Both protocols that peers of a mesh speak; one that wants another goes on without.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Keeps the chain and lets it pass: no data is sent over such a connection.
struct Witness {
    chain: Mutex<Vec<Vec<u8>>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Default for Witness {
    fn default() -> Self {
        Self { chain: Mutex::default(), algorithms: provider().signature_verification_algorithms }
    }
}

impl Witness {
    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.chain.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(leaf).chain(rest).map(|der| der.to_vec()).collect();
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Witness").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_go_by_their_names() {
        assert_eq!(alert_name(AlertDescription::UnknownCA), "unknown_ca");
        assert_eq!(alert_name(AlertDescription::BadCertificate), "bad_certificate");
        assert_eq!(alert_name(AlertDescription::CertificateRequired), "certificate_required");
    }
}
