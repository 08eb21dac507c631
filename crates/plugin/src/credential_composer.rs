//! Last word on what goes into credentials (SPIRE's plugin type CredentialComposer).

use async_trait::async_trait;
use steeple_spiffe::x509::DistinguishedName;
use steeple_spiffe::{PublicKey, SpiffeId};

/// What a composer may change of a workload's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509SvidAttributes {
    pub subject: DistinguishedName,
    pub dns_names: Vec<String>,
}

/// Composers are asked one after the other. A method that is not overridden leaves everything as it is.
#[async_trait]
pub trait CredentialComposer: Send + Sync + 'static {
    fn name(&self) -> &str;

    /// For each workload's X.509-SVID, not for those of agents and the server.
    async fn compose_workload_x509_svid(
        &self,
        _id: &SpiffeId,
        _public_key: &PublicKey,
        attributes: X509SvidAttributes,
    ) -> Result<X509SvidAttributes, ComposeError> {
        Ok(attributes)
    }
}

/// A composer refused.
#[derive(Debug, thiserror::Error)]
#[error("credential composer {plugin:?} failed: {reason}")]
pub struct ComposeError {
    pub plugin: String,
    pub reason: String,
}
