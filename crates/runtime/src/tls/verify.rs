//! rustls verifiers that ask `steeple_spiffe`.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use steeple_spiffe::{
    SpiffeId, TrustDomain,
    x509::{Certificate, VerifyError, X509BundleSource, X509Error, check_leaf, verify_svid},
};

use super::{KeyExchange, LiveBundles, ServerTrust, provider};
use crate::clock::Clock;

/// Why a peer's certificate is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("malformed certificate: {0}")]
    Malformed(X509Error),
    #[error(transparent)]
    NotAnSvid(VerifyError),
    #[error("unexpected ID \"{found}\"; expected \"{expected}\"")]
    UnexpectedId { found: SpiffeId, expected: SpiffeId },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

/// What a TLS failure among an error's causes says, in words.
pub(crate) fn refusal_in(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut error = error;
    let tls = loop {
        match error.downcast_ref::<std::io::Error>() {
            // It may hold another one, and its `source` leaves out what it holds.
            Some(io) => error = io.get_ref()?,
            None => break error.downcast_ref::<Error>()?,
        }
    };
    Some(match tls {
        Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))) => refusal.to_string(),
        other => other.to_string(),
    })
}

/// rustls prints the reason of a refusal for debugging; this says it.
pub(super) fn readable(error: std::io::Error) -> std::io::Error {
    let refusal =
        error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()).and_then(|error| match error {
            Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))) => {
                Some(refusal.to_string())
            }
            _ => None,
        });
    match refusal {
        Some(refusal) => {
            std::io::Error::new(error.kind(), format!("peer's certificate is refused: {refusal}"))
        }
        None => error,
    }
}

/// Says what stands behind a handshake that ended before any certificate was looked at.
pub(super) fn no_common_exchange(error: std::io::Error, exchange: KeyExchange) -> std::io::Error {
    use rustls::AlertDescription::{HandshakeFailure, InsufficientSecurity, ProtocolVersion};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let refused = matches!(
        tls,
        Some(
            Error::PeerIncompatible(_)
                | Error::AlertReceived(HandshakeFailure | InsufficientSecurity | ProtocolVersion)
        )
    );
    if !refused {
        return error;
    }
    let why = match exchange {
        KeyExchange::PostQuantum => {
            "the peer does not take part in a hybrid post-quantum key exchange over TLS 1.3, and require_pq_kem asks for one"
        }
        KeyExchange::Any => {
            "no TLS version or key exchange in common; a peer with require_pq_kem takes hybrid post-quantum ones only"
        }
    };
    std::io::Error::new(error.kind(), format!("{error}: {why}"))
}

impl X509BundleSource for LiveBundles {
    fn x509_authorities(&self, trust_domain: &TrustDomain) -> Option<Vec<Certificate>> {
        self.authorities(trust_domain).map(|authorities| authorities.as_ref().clone())
    }
}

/// Reads a chain as the peer sent it, leaf first.
pub(super) fn parse_chain(
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
) -> Result<Vec<Certificate>, X509Error> {
    std::iter::once(leaf).chain(rest).map(|certificate| Certificate::from_der(certificate)).collect()
}

/// Accepts any client with an SVID under the live bundles, and clients without a certificate: AttestAgent has to
/// be reachable before there is an SVID. Authorization is the services' matter.
pub(super) struct OptionalSvid {
    pub bundles: LiveBundles,
    pub clock: Arc<dyn Clock>,
    pub algorithms: WebPkiSupportedAlgorithms,
}

impl OptionalSvid {
    pub fn new(bundles: LiveBundles, clock: Arc<dyn Clock>) -> Self {
        Self { bundles, clock, algorithms: provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for OptionalSvid {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain = parse_chain(leaf, rest).map_err(Refusal::Malformed)?;
        verify_svid(&chain, &self.bundles, self.clock.now()).map_err(Refusal::NotAnSvid)?;
        Ok(ClientCertVerified::assertion())
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

impl fmt::Debug for OptionalSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OptionalSvid").field("bundles", &self.bundles).finish_non_exhaustive()
    }
}

/// Accepts the one server ID it was made for.
pub(super) struct ExpectedServer {
    pub id: SpiffeId,
    pub trust: ServerTrust,
    pub clock: Arc<dyn Clock>,
    pub algorithms: WebPkiSupportedAlgorithms,
}

impl ExpectedServer {
    pub fn new(id: SpiffeId, trust: ServerTrust, clock: Arc<dyn Clock>) -> Self {
        Self { id, trust, clock, algorithms: provider().signature_verification_algorithms }
    }

    fn check(&self, chain: &[Certificate]) -> Result<(), Refusal> {
        let found = match &self.trust {
            ServerTrust::Bundles(bundles) => {
                verify_svid(chain, bundles, self.clock.now()).map_err(Refusal::NotAnSvid)?
            }
            ServerTrust::InsecureBootstrap => {
                let leaf = chain.first().ok_or(Refusal::NotAnSvid(VerifyError::EmptyChain))?;
                check_leaf(leaf).map_err(|err| Refusal::NotAnSvid(VerifyError::Leaf(err)))?
            }
        };
        if found == self.id {
            Ok(())
        } else {
            Err(Refusal::UnexpectedId { found, expected: self.id.clone() })
        }
    }
}

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = parse_chain(leaf, rest).map_err(Refusal::Malformed)?;
        self.check(&chain)?;
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

impl fmt::Debug for ExpectedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExpectedServer")
            .field("id", &self.id)
            .field("trust", &self.trust)
            .finish_non_exhaustive()
    }
}
