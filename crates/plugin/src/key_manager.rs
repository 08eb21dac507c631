//! Where private keys live. A key may be in this process, a KMS or an HSM: signing is async.

use async_trait::async_trait;
use steeple_spiffe::{KeyType, PublicKey, SignatureAlgorithm};

/// Keys by id (`x509-CA-A`, `agent-svid-B`, …). Generating under an existing id replaces the key.
#[async_trait]
pub trait KeyManager: Send + Sync + 'static {
    async fn generate_key(&self, id: &str, key_type: KeyType) -> Result<PublicKey, KeyManagerError>;
    async fn public_key(&self, id: &str) -> Result<Option<PublicKey>, KeyManagerError>;
    async fn public_keys(&self) -> Result<Vec<(String, PublicKey)>, KeyManagerError>;
    /// Signs `data` (hashing included). ECDSA signatures are ASN.1 DER.
    async fn sign(
        &self,
        id: &str,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, KeyManagerError>;
}

/// What can go wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyManagerError {
    #[error("no such key {0:?}")]
    NoSuchKey(String),
    #[error("key type {0} is not supported")]
    UnsupportedKeyType(KeyType),
    #[error("keys could not be loaded from {path}: {reason}")]
    Load { path: String, reason: String },
    #[error("keys could not be stored in {path}: {reason}")]
    Store { path: String, reason: String },
    #[error("signing failed: {0}")]
    Sign(String),
    #[error("key generation failed: {0}")]
    Generate(String),
}
