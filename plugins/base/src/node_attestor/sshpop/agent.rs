//! The agent's side.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest;
use steeple_plugin::{AgentNodeAttestor, AttestError, Attestation};
use zeroize::Zeroizing;

use super::NAME;
use super::certificate::Certificate;
use super::key::blob_of_line;
use super::messages::{Challenge, Payload, Response, Signature};
use super::private_key::PrivateKey;
use crate::node_attestor::bytes::Bytes;
use crate::node_attestor::{ConfigError, nonce};

/// Where a host's key and certificate are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPopAgentConfig {
    pub host_key_path: PathBuf,
    pub host_cert_path: PathBuf,
}

impl Default for SshPopAgentConfig {
    /// Where OpenSSH has them.
    fn default() -> Self {
        Self {
            host_key_path: "/etc/ssh/ssh_host_rsa_key".into(),
            host_cert_path: "/etc/ssh/ssh_host_rsa_key-cert.pub".into(),
        }
    }
}

/// See the [module](super). Key and certificate are read once, at start (SPIRE).
pub struct SshPopAgent {
    held: Arc<Held>,
}

struct Held {
    key: PrivateKey,
    certificate: Certificate,
}

impl SshPopAgent {
    pub fn open(config: &SshPopAgentConfig) -> Result<Self, ConfigError> {
        let key = read("key", &config.host_key_path)?;
        let key = PrivateKey::from_text(&key).map_err(|error| unusable(&config.host_key_path, error))?;
        let line = read("cert", &config.host_cert_path)?;
        let certificate = line
            .lines()
            .find_map(blob_of_line)
            .ok_or("no key found")
            .and_then(|blob| Certificate::from_blob(&blob).map_err(|_| "pubkey isn't a certificate"))
            .map_err(|error| unusable(&config.host_cert_path, error))?;
        if !key.is_of(&certificate.key) {
            let problem = format!("it is not of the key in {}", config.host_key_path.display());
            return Err(unusable(&config.host_cert_path, &problem));
        }
        Ok(Self { held: Arc::new(Held { key, certificate }) })
    }
}

fn read(what: &str, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let read = std::fs::read_to_string(path).map(Zeroizing::new);
    read.map_err(|error| ConfigError(format!("failed to read host {what} file: {}: {error}", path.display())))
}

fn unusable(path: &Path, problem: &str) -> ConfigError {
    ConfigError(format!("failed to get cert and signer from pem: {}: {problem}", path.display()))
}

#[async_trait]
impl AgentNodeAttestor for SshPopAgent {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn begin(&self) -> Result<Box<dyn Attestation>, AttestError> {
        Ok(Box::new(Begun(self.held.clone())))
    }
}

struct Begun(Arc<Held>);

#[async_trait]
impl Attestation for Begun {
    fn payload(&self) -> Vec<u8> {
        let payload = Payload { certificate: Bytes(self.0.certificate.blob().to_vec()) };
        serde_json::to_vec(&payload).unwrap_or_default()
    }

    async fn respond(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        let failed = |what: &str, error: &dyn ToString| {
            AttestError::Internal(format!("{what}: {}", error.to_string()))
        };
        let challenge: Challenge = serde_json::from_slice(&challenge)
            .map_err(|error| failed("failed to unmarshal challenge request", &error))?;
        let nonce = nonce::fresh().map_err(|error| failed("failed to generate nonce", &error))?;
        let both = nonce::both(&challenge.nonce.0, &nonce)
            .ok_or_else(|| failed("failed to combine nonces", &"invalid challenge nonce size"))?;
        let signed = digest::digest(&digest::SHA256, &both);
        let signature =
            self.0.key.sign(signed.as_ref()).map_err(|error| failed("failed to sign data", &error))?;
        let signature = Signature { format: signature.format, blob: Bytes(signature.blob), rest: None };
        serde_json::to_vec(&Response { nonce: Bytes(nonce.to_vec()), signature: Some(signature) })
            .map_err(|error| failed("failed to marshal response", &error))
    }
}
