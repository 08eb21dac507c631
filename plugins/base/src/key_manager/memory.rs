//! SPIRE's `memory` key manager.

use std::sync::Arc;

use async_trait::async_trait;
use steeple_plugin::{KeyManager, KeyManagerError};
use steeple_spiffe::{KeyType, PublicKey, SignatureAlgorithm};

use super::{Keys, generate};

/// Forgets its keys at the end of the process.
#[derive(Debug, Default)]
pub struct MemoryKeyManager {
    keys: Arc<Keys>,
}

impl MemoryKeyManager {
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl KeyManager for MemoryKeyManager {
    async fn generate_key(&self, id: &str, key_type: KeyType) -> Result<PublicKey, KeyManagerError> {
        let made = tokio::task::spawn_blocking(move || generate(key_type)).await;
        let key = made.map_err(|error| KeyManagerError::Generate(error.to_string()))??;
        let public_key = key.public_key();
        self.keys.set(id, key);
        Ok(public_key)
    }

    async fn public_key(&self, id: &str) -> Result<Option<PublicKey>, KeyManagerError> {
        Ok(self.keys.find(id).map(|key| key.public_key()))
    }

    async fn public_keys(&self) -> Result<Vec<(String, PublicKey)>, KeyManagerError> {
        Ok(self.keys.public_keys())
    }

    async fn sign(
        &self,
        id: &str,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, KeyManagerError> {
        self.keys.sign(id, algorithm, data).await
    }
}
