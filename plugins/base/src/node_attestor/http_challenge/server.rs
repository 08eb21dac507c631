//! The server's side.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::constant_time;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use regex::Regex;
use steeple_plugin::{AgentAttributes, AttestError, AttestorHost, Challenged, Evidence, ServerNodeAttestor};
use steeple_spiffe::{SpiffeId, TrustDomain};

use super::fetch::Fetcher;
use super::{Challenge, NAME, Payload, path_of};
use crate::agent_path;
use crate::node_attestor::{ConfigError, nonce};

/// The plugin's options as the file has them.
#[derive(Clone, Debug, Default)]
pub struct HttpChallengeOptions {
    pub allowed_dns_patterns: Vec<String>,
    pub required_port: Option<i64>,
    pub allow_non_root_ports: Option<bool>,
    pub tofu: Option<bool>,
}

/// Checked options.
#[derive(Clone, Debug)]
pub struct HttpChallengeConfig {
    patterns: Vec<Regex>,
    required_port: Option<i64>,
    allow_non_root_ports: bool,
    tofu: bool,
}

impl PartialEq for HttpChallengeConfig {
    fn eq(&self, other: &Self) -> bool {
        let patterns = |config: &Self| config.patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        patterns(self) == patterns(other)
            && (self.required_port, self.allow_non_root_ports, self.tofu)
                == (other.required_port, other.allow_non_root_ports, other.tofu)
    }
}

impl Eq for HttpChallengeConfig {}

impl HttpChallengeConfig {
    pub fn load(options: &HttpChallengeOptions) -> Result<Self, ConfigError> {
        let compile = |pattern: &String| {
            Regex::new(pattern).map_err(|error| {
                ConfigError(format!("cannot compile allowed_dns_pattern: {pattern:?}, {error}"))
            })
        };
        // Any user of a host can listen on a high port: who came first keeps the name.
        let root_only = match options.required_port {
            Some(port) => port < 1024,
            None => options.allow_non_root_ports == Some(false),
        };
        let tofu = options.tofu.unwrap_or(true);
        if !tofu && !root_only {
            return ConfigError::of(
                "you can not turn off trust on first use (TOFU) when non-root ports are allowed",
            );
        }
        Ok(Self {
            patterns: options.allowed_dns_patterns.iter().map(compile).collect::<Result<_, _>>()?,
            required_port: options.required_port,
            allow_non_root_ports: options.allow_non_root_ports.unwrap_or(true),
            tofu,
        })
    }
}

/// See the [module](super).
pub struct HttpChallenge {
    config: HttpChallengeConfig,
    trust_domain: TrustDomain,
    host: Arc<dyn AttestorHost>,
    fetcher: Fetcher,
}

impl HttpChallenge {
    pub fn new(config: HttpChallengeConfig, trust_domain: TrustDomain, host: Arc<dyn AttestorHost>) -> Self {
        let fetcher = Fetcher::new(!config.patterns.is_empty());
        Self { config, trust_domain, host, fetcher }
    }

    /// What SPIRE checks before its challenge, and what it checks only after it has called the host.
    fn read(&self, payload: &[u8]) -> Result<(Payload, u16, SpiffeId), AttestError> {
        let refused = |text: String| AttestError::InvalidArgument(text);
        let payload: Payload = serde_json::from_slice(payload)
            .map_err(|error| refused(format!("failed to unmarshal data: {error}")))?;
        let port = payload.port;
        if self.config.required_port.is_some_and(|required| required != port) {
            return Err(refused(format!("port {port} is not allowed to be used by this server")));
        }
        if !self.config.allow_non_root_ports && port >= 1024 {
            return Err(refused(format!("port {port} is not allowed to be >= 1024")));
        }
        if !is_agent_name(&payload.agentname) {
            return Err(refused("agent name is not valid".to_owned()));
        }
        self.check_host(&payload.hostname)?;
        let denied = |problem: &str| {
            AttestError::PermissionDenied(format!("challenge verification failed: {problem}"))
        };
        let port =
            u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(|| denied("port is invalid"))?;
        match payload.hostname.as_str() {
            "" => return Err(denied("hostname must be set")),
            name if name.contains('/') => return Err(denied("hostname can not contain a slash")),
            name if name.contains(':') => return Err(denied("hostname can not contain a colon")),
            _ => {}
        }
        // A name that cannot be in an ID need not be called.
        let id = agent_path::agent_id(&self.trust_domain, &format!("/{NAME}/{}", payload.hostname));
        let id = id.map_err(|error| AttestError::Internal(format!("failed to make spiffe id: {error}")))?;
        Ok((payload, port, id))
    }

    fn check_host(&self, name: &str) -> Result<(), AttestError> {
        let denied = |text: &str| Err(AttestError::PermissionDenied(text.to_owned()));
        let lower = name.trim_end_matches('.').to_ascii_lowercase();
        if lower == "localhost" || lower.ends_with(".localhost") {
            return denied("you can not use localhost as a hostname");
        }
        // As in SPIRE a pattern may match anywhere in the name: operators anchor them.
        if self.config.patterns.is_empty()
            || self.config.patterns.iter().any(|pattern| pattern.is_match(name))
        {
            return Ok(());
        }
        denied("the requested hostname is not allowed to connect")
    }

    async fn assess_tofu(&self, id: &SpiffeId) -> Result<(), AttestError> {
        if !self.config.tofu || !self.host.is_attested(id).await? {
            return Ok(());
        }
        const USED: &str = "attestation data has already been used to attest an agent";
        tracing::error!(
            subsystem_name = "catalog",
            plugin_name = NAME,
            spiffe_id = id.as_str(),
            "Attestation data has already been used to attest an agent"
        );
        Err(AttestError::PermissionDenied(USED.to_owned()))
    }
}

#[async_trait]
impl ServerNodeAttestor for HttpChallenge {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn attest(
        &self,
        evidence: Evidence,
        agent: &mut dyn Challenged,
    ) -> Result<AgentAttributes, AttestError> {
        let (payload, port, spiffe_id) = self.read(&evidence.payload)?;
        // Nobody is called for what would be refused anyway.
        self.assess_tofu(&spiffe_id).await?;
        let nonce = nonce::fresh()
            .map_err(|error| AttestError::Internal(format!("unable to generate challenge: {error}")))?;
        let nonce = URL_SAFE.encode(nonce);
        let challenge = serde_json::to_vec(&Challenge { nonce: nonce.clone() })
            .map_err(|error| AttestError::Internal(format!("unable to marshal challenge: {error}")))?;
        // Its answer says only that the nonce is served now.
        agent.challenge(challenge).await?;
        tracing::debug!(subsystem_name = "catalog", plugin_name = NAME, "Verifying challenge");
        let fetched = self.fetcher.fetch(&payload.hostname, port, &path_of(&payload.agentname)).await;
        let served = fetched.map_err(|error| {
            tracing::warn!(
                subsystem_name = "catalog",
                plugin_name = NAME,
                hostname = payload.hostname,
                port,
                error = %error,
                "Challenge could not be fetched"
            );
            // What the call found is the operator's to know: a stranger could explore our network with it.
            AttestError::PermissionDenied(format!(
                "challenge verification failed: the challenge could not be fetched from {}:{port}; the server's log says why",
                payload.hostname
            ))
        })?;
        if constant_time::verify_slices_are_equal(served.trim().as_bytes(), nonce.as_bytes()).is_err() {
            return Err(AttestError::PermissionDenied(
                "challenge verification failed: expected nonce was not found in HTTP response".to_owned(),
            ));
        }
        self.assess_tofu(&spiffe_id).await?;
        Ok(AgentAttributes {
            spiffe_id,
            selector_values: vec![format!("hostname:{}", payload.hostname)],
            can_reattest: !self.config.tofu,
        })
    }
}

/// A letter, then letters, digits and dashes; 32 at most.
fn is_agent_name(name: &str) -> bool {
    name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}
