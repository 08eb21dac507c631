//! The server's side.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest;
use steeple_plugin::{AgentAttributes, AttestError, Challenged, Evidence, ServerNodeAttestor};
use steeple_runtime::clock::Clock;
use steeple_spiffe::TrustDomain;

use super::NAME;
use super::certificate::Certificate;
use super::key::{PublicKey, Signature, blob_of_line};
use super::messages::{Challenge, Payload, Response};
use crate::agent_path::{AgentPathTemplate, Value};
use crate::node_attestor::bytes::Bytes;
use crate::node_attestor::{ConfigError, nonce};

/// The plugin's options as the file has them.
#[derive(Clone, Debug, Default)]
pub struct SshPopOptions {
    pub cert_authorities: Option<Vec<String>>,
    pub cert_authorities_path: Option<String>,
    pub canonical_domain: Option<String>,
    pub agent_path_template: Option<String>,
}

/// Checked options, with the authorities as they were when the configuration was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshPopConfig {
    authorities: Vec<PublicKey>,
    canonical_domain: Option<String>,
    template: AgentPathTemplate,
}

impl SshPopConfig {
    pub fn load(options: &SshPopOptions) -> Result<Self, ConfigError> {
        if options.cert_authorities.is_none() && options.cert_authorities_path.is_none() {
            return ConfigError::of(
                "missing required config value for \"cert_authorities\" or \"cert_authorities_path\"",
            );
        }
        let mut lines = options.cert_authorities.clone().unwrap_or_default();
        if let Some(path) = &options.cert_authorities_path {
            let text = std::fs::read_to_string(path).map_err(|error| {
                ConfigError(format!("failed to get cert authorities from file: {path}: {error}"))
            })?;
            let found = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let before = lines.len();
            lines.extend(found.map(ToOwned::to_owned));
            if lines.len() == before {
                return ConfigError::of(format!(
                    "failed to get cert authorities from file: no data found in file: {path:?}"
                ));
            }
        }
        if lines.is_empty() {
            return ConfigError::of(
                "failed to create cert checker: must provide at least one cert authority",
            );
        }
        let read = |line: &String| {
            let key = blob_of_line(line).ok_or("no key found").and_then(|blob| PublicKey::from_blob(&blob));
            key.map_err(|error| {
                ConfigError(format!(
                    "failed to create cert checker: failed to parse public key {line:?}: {error}"
                ))
            })
        };
        let template =
            options.agent_path_template.as_deref().unwrap_or("/{{ .PluginName}}/{{ .Fingerprint }}");
        Ok(Self {
            authorities: lines.iter().map(read).collect::<Result<_, _>>()?,
            canonical_domain: options.canonical_domain.clone(),
            template: AgentPathTemplate::parse(template, &example()).map_err(|error| {
                ConfigError(format!("failed to parse agent svid template: {template:?}: {error}"))
            })?,
        })
    }
}

/// See the [module](super).
pub struct SshPop {
    config: SshPopConfig,
    trust_domain: TrustDomain,
    clock: Arc<dyn Clock>,
}

impl SshPop {
    pub fn new(config: SshPopConfig, trust_domain: TrustDomain, clock: Arc<dyn Clock>) -> Self {
        Self { config, trust_domain, clock }
    }

    /// The certificate and the host it names.
    fn read(&self, payload: &[u8]) -> Result<(Certificate, String), AttestError> {
        let payload: Payload =
            serde_json::from_slice(payload).map_err(|error| internal("failed to unmarshal data", error))?;
        let blob = payload.certificate.0;
        if blob.is_empty() {
            return Err(AttestError::Internal("no certificate in response".to_owned()));
        }
        let certificate =
            Certificate::from_blob(&blob).map_err(|error| internal("failed to parse public key", error))?;
        let Some(principal) = certificate.principals.first() else {
            return Err(AttestError::Internal("cert has no valid principals".to_owned()));
        };
        // It has to be a host name: SPIRE makes an address of it.
        if principal.contains([':', '[', ']']) {
            return Err(internal(
                "failed to check host key",
                format!("address {principal}:22: not a host and port"),
            ));
        }
        certificate
            .check_host(&self.config.authorities, self.clock.now())
            .map_err(|error| internal("failed to check host key", error))?;
        let hostname = match &self.config.canonical_domain {
            None => principal.clone(),
            Some(domain) => {
                let name = principal.strip_suffix(domain.as_str()).and_then(|name| name.strip_suffix('.'));
                let outside = || {
                    internal(
                        "failed to decanonicalize hostname",
                        format!("cert principal is not in domain \".{domain}\""),
                    )
                };
                name.ok_or_else(outside)?.to_owned()
            }
        };
        Ok((certificate, hostname))
    }
}

fn internal(what: &str, error: impl ToString) -> AttestError {
    // SPIRE answers Internal for whatever is wrong here.
    AttestError::Internal(format!("{what}: {}", error.to_string()))
}

#[async_trait]
impl ServerNodeAttestor for SshPop {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn attest(
        &self,
        evidence: Evidence,
        agent: &mut dyn Challenged,
    ) -> Result<AgentAttributes, AttestError> {
        let (certificate, hostname) = self.read(&evidence.payload)?;
        let nonce = nonce::fresh().map_err(|error| internal("failed to generate nonce", error))?;
        let challenge = serde_json::to_vec(&Challenge { nonce: Bytes(nonce.to_vec()) });
        let challenge = challenge.map_err(|error| internal("failed to marshal challenge request", error))?;
        let answer = agent.challenge(challenge).await?;
        let answer: Response = serde_json::from_slice(&answer)
            .map_err(|error| internal("failed to unmarshal challenge response", error))?;
        let both = nonce::both(&nonce, &answer.nonce.0)
            .ok_or_else(|| internal("failed to combine nonces", "invalid response nonce size"))?;
        let signature =
            answer.signature.ok_or_else(|| internal("failed to verify signature", "there is none"))?;
        let signature = Signature { format: signature.format, blob: signature.blob.0 };
        certificate
            .key
            .verify(digest::digest(&digest::SHA256, &both).as_ref(), &signature, true)
            .map_err(|error| internal("failed to verify signature", error))?;
        let id = self.config.template.agent_id(&self.trust_domain, &data(&certificate, &hostname));
        let spiffe_id = id.map_err(|error| internal("failed to create AgentID", error))?;
        Ok(AgentAttributes { spiffe_id, selector_values: Vec::new(), can_reattest: true })
    }
}

/// What agent path templates know: the fields of Go's ssh.Certificate that can stand in a path.
fn data(certificate: &Certificate, hostname: &str) -> Value {
    let map = |pairs: &[(String, String)]| {
        Value::Map(pairs.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect())
    };
    let number = |value: u64| Value::Big { decimal: value.to_string(), hex: format!("{value:x}") };
    record([
        ("Fingerprint", certificate.fingerprint().into()),
        ("Hostname", hostname.into()),
        ("Serial", number(certificate.serial)),
        ("CertType", Value::Int(certificate.kind.into())),
        ("KeyId", certificate.key_id.as_str().into()),
        ("ValidPrincipals", Value::strings(certificate.principals.iter().cloned())),
        ("ValidAfter", number(certificate.valid_after)),
        ("ValidBefore", number(certificate.valid_before)),
        ("CriticalOptions", map(&certificate.critical_options)),
        ("Extensions", map(&certificate.extensions)),
    ])
}

fn example() -> Value {
    let empty = || Value::Map(std::collections::BTreeMap::new());
    record([
        ("Fingerprint", "".into()),
        ("Hostname", "".into()),
        ("Serial", Value::Int(0)),
        ("CertType", Value::Int(0)),
        ("KeyId", "".into()),
        ("ValidPrincipals", Value::List(Vec::new())),
        ("ValidAfter", Value::Int(0)),
        ("ValidBefore", Value::Int(0)),
        ("CriticalOptions", empty()),
        ("Extensions", empty()),
    ])
}

fn record<const N: usize>(fields: [(&'static str, Value); N]) -> Value {
    Value::record("", fields.into_iter().chain([("PluginName", NAME.into())]))
}
