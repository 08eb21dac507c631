//! The agent's keys, two ids used in turn, always EC P-256 (SPIRE).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use rustls::pki_types::CertificateDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use steeple_agent_core::node;
use steeple_plugin::{KeyManager, KeyManagerError};
use steeple_runtime::metrics::CallCounter;
use steeple_runtime::tls::LiveIdentity;
use steeple_spiffe::x509::{self, DistinguishedName};
use steeple_spiffe::{Certificate, KeyType, PublicKey};

use tonic::Code;

use super::IdentityError;

/// SPIRE's patience with a key manager.
const KEY_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct AgentKeys(pub Arc<dyn KeyManager>);

impl AgentKeys {
    /// Those that are the agent's.
    pub async fn all(&self) -> Result<Vec<(String, PublicKey)>, KeyManagerError> {
        let call = CallCounter::start(&["agent_key_manager", "get_keys"]);
        let keys = in_time(self.0.public_keys()).await;
        call.done(if keys.is_ok() { Code::Ok } else { Code::Unknown });
        let mut keys = keys?;
        keys.retain(|(id, _)| node::KEY_IDS.contains(&id.as_str()));
        Ok(keys)
    }

    /// Makes the next key and a request for it. The subject is ignored by servers; it names nobody.
    pub async fn next_csr(&self, current: Option<&str>) -> Result<(String, Vec<u8>), KeyManagerError> {
        let id = node::next_key_id(current);
        let call = CallCounter::start(&["agent_key_manager", "generate_key"]);
        let public_key = in_time(self.0.generate_key(id, KeyType::EcP256)).await;
        call.done(if public_key.is_ok() { Code::Ok } else { Code::Unknown });
        let public_key = public_key?;
        let algorithm = KeyType::EcP256.x509_signature_algorithm();
        let tbs = x509::csr_tbs(&DistinguishedName::default_svid(), &public_key, &[], &[]);
        let signature = in_time(self.0.sign(id, algorithm, &tbs)).await?;
        Ok((id.to_owned(), x509::assemble(&tbs, algorithm, &signature)))
    }

    /// Has every key replaced by one that was never certified: what there was is gone, wherever it lives.
    pub async fn destroy(&self) -> Result<(), KeyManagerError> {
        for (id, _) in self.all().await? {
            in_time(self.0.generate_key(&id, KeyType::EcP256)).await?;
        }
        Ok(())
    }

    /// Shows `chain` on new connections, signing with the key of `id` wherever that lives.
    pub async fn present(
        &self,
        identity: &LiveIdentity,
        chain: &[Certificate],
        id: &str,
    ) -> Result<(), IdentityError> {
        let leaf = chain.first().ok_or_else(|| IdentityError::Svid("empty SVID cert chain".into()))?;
        let key = in_time(self.0.public_key(id)).await?;
        if key.as_ref() != Some(&leaf.public_key()) {
            return Err(IdentityError::Svid("the server issued an SVID for another key than ours".into()));
        }
        let chain =
            chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
        let key = KeptKey { keys: self.0.clone(), id: id.into() };
        identity
            .set_signer(chain, Arc::new(key))
            .map_err(|error| IdentityError::Svid(format!("the agent's SVID cannot be used for TLS: {error}")))
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, KeyManagerError>>) -> Result<T, KeyManagerError> {
    tokio::time::timeout(KEY_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(KeyManagerError::Sign("the key manager did not answer in 30 s".into())))
}

/// A key manager's key, for rustls.
#[derive(Clone)]
struct KeptKey {
    keys: Arc<dyn KeyManager>,
    id: Arc<str>,
}

impl fmt::Debug for KeptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptKey").field("id", &self.id).finish_non_exhaustive()
    }
}

impl SigningKey for KeptKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&SignatureScheme::ECDSA_NISTP256_SHA256)
            .then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for KeptKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let algorithm = KeyType::EcP256.x509_signature_algorithm();
        let mut signing = self.keys.sign(&self.id, algorithm, message);
        // rustls cannot wait. Keys in this process answer at once; for one elsewhere (KMS, HSM) this thread waits, at
        // one handshake every few minutes.
        let signed = match signing.as_mut().now_or_never() {
            Some(signed) => signed,
            None => {
                tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(in_time(signing)))
            }
        };
        signed.map_err(|error| rustls::Error::General(format!("signing with the agent's key: {error}")))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}
