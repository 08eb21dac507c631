//! The agent's side. The files are read for each attestation: certificates are renewed while an agent runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA256_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RSA_PSS_SHA256, RsaKeyPair,
};
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use steeple_plugin::{AgentNodeAttestor, AttestError, Attestation};
use steeple_proto::workload::X509svidRequest;
use steeple_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use steeple_spiffe::Certificate;
use steeple_spiffe::endpoint::Endpoint;
use zeroize::Zeroizing;

use super::NAME;
use super::wire::{Challenge, EcdsaSignature, Payload, Response, RsaSignature};
use crate::node_attestor::bytes::Bytes;
use crate::node_attestor::{ConfigError, ecdsa, nonce};

/// Where certificate and key come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum X509PopAgentConfig {
    Files {
        private_key: PathBuf,
        certificate: PathBuf,
        intermediates: Option<PathBuf>,
    },
    /// The SVID of another Workload API, as it is when the agent attests.
    WorkloadApi(Endpoint),
}

impl X509PopAgentConfig {
    /// From the plugin's options; empty strings are unset.
    pub fn new(
        private_key_path: &str,
        certificate_path: &str,
        intermediates_path: &str,
        spiffe_endpoint_socket: &str,
    ) -> Result<Self, ConfigError> {
        if !spiffe_endpoint_socket.is_empty() {
            let endpoint = spiffe_endpoint_socket.parse();
            return endpoint
                .map(Self::WorkloadApi)
                .map_err(|error| ConfigError(format!("spiffe_endpoint_socket: {error}")));
        }
        if private_key_path.is_empty() {
            return ConfigError::of("private_key_path is required");
        }
        if certificate_path.is_empty() {
            return ConfigError::of("certificate_path is required");
        }
        let intermediates = intermediates_path.trim();
        Ok(Self::Files {
            private_key: private_key_path.into(),
            certificate: certificate_path.into(),
            intermediates: (!intermediates.is_empty()).then(|| intermediates.into()),
        })
    }
}

/// See the [module](super).
#[derive(Debug)]
pub struct X509PopAgent {
    config: X509PopAgentConfig,
}

impl X509PopAgent {
    /// Reads the files once, so that a mistake is found at start (SPIRE).
    pub fn open(config: X509PopAgentConfig) -> Result<Self, AttestError> {
        if let X509PopAgentConfig::Files { .. } = config {
            from_files(&config)?;
        }
        Ok(Self { config })
    }
}

#[async_trait]
impl AgentNodeAttestor for X509PopAgent {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn begin(&self) -> Result<Box<dyn Attestation>, AttestError> {
        let begun = match &self.config {
            X509PopAgentConfig::WorkloadApi(endpoint) => {
                let fetched = tokio::time::timeout(FETCH_TIMEOUT, from_workload_api(endpoint)).await;
                let fetched = fetched.unwrap_or_else(|_| Err("no answer in time".to_owned()));
                fetched.map_err(|error| {
                    AttestError::Unavailable(format!("unable to fetch SVID from workload API: {error}"))
                })?
            }
            X509PopAgentConfig::Files { .. } => {
                let config = self.config.clone();
                let read = tokio::task::spawn_blocking(move || from_files(&config)).await;
                read.map_err(|error| AttestError::Internal(error.to_string()))??
            }
        };
        Ok(Box::new(begun))
    }
}

/// The SVID may have to be issued first.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// One attestation: the chain and its key.
struct Begun {
    chain: Vec<Certificate>,
    key: Key,
}

#[async_trait]
impl Attestation for Begun {
    fn payload(&self) -> Vec<u8> {
        let certificates = self.chain.iter().map(|certificate| Bytes(certificate.der().to_vec())).collect();
        serde_json::to_vec(&Payload { certificates }).unwrap_or_default()
    }

    async fn respond(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        let challenge: Challenge = serde_json::from_slice(&challenge)
            .map_err(|error| AttestError::Internal(format!("unable to unmarshal challenge: {error}")))?;
        let failed =
            |error: &str| AttestError::Internal(format!("failed to calculate challenge response: {error}"));
        let response = self.key.response(&challenge).map_err(failed)?;
        serde_json::to_vec(&response).map_err(|error| failed(&error.to_string()))
    }
}

fn from_files(config: &X509PopAgentConfig) -> Result<Begun, AttestError> {
    let X509PopAgentConfig::Files { private_key, certificate, intermediates } = config else {
        return Err(AttestError::Internal("no files are configured".to_owned()));
    };
    let refused =
        |what: &str, error: String| AttestError::InvalidArgument(format!("unable to load {what}: {error}"));
    let mut chain = certificates(certificate).map_err(|error| refused("keypair", error))?;
    let key = Key::read(private_key).map_err(|error| refused("keypair", error))?;
    if !chain.first().is_some_and(|leaf| key.is_of(leaf)) {
        let problem = format!("{} is not the key of {}", private_key.display(), certificate.display());
        return Err(refused("keypair", problem));
    }
    if let Some(path) = intermediates {
        chain.extend(certificates(path).map_err(|error| refused("intermediate certificates", error))?);
    }
    Ok(Begun { chain, key })
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, String> {
    let named = |error: &dyn ToString| format!("{}: {}", path.display(), error.to_string());
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    Certificate::from_pem(&text).map_err(|error| named(&error))
}

async fn from_workload_api(endpoint: &Endpoint) -> Result<Begun, String> {
    let uri = match endpoint {
        Endpoint::Tcp(address) => format!("http://{address}"),
        Endpoint::Unix(_) => "http://localhost".to_owned(),
    };
    let dial = tonic::transport::Endpoint::try_from(uri).map_err(|error| error.to_string())?;
    let channel = match endpoint {
        Endpoint::Tcp(_) => dial.connect().await,
        Endpoint::Unix(path) => {
            let path = path.clone();
            dial.connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
        }
    };
    let channel = channel.map_err(|error| format!("{endpoint}: {error}"))?;
    let mut request = tonic::Request::new(X509svidRequest {});
    request.metadata_mut().insert("workload.spiffe.io", tonic::metadata::MetadataValue::from_static("true"));
    let answers = SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await;
    let mut answers = answers.map_err(|status| status.to_string())?.into_inner();
    let answer = answers.message().await.map_err(|status| status.to_string())?;
    let svid = answer.and_then(|answer| answer.svids.into_iter().next()).ok_or("no SVID")?;
    let key = Zeroizing::new(svid.x509_svid_key);
    let chain = Certificate::many_from_der(&svid.x509_svid).map_err(|error| error.to_string())?;
    let key = Key::from_der(&PrivateKeyDer::Pkcs8(key.as_slice().into()))?;
    if !chain.first().is_some_and(|leaf| key.is_of(leaf)) {
        return Err("the key of the SVID is not its certificate's".to_owned());
    }
    Ok(Begun { chain, key })
}

/// The key of the certificate. Other sizes and curves than SPIRE's own keys have are in use in foreign PKIs.
enum Key {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    P521(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Key {
    fn read(path: &Path) -> Result<Self, String> {
        let named = |error: &dyn ToString| format!("{}: {}", path.display(), error.to_string());
        let text = Zeroizing::new(std::fs::read(path).map_err(|error| named(&error))?);
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|_| named(&"no private key in PEM"))?;
        Self::from_der(&key).map_err(|error| named(&error))
    }

    fn from_der(der: &PrivateKeyDer<'_>) -> Result<Self, String> {
        let bytes = der.secret_der();
        let ec =
            |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::from_private_key_der(algorithm, bytes);
        let rsa = || match der {
            PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes),
            _ => RsaKeyPair::from_pkcs8(bytes),
        };
        ec(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(Self::P256)
            .or_else(|_| ec(&ECDSA_P384_SHA384_ASN1_SIGNING).map(Self::P384))
            .or_else(|_| ec(&ECDSA_P521_SHA256_ASN1_SIGNING).map(Self::P521))
            .or_else(|_| rsa().map(Self::Rsa))
            .map_err(|_| {
                "the private key is neither EC (P-256, P-384, P-521) nor RSA of 2048 to 8192 bits".to_owned()
            })
    }

    /// The subjectPublicKey is the last field of a SubjectPublicKeyInfo.
    fn is_of(&self, leaf: &Certificate) -> bool {
        let public = match self {
            Self::P256(pair) | Self::P384(pair) | Self::P521(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        };
        leaf.public_key().spki_der().ends_with(public)
    }

    fn response(&self, challenge: &Challenge) -> Result<Response, &'static str> {
        const FAILED: &str = "signing failed in the crypto library";
        let nonce = nonce::fresh()?;
        let signed = |challenge: &Bytes| nonce::both(&challenge.0, &nonce).ok_or("invalid challenge nonce");
        if let Self::Rsa(pair) = self {
            let challenge = challenge.rsa_signature.as_ref().ok_or("expecting RSA challenge")?;
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), &signed(&challenge.nonce)?, &mut signature)
                .map_err(|_| FAILED)?;
            let signature = RsaSignature { nonce: Bytes(nonce.to_vec()), signature: Bytes(signature) };
            return Ok(Response { rsa_signature: Some(signature), ecdsa_signature: None });
        }
        let challenge = challenge.ecdsa_signature.as_ref().ok_or("expecting ECDSA challenge")?;
        let signed = signed(&challenge.nonce)?;
        let signature = match self {
            Self::P384(pair) => pair.sign_digest(&sha256_for_p384(&signed).ok_or(FAILED)?),
            Self::P256(pair) | Self::P521(pair) => pair.sign(&SystemRandom::new(), &signed),
            Self::Rsa(_) => return Err(FAILED),
        };
        let signature = signature.map_err(|_| FAILED)?;
        let (r, s) = ecdsa::from_der(signature.as_ref()).ok_or(FAILED)?;
        let signature =
            EcdsaSignature { nonce: Bytes(nonce.to_vec()), r: Bytes(r.to_vec()), s: Bytes(s.to_vec()) };
        Ok(Response { rsa_signature: None, ecdsa_signature: Some(signature) })
    }
}

/// The protocol signs SHA-256 on every curve; the library signs with P-384 what is as long as SHA-384. To ECDSA a hash
/// is a number of at most 384 bits here, and zeros in front do not change it (FIPS 186-5 §6.4.1).
fn sha256_for_p384(signed: &[u8]) -> Option<Digest> {
    let mut padded = [0; digest::SHA384_OUTPUT_LEN];
    padded[digest::SHA384_OUTPUT_LEN - digest::SHA256_OUTPUT_LEN..]
        .copy_from_slice(digest::digest(&digest::SHA256, signed).as_ref());
    Digest::import_less_safe(&padded, &digest::SHA384).ok()
}
