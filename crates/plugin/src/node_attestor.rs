//! How an agent proves which node it is.

use std::fmt;
use std::net::IpAddr;

use async_trait::async_trait;
use steeple_spiffe::{Certificate, SpiffeId};

/// What a server-side attestor found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAttributes {
    pub spiffe_id: SpiffeId,
    /// Selector values; the type is the plugin's name.
    pub selector_values: Vec<String>,
    pub can_reattest: bool,
}

/// Why attestation failed, as a status the server answers with.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    PermissionDenied(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Internal(String),
}

/// What an agent begins with. Anybody may have sent it.
pub struct Evidence {
    pub payload: Vec<u8>,
    /// The address the agent's connection comes from; none on the Unix socket.
    pub client_ip: Option<IpAddr>,
}

/// Payloads may be secrets.
impl fmt::Debug for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Evidence({} bytes, redacted, from {:?})", self.payload.len(), self.client_ip)
    }
}

/// The agent at the other end of an attestation.
#[async_trait]
pub trait Challenged: Send {
    /// Sends a challenge and waits for the answer, with a deadline.
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError>;
}

/// Server side: reads the payload, may challenge a few times.
#[async_trait]
pub trait ServerNodeAttestor: Send + Sync + 'static {
    fn name(&self) -> &str;
    async fn attest(
        &self,
        evidence: Evidence,
        agent: &mut dyn Challenged,
    ) -> Result<AgentAttributes, AttestError>;
}

/// What attestors may ask the server they run in (SPIRE's host services AgentStore and IdentityProvider).
#[async_trait]
pub trait AttestorHost: Send + Sync + 'static {
    /// Whether an agent of this ID has attested before, banned ones included.
    async fn is_attested(&self, agent: &SpiffeId) -> Result<bool, AttestError>;
    /// The X.509 authorities of the server's own trust domain.
    async fn x509_authorities(&self) -> Result<Vec<Certificate>, AttestError>;
}

/// Agent side.
#[async_trait]
pub trait AgentNodeAttestor: Send + Sync + 'static {
    fn name(&self) -> &str;
    /// Begins one attestation, with the proofs as they are now.
    async fn begin(&self) -> Result<Box<dyn Attestation>, AttestError>;
}

/// One attestation on the agent's side. It ends, with whatever it has open, when it is dropped.
#[async_trait]
pub trait Attestation: Send + Sync {
    /// What goes to the server first; never empty.
    fn payload(&self) -> Vec<u8>;
    /// Answers one challenge; the answer is never empty.
    async fn respond(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError>;
}
