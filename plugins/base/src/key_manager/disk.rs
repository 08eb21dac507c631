//! SPIRE's `disk` key manager: the server's under `keys_path`, the agent's as `keys.json` in `directory`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use steeple_plugin::{KeyManager, KeyManagerError};
use steeple_spiffe::{KeyType, PublicKey, SignatureAlgorithm};

use super::{Keys, file, generate};

/// The file of an agent's keys in its `directory`.
const AGENT_FILE: &str = "keys.json";

/// Keeps its keys in one file that SPIRE reads and writes too. A key is in the file before it is used.
#[derive(Debug)]
pub struct DiskKeyManager {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    keys: Keys,
    /// One writer of the file at a time.
    writing: Mutex<()>,
}

impl DiskKeyManager {
    /// Reads the keys of `path`; none if there is no such file. An unreadable file is an error, never an empty one:
    /// the next write would lose its keys.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, KeyManagerError> {
        let path = path.into();
        let keys = Keys::default();
        for (id, key) in file::load(&path)? {
            keys.set(&id, Arc::new(key));
        }
        Ok(Self { inner: Arc::new(Inner { path, keys, writing: Mutex::new(()) }) })
    }

    /// An agent's keys.
    pub fn open_directory(directory: &Path) -> Result<Self, KeyManagerError> {
        Self::open(directory.join(AGENT_FILE))
    }
}

impl Inner {
    /// Makes the key, writes all keys, then uses it. Blocks.
    fn add(&self, id: &str, key_type: KeyType) -> Result<PublicKey, KeyManagerError> {
        let key = generate(key_type)?;
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = self.keys.all();
        all.insert(id.to_owned(), Arc::clone(&key));
        file::store(&self.path, &all)?;
        let public_key = key.public_key();
        self.keys.set(id, key);
        Ok(public_key)
    }
}

#[async_trait]
impl KeyManager for DiskKeyManager {
    async fn generate_key(&self, id: &str, key_type: KeyType) -> Result<PublicKey, KeyManagerError> {
        let (inner, id) = (Arc::clone(&self.inner), id.to_owned());
        let added = tokio::task::spawn_blocking(move || inner.add(&id, key_type)).await;
        added.map_err(|error| KeyManagerError::Generate(error.to_string()))?
    }

    async fn public_key(&self, id: &str) -> Result<Option<PublicKey>, KeyManagerError> {
        Ok(self.inner.keys.find(id).map(|key| key.public_key()))
    }

    async fn public_keys(&self) -> Result<Vec<(String, PublicKey)>, KeyManagerError> {
        Ok(self.inner.keys.public_keys())
    }

    async fn sign(
        &self,
        id: &str,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, KeyManagerError> {
        self.inner.keys.sign(id, algorithm, data).await
    }
}
