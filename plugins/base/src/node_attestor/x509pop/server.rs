//! The server's side.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::signature::{RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPssSaltLength, UnparsedPublicKey};
use steeple_plugin::{AgentAttributes, AttestError, AttestorHost, Challenged, Evidence, ServerNodeAttestor};
use steeple_runtime::clock::Clock;
use steeple_spiffe::x509::{VerifyError, verify_chains};
use steeple_spiffe::{Certificate, SignatureAlgorithm, SpiffeId, TrustDomain};

use super::wire::{Challenge, NonceOnly, Payload, Response};
use super::{NAME, fields};
use crate::agent_path::AgentPathTemplate;
use crate::node_attestor::bytes::Bytes;
use crate::node_attestor::{ConfigError, ecdsa, nonce};

/// The plugin's options as the file has them.
#[derive(Clone, Debug, Default)]
pub struct X509PopOptions {
    pub mode: Option<String>,
    /// `svid_prefix` or `spiffe_prefix`.
    pub svid_prefix: Option<String>,
    pub ca_bundle_path: Option<String>,
    pub ca_bundle_paths: Vec<String>,
    pub agent_path_template: Option<String>,
    pub max_intermediates: Option<i64>,
    pub max_rsa_key_size: Option<i64>,
    pub verify_client_ip: bool,
}

/// Checked options, with the CA certificates as they were when the configuration was read (SPIRE reads them then, too).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct X509PopConfig {
    mode: Mode,
    template: AgentPathTemplate,
    max_intermediates: usize,
    max_rsa_bits: usize,
    verify_client_ip: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Mode {
    ExternalPki {
        roots: Vec<Certificate>,
    },
    /// SVIDs of the own trust domain are exchanged for agent IDs.
    Spiffe {
        prefix: String,
    },
}

impl X509PopConfig {
    /// Checks the options and reads the CA files.
    pub fn load(options: &X509PopOptions) -> Result<Self, ConfigError> {
        let mode = match options.mode.as_deref().unwrap_or("external_pki") {
            "external_pki" => Mode::ExternalPki { roots: roots(options)? },
            "spiffe" => {
                if options.ca_bundle_path.is_some() || !options.ca_bundle_paths.is_empty() {
                    return ConfigError::of(
                        "you can not use ca_bundle_path or ca_bundle_paths in spiffe mode",
                    );
                }
                let mut prefix = options.svid_prefix.clone().unwrap_or_else(|| "/spire-exchange/".to_owned());
                if !prefix.ends_with('/') {
                    prefix.push('/');
                }
                Mode::Spiffe { prefix }
            }
            _ => return ConfigError::of("mode can only be either spiffe or external_pki"),
        };
        let default = match mode {
            Mode::ExternalPki { .. } => "/{{ .PluginName }}/{{ .Fingerprint }}",
            Mode::Spiffe { .. } => "/{{ .PluginName }}/{{ .SVIDPathTrimmed }}",
        };
        let template = options.agent_path_template.as_deref().unwrap_or(default);
        let template = AgentPathTemplate::parse(template, &fields::example()).map_err(|error| {
            ConfigError(format!("failed to parse agent svid template: {template:?}: {error}"))
        })?;
        Ok(Self {
            mode,
            template,
            max_intermediates: positive("max_intermediates", options.max_intermediates, 4)?,
            max_rsa_bits: positive("max_rsa_key_size", options.max_rsa_key_size, 8192)?,
            verify_client_ip: options.verify_client_ip,
        })
    }
}

fn positive(option: &str, value: Option<i64>, default: usize) -> Result<usize, ConfigError> {
    match value.map(usize::try_from) {
        None => Ok(default),
        Some(Ok(value)) if value > 0 => Ok(value),
        Some(_) => ConfigError::of(format!("{option} must be greater than 0")),
    }
}

fn roots(options: &X509PopOptions) -> Result<Vec<Certificate>, ConfigError> {
    let paths: Vec<&String> = match (&options.ca_bundle_path, options.ca_bundle_paths.as_slice()) {
        (Some(_), [_, ..]) => {
            return ConfigError::of(
                "only one of ca_bundle_path or ca_bundle_paths can be configured, not both",
            );
        }
        (Some(path), []) => vec![path],
        (None, []) => return ConfigError::of("one of ca_bundle_path or ca_bundle_paths must be configured"),
        (None, paths) => paths.iter().collect(),
    };
    let mut roots = Vec::new();
    for path in paths {
        let read = std::fs::read_to_string(PathBuf::from(path)).map_err(|error| error.to_string());
        let read = read.and_then(|text| Certificate::from_pem(&text).map_err(|error| error.to_string()));
        roots.extend(
            read.map_err(|error| ConfigError(format!("unable to load trust bundle {path:?}: {error}")))?,
        );
    }
    Ok(roots)
}

/// See the [module](super).
pub struct X509Pop {
    config: X509PopConfig,
    trust_domain: TrustDomain,
    host: Arc<dyn AttestorHost>,
    clock: Arc<dyn Clock>,
}

impl X509Pop {
    pub fn new(
        config: X509PopConfig,
        trust_domain: TrustDomain,
        host: Arc<dyn AttestorHost>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { config, trust_domain, host, clock }
    }

    /// The chain as sent. Nothing is verified before its size is known to be bearable.
    fn read(&self, payload: &[u8]) -> Result<(Certificate, Vec<Certificate>), AttestError> {
        let refused = AttestError::InvalidArgument;
        let payload: Payload = serde_json::from_slice(payload)
            .map_err(|error| refused(format!("failed to unmarshal data: {error}")))?;
        let Some((leaf, intermediates)) = payload.certificates.split_first() else {
            return Err(refused("no certificate to attest".to_owned()));
        };
        if intermediates.len() > self.config.max_intermediates {
            return Err(refused("too many intermediate certificates".to_owned()));
        }
        let bearable = |certificate: &Certificate| {
            certificate.public_key().rsa_bits().is_none_or(|bits| bits <= self.config.max_rsa_bits)
        };
        let leaf = Certificate::from_der(&leaf.0)
            .map_err(|error| refused(format!("unable to parse leaf certificate: {error}")))?;
        if !bearable(&leaf) {
            return Err(refused("leaf certificate key size too large".to_owned()));
        }
        let mut out = Vec::with_capacity(intermediates.len());
        for (i, der) in intermediates.iter().enumerate() {
            let certificate = Certificate::from_der(&der.0)
                .map_err(|error| refused(format!("unable to parse intermediate certificate {i}: {error}")))?;
            if !bearable(&certificate) {
                return Err(refused(format!("intermediate certificate {i} key size too large")));
            }
            out.push(certificate);
        }
        Ok((leaf, out))
    }

    async fn verify(
        &self,
        leaf: &Certificate,
        intermediates: &[Certificate],
    ) -> Result<Vec<Vec<Certificate>>, AttestError> {
        let own;
        let roots = match &self.config.mode {
            Mode::ExternalPki { roots } => roots,
            Mode::Spiffe { .. } => {
                own =
                    self.host.x509_authorities().await.map_err(|error| {
                        AttestError::Internal(format!("failed to get trust bundle: {error}"))
                    })?;
                &own
            }
        };
        verify_chains(leaf, intermediates, roots, self.clock.now()).map_err(|error| {
            // The causes in the words of Go's crypto/x509.
            let cause = match error {
                VerifyError::NoAuthority(_) => "certificate signed by unknown authority".to_owned(),
                VerifyError::NotValidNow(why) => {
                    format!("certificate has expired or is not yet valid: {why}")
                }
                VerifyError::Path(why) => why,
                other => other.to_string(),
            };
            AttestError::PermissionDenied(format!("certificate verification failed: x509: {cause}"))
        })
    }

    fn check_address(&self, leaf: &Certificate, client_ip: Option<IpAddr>) -> Result<(), AttestError> {
        if !self.config.verify_client_ip {
            return Ok(());
        }
        let client_ip = client_ip
            .ok_or_else(|| AttestError::Internal("client IP not available for verification".to_owned()))?;
        if leaf.ip_sans().iter().any(|ip| ip.to_canonical() == client_ip) {
            return Ok(());
        }
        Err(AttestError::PermissionDenied(format!(
            "client IP {client_ip} does not match any certificate IP SAN"
        )))
    }

    /// The path of the exchanged SVID behind the prefix; empty in the other mode.
    fn svid_path(&self, leaf: &Certificate) -> Result<String, AttestError> {
        let Mode::Spiffe { prefix } = &self.config.mode else { return Ok(String::new()) };
        let denied = |text: &str| Err(AttestError::PermissionDenied(text.to_owned()));
        // One ID, and of this trust domain: SPIRE takes the first of any (authorities may be shared, X509-SVID §2).
        let Ok(id) = leaf.spiffe_id() else { return denied("valid SVID x509 cert not found") };
        if !id.is_member_of(&self.trust_domain) {
            return denied("valid SVID x509 cert not found");
        }
        match id.path().strip_prefix(prefix.as_str()) {
            Some(path) => Ok(path.to_owned()),
            None => denied("x509 cert doesnt match SVID prefix"),
        }
    }

    fn agent_id(
        &self,
        leaf: &Certificate,
        svid_path: &str,
        san_selectors: &BTreeMap<String, String>,
    ) -> Result<SpiffeId, AttestError> {
        let known = fields::Known {
            trust_domain: self.trust_domain.name(),
            svid_path,
            san_selectors: san_selectors.clone(),
        };
        let data = fields::data(leaf, known);
        let id = self.config.template.agent_id(&self.trust_domain, &data);
        id.map_err(|error| AttestError::Internal(format!("failed to make spiffe id: {error}")))
    }
}

#[async_trait]
impl ServerNodeAttestor for X509Pop {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn attest(
        &self,
        evidence: Evidence,
        agent: &mut dyn Challenged,
    ) -> Result<AgentAttributes, AttestError> {
        let (leaf, intermediates) = self.read(&evidence.payload)?;
        let chains = self.verify(&leaf, &intermediates).await?;
        self.check_address(&leaf, evidence.client_ip)?;
        let proof = Proof::of(&leaf)
            .map_err(|error| AttestError::Internal(format!("unable to generate challenge: {error}")))?;
        let answer = agent.challenge(proof.challenge()).await?;
        let answer: Response = serde_json::from_slice(&answer).map_err(|error| {
            AttestError::InvalidArgument(format!("unable to unmarshal challenge response: {error}"))
        })?;
        proof.verify(&answer).map_err(|error| {
            AttestError::PermissionDenied(format!("challenge response verification failed: {error}"))
        })?;
        let svid_path = self.svid_path(&leaf)?;
        let san_selectors = san_selectors(&leaf, &self.trust_domain);
        Ok(AgentAttributes {
            spiffe_id: self.agent_id(&leaf, &svid_path, &san_selectors)?,
            selector_values: selectors(&leaf, &chains, &san_selectors),
            can_reattest: true,
        })
    }
}

/// One question for the possession of a key. The nonce is this attestation's own, so no answer is good twice.
struct Proof<'a> {
    leaf: &'a Certificate,
    nonce: [u8; nonce::LEN],
}

impl<'a> Proof<'a> {
    fn of(leaf: &'a Certificate) -> Result<Self, String> {
        if !leaf.key_usage().is_some_and(steeple_spiffe::x509::KeyUsage::digital_signature) {
            return Err("certificate not intended for digital signature use".to_owned());
        }
        let key = leaf.public_key();
        if !key.is_ec() && key.rsa_bits().is_none() {
            return Err("unsupported public key type".to_owned());
        }
        Ok(Self { leaf, nonce: nonce::fresh()? })
    }

    fn challenge(&self) -> Vec<u8> {
        let nonce = Some(NonceOnly { nonce: Bytes(self.nonce.to_vec()) });
        let challenge = if self.leaf.public_key().is_ec() {
            Challenge { rsa_signature: None, ecdsa_signature: nonce }
        } else {
            Challenge { rsa_signature: nonce, ecdsa_signature: None }
        };
        serde_json::to_vec(&challenge).unwrap_or_default()
    }

    fn verify(&self, answer: &Response) -> Result<(), &'static str> {
        let key = self.leaf.public_key();
        if key.is_ec() {
            let answer = answer.ecdsa_signature.as_ref().ok_or("expecting ECDSA response")?;
            let signed = nonce::both(&self.nonce, &answer.nonce.0).ok_or("invalid response nonce")?;
            let signature = ecdsa::to_der(&answer.r.0, &answer.s.0);
            let good = signature.is_some_and(|signature| {
                key.verify(SignatureAlgorithm::EcdsaSha256, &signed, &signature).is_ok()
            });
            return if good { Ok(()) } else { Err("ECDSA signature verify failed") };
        }
        let answer = answer.rsa_signature.as_ref().ok_or("expecting RSA response")?;
        let signed = nonce::both(&self.nonce, &answer.nonce.0).ok_or("invalid response nonce")?;
        // Go signs with a salt as long as the key allows, other implementations with one as long as the hash.
        let good =
            [&LONGEST_SALT, &RSA_PSS_2048_8192_SHA256].into_iter().any(|form: &'static RsaParameters| {
                UnparsedPublicKey::new(form, key.spki_der()).verify(&signed, &answer.signature.0).is_ok()
            });
        if good { Ok(()) } else { Err("RSA signature verify failed") }
    }
}

static LONGEST_SALT: RsaParameters = RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

/// SPIRE's selectors, in its order.
fn selectors(
    leaf: &Certificate,
    chains: &[Vec<Certificate>],
    san_selectors: &BTreeMap<String, String>,
) -> Vec<String> {
    let mut out = Vec::new();
    let common_name = leaf.subject().common_name;
    if !common_name.is_empty() {
        out.push(format!("subject:cn:{common_name}"));
    }
    for authority in chains.iter().flat_map(|chain| chain.iter().skip(1)) {
        let selector = format!("ca:fingerprint:{}", fields::fingerprint(authority));
        if !out.contains(&selector) {
            out.push(selector);
        }
    }
    out.push(format!("serialnumber:{}", fields::serial_number(leaf)));
    out.extend(san_selectors.iter().map(|(key, value)| format!("san:{key}:{value}")));
    out
}

/// Keys and values of URI SANs `x509pop://<trust domain>/<key>/<value>`.
fn san_selectors(leaf: &Certificate, trust_domain: &TrustDomain) -> BTreeMap<String, String> {
    let prefix = format!("x509pop://{}/", trust_domain.name());
    let mut out = BTreeMap::new();
    for uri in leaf.uri_sans() {
        let Some(path) = uri.strip_prefix(&prefix) else { continue };
        let path = unescaped(path.split(['?', '#']).next().unwrap_or_default());
        let Some((key, value)) = path.trim_matches('/').split_once('/') else {
            tracing::warn!(
                subsystem_name = "catalog",
                plugin_name = NAME,
                "cannot extract x509pop san selectors from {uri}"
            );
            continue;
        };
        out.insert(key.to_owned(), value.to_owned());
    }
    out
}

/// `%41` is `A`.
fn unescaped(path: &str) -> String {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [a, b, ..]) => {
                std::str::from_utf8(&[*a, *b]).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok())
            }
            _ => None,
        };
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}
