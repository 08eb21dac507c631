//! `http_challenge`: an agent proves that it answers HTTP under its host's name. The server calls back, which makes this the
//! one attestor by which a caller without any proof lets the server do something to others: see [`fetch`] for the limits.

mod agent;
mod fetch;
mod server;

use serde::{Deserialize, Serialize};

pub use agent::{HttpChallengeAgent, HttpChallengeAgentConfig};
pub use server::{HttpChallenge, HttpChallengeConfig, HttpChallengeOptions};

const NAME: &str = "http_challenge";

/// The messages, in SPIRE's JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Payload {
    hostname: String,
    agentname: String,
    port: i64,
}

#[derive(Serialize, Deserialize)]
struct Challenge {
    #[serde(default)]
    nonce: String,
}

/// Where the agent serves the nonce.
fn path_of(agent_name: &str) -> String {
    format!("/.well-known/spiffe/nodeattestor/http_challenge/{agent_name}/challenge")
}

#[cfg(test)]
mod tests;
