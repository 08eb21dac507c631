use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use steeple_plugin::{KeyManager, KeyManagerError};
use steeple_spiffe::{KeyType, PrivateKey, PublicKey, SignatureAlgorithm};

use super::{Faults, Outcome};

#[derive(Default)]
pub struct FakeKeys {
    pub faults: Arc<Faults>,
    keys: Mutex<BTreeMap<String, PrivateKey>>,
}

impl FakeKeys {
    pub fn new(faults: Arc<Faults>) -> Self {
        Self { faults, keys: Mutex::default() }
    }

    pub fn add(&self, id: &str, key: PrivateKey) {
        self.keys.lock().unwrap().insert(id.to_owned(), key);
    }
}

#[async_trait]
impl KeyManager for FakeKeys {
    async fn generate_key(&self, id: &str, key_type: KeyType) -> Result<PublicKey, KeyManagerError> {
        let failed = || KeyManagerError::Generate("crashed".to_owned());
        let outcome = self.faults.effect();
        if outcome == Outcome::Fails {
            return Err(failed());
        }
        let key = PrivateKey::generate(key_type).unwrap();
        let public_key = key.public_key();
        self.add(id, key);
        if outcome == Outcome::Works { Ok(public_key) } else { Err(failed()) }
    }

    async fn public_key(&self, id: &str) -> Result<Option<PublicKey>, KeyManagerError> {
        Ok(self.keys.lock().unwrap().get(id).map(PrivateKey::public_key))
    }

    async fn public_keys(&self) -> Result<Vec<(String, PublicKey)>, KeyManagerError> {
        Ok(self.keys.lock().unwrap().iter().map(|(id, key)| (id.clone(), key.public_key())).collect())
    }

    async fn sign(
        &self,
        id: &str,
        algorithm: SignatureAlgorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, KeyManagerError> {
        let keys = self.keys.lock().unwrap();
        let key = keys.get(id).ok_or_else(|| KeyManagerError::NoSuchKey(id.to_owned()))?;
        key.sign(algorithm, data).map_err(|error| KeyManagerError::Sign(error.to_string()))
    }
}
