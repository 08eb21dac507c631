//! Calls as one of the agents, over mTLS to a chosen server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use steeple_e2e::{Deployment, TRUST_DOMAIN};
use steeple_proto::spire::api::server::agent::v1::{
    AgentX509svidParams, AttestAgentRequest, agent_client::AgentClient, attest_agent_request,
    attest_agent_response,
};
use steeple_proto::spire::api::types;
use steeple_runtime::clock;
use steeple_runtime::tls::{ClientTls, LiveBundles, LiveIdentity, ServerTrust, Servers};
use steeple_spiffe::x509::{self, DistinguishedName};
use steeple_spiffe::{Certificate, KeyType, PrivateKey, SpiffeId, TrustDomain};
use tonic::transport::Channel;

/// No call of a test waits longer.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The identity that an agent has on its disk.
pub fn identity_of(agent: &Deployment) -> Result<LiveIdentity> {
    let data: serde_json::Value = read_json(agent, "agent/agent-data.json")?;
    let mut chain = Vec::new();
    for certificate in data["svid"].as_array().context("agent-data.json has no svid")? {
        let pem = STANDARD.decode(certificate.as_str().context("svid is no text")?)?;
        chain.extend(Certificate::from_pem(&String::from_utf8(pem)?)?);
    }
    let keys: serde_json::Value = read_json(agent, "agent/keys.json")?;
    let identity = LiveIdentity::new();
    for key in keys["keys"].as_object().context("keys.json has no keys")?.values() {
        let key = PrivateKey::from_pkcs8_der(&STANDARD.decode(key.as_str().context("key is no text")?)?)?;
        if chain.first().is_some_and(|leaf| leaf.public_key() == key.public_key()) {
            identity.set(&chain, &key)?;
            return Ok(identity);
        }
    }
    anyhow::bail!("no key of keys.json belongs to the SVID")
}

fn read_json(agent: &Deployment, name: &str) -> Result<serde_json::Value> {
    Ok(serde_json::from_slice(&std::fs::read(agent.path(name)).with_context(|| name.to_owned())?)?)
}

/// A channel to this server alone.
pub fn channel(server: &Deployment, address: &str, identity: LiveIdentity) -> Result<Channel> {
    let trust_domain = TrustDomain::new(TRUST_DOMAIN)?;
    let bundles = LiveBundles::new();
    bundles.set(&trust_domain, Certificate::from_pem(&server.server_ok(&["bundle", "show"])?)?);
    let id = SpiffeId::from_parts(&trust_domain, "/spire/server")?;
    let tls = ClientTls::new(id, ServerTrust::Bundles(bundles), identity, clock::system())?;
    Ok(tls.channel(&Arc::new(Servers::new(address)))?)
}

/// Attests an agent that has no process, with a join token; its identity.
pub async fn attest(channel: Channel, token: &str) -> Result<LiveIdentity, tonic::Status> {
    let internal = |error: &dyn std::fmt::Display| tonic::Status::internal(error.to_string());
    let key = PrivateKey::generate(KeyType::EcP256).map_err(|error| internal(&error))?;
    let algorithm = KeyType::EcP256.x509_signature_algorithm();
    let tbs = x509::csr_tbs(&DistinguishedName::default_svid(), &key.public_key(), &[], &[]);
    let signature = key.sign(algorithm, &tbs).map_err(|error| internal(&error))?;
    let params = attest_agent_request::Params {
        data: Some(types::AttestationData { r#type: "join_token".into(), payload: token.into() }),
        params: Some(AgentX509svidParams { csr: x509::assemble(&tbs, algorithm, &signature) }),
    };
    let first = AttestAgentRequest { step: Some(attest_agent_request::Step::Params(params)) };
    let mut answers = AgentClient::new(channel).attest_agent(tokio_stream::iter([first])).await?.into_inner();
    let answer = answers.message().await?.and_then(|answer| answer.step);
    let Some(attest_agent_response::Step::Result(result)) = answer else {
        return Err(tonic::Status::internal("no result"));
    };
    let chain = result.svid.map(|svid| svid.cert_chain).unwrap_or_default();
    let chain: Result<Vec<Certificate>, _> = chain.iter().map(|der| Certificate::from_der(der)).collect();
    let identity = LiveIdentity::new();
    identity.set(&chain.map_err(|error| internal(&error))?, &key).map_err(|error| internal(&error))?;
    Ok(identity)
}
