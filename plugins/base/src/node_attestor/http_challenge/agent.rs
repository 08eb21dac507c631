//! The agent's side: serves the nonce while it attests.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use http::StatusCode;
use steeple_plugin::{AgentNodeAttestor, AttestError, Attestation};
use steeple_runtime::http::{Answer, serve};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::{Challenge, NAME, Payload, path_of};
use crate::node_attestor::ConfigError;

/// How the server reaches this agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpChallengeAgentConfig {
    hostname: String,
    agent_name: String,
    /// 0 is any that is free.
    port: u16,
    /// 0 is the one listened on.
    advertised_port: u16,
}

impl HttpChallengeAgentConfig {
    /// From the plugin's options; `None` and empty strings are unset.
    pub fn new(
        hostname: Option<String>,
        agent_name: Option<String>,
        port: Option<i64>,
        advertised_port: Option<i64>,
    ) -> Result<Self, ConfigError> {
        let number = |name: &str, value: Option<i64>| {
            u16::try_from(value.unwrap_or(0)).map_err(|_| ConfigError(format!("{name} is no port")))
        };
        let set = |value: Option<String>| value.filter(|value| !value.is_empty());
        let hostname = match set(hostname) {
            Some(hostname) => hostname,
            None => rustix::system::uname()
                .nodename()
                .to_str()
                .map(ToOwned::to_owned)
                .map_err(|error| ConfigError(format!("unable to fetch hostname: {error}")))?,
        };
        Ok(Self {
            hostname,
            agent_name: set(agent_name).unwrap_or_else(|| "default".to_owned()),
            port: number("port", port)?,
            advertised_port: number("advertised_port", advertised_port.filter(|given| *given != 0).or(port))?,
        })
    }
}

/// See the [module](super).
#[derive(Debug)]
pub struct HttpChallengeAgent {
    config: HttpChallengeAgentConfig,
}

impl HttpChallengeAgent {
    pub fn new(config: HttpChallengeAgentConfig) -> Self {
        Self { config }
    }
}

#[async_trait]
impl AgentNodeAttestor for HttpChallengeAgent {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn begin(&self) -> Result<Box<dyn Attestation>, AttestError> {
        let port = self.config.port;
        // All addresses of both families, as SPIRE; machines without IPv6 have one.
        let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
        };
        let listening = |error| AttestError::Internal(format!("could not listen on port {port}: {error}"));
        let listener = listener.map_err(listening)?;
        let bound = listener.local_addr().map_err(listening)?.port();
        let port = if self.config.advertised_port == 0 { bound } else { self.config.advertised_port };
        let payload = Payload {
            hostname: self.config.hostname.clone(),
            agentname: self.config.agent_name.clone(),
            port: port.into(),
        };
        let nonce = Arc::new(Mutex::new(None));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, handler(path_of(&self.config.agent_name), nonce.clone())));
        Ok(Box::new(Begun { payload, nonce, _server: server }))
    }
}

/// One attestation. The port is free again when it is over.
struct Begun {
    payload: Payload,
    nonce: Arc<Mutex<Option<String>>>,
    _server: JoinSet<()>,
}

#[async_trait]
impl Attestation for Begun {
    fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(&self.payload).unwrap_or_default()
    }

    async fn respond(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        let challenge: Challenge = serde_json::from_slice(&challenge)
            .map_err(|error| AttestError::Internal(format!("unable to unmarshal challenge: {error}")))?;
        *self.nonce.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge.nonce);
        // There is nothing to say, and an empty answer is none (SPIRE).
        Ok(b"\n".to_vec())
    }
}

fn handler(path: String, nonce: Arc<Mutex<Option<String>>>) -> steeple_runtime::http::Handler {
    Arc::new(move |asked| {
        let nonce = nonce.lock().unwrap_or_else(PoisonError::into_inner).clone();
        nonce.filter(|_| asked == path).map(|nonce| Answer {
            status: StatusCode::OK,
            content_type: "text/plain; charset=utf-8",
            body: format!("{nonce}\n"),
        })
    })
}
