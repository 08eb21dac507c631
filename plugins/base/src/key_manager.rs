//! Keys in this process: kept in a file ([`DiskKeyManager`]) or forgotten at the end ([`MemoryKeyManager`]).

mod disk;
mod file;
mod memory;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use steeple_plugin::KeyManagerError;
use steeple_spiffe::{KeyType, PrivateKey, PublicKey, SignatureAlgorithm};

pub use disk::DiskKeyManager;
pub use memory::MemoryKeyManager;

/// The keys by id.
#[derive(Debug, Default)]
struct Keys(RwLock<BTreeMap<String, Arc<PrivateKey>>>);

impl Keys {
    fn all(&self) -> BTreeMap<String, Arc<PrivateKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, id: &str, key: Arc<PrivateKey>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), key);
    }

    fn find(&self, id: &str) -> Option<Arc<PrivateKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    fn public_keys(&self) -> Vec<(String, PublicKey)> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|(id, key)| (id.clone(), key.public_key())).collect()
    }

    async fn sign(
        &self,
        id: &str,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, KeyManagerError> {
        let key = self.find(id).ok_or_else(|| KeyManagerError::NoSuchKey(id.to_owned()))?;
        let failed = |error: steeple_spiffe::KeyError| KeyManagerError::Sign(error.to_string());
        match key.key_type() {
            KeyType::EcP256 | KeyType::EcP384 => key.sign(algorithm, data).map_err(failed),
            // Milliseconds: off the async threads.
            KeyType::Rsa2048 | KeyType::Rsa4096 => {
                let data = data.to_vec();
                let signed = tokio::task::spawn_blocking(move || key.sign(algorithm, &data)).await;
                signed.map_err(|error| KeyManagerError::Sign(error.to_string()))?.map_err(failed)
            }
        }
    }
}

/// A new key. RSA takes up to seconds: callers are off the async threads.
fn generate(key_type: KeyType) -> Result<Arc<PrivateKey>, KeyManagerError> {
    PrivateKey::generate(key_type).map(Arc::new).map_err(|error| KeyManagerError::Generate(error.to_string()))
}

#[cfg(test)]
mod tests;
