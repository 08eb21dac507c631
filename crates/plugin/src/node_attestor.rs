//! How an agent proves which node it is.

use async_trait::async_trait;
use steeple_spiffe::SpiffeId;
use tokio::sync::mpsc;

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

/// Server side: reads the payload, may challenge any number of times.
#[async_trait]
pub trait ServerNodeAttestor: Send + Sync + 'static {
    fn name(&self) -> &str;
    /// `challenges` carries challenges to the agent, `responses` its answers.
    async fn attest(
        &self,
        payload: Vec<u8>,
        challenges: mpsc::Sender<Vec<u8>>,
        responses: mpsc::Receiver<Vec<u8>>,
    ) -> Result<AgentAttributes, AttestError>;
}

/// Agent side.
#[async_trait]
pub trait AgentNodeAttestor: Send + Sync + 'static {
    fn name(&self) -> &str;
    async fn payload(&self) -> Result<Vec<u8>, AttestError>;
    /// Answers one challenge. join_token has none and refuses.
    async fn respond(&self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError>;
}
