//! AttestAgent, over a connection without an agent SVID.

use super::*;
use async_trait::async_trait;

/// Where the first trust comes from.
#[async_trait]
pub trait TrustSource: Send + Sync + 'static {
    /// The authorities to verify the server with; `None` is `insecure_bootstrap`.
    async fn bootstrap(&self, attempt: &Attempt) -> Result<Option<Vec<Certificate>>, TrustError>;
}

/// Why there is no first trust.
#[derive(Debug, thiserror::Error)]
#[error("bootstrap trust bundle: {text}")]
pub struct TrustError {
    pub text: String,
    /// Another try may help: it comes over a network.
    pub passing: bool,
}

/// A challenge has to be answered this often at most; more is a server gone wild.
const MAX_CHALLENGES: usize = 64;

impl AgentIdentity {
    /// Attests and takes up what comes back.
    pub(super) async fn attest(&self) -> Result<(), IdentityError> {
        let insecure = self.trust_server().await?;
        let current = self.held().key_id.clone();
        let (key_id, csr) = self.keys.next_csr(current.as_deref()).await?;
        let channel = self.link.anonymous(insecure)?;
        let (svid, reattestable) =
            match tokio::time::timeout(RPC_TIMEOUT, self.attest_over(channel.clone(), csr)).await {
                Ok(result) => result?,
                Err(_) => return Err(ServerError::timed_out("node attestation").into()),
            };
        let chain = chain(svid)?;
        if let Some(skew) =
            chain.first().and_then(|leaf| node::clock_skew(leaf.not_before(), self.time().wall))
        {
            let direction = if skew > 0 { "ahead of" } else { "behind" };
            tracing::warn!(
                "This machine's clock is {} s {direction} the server's: SVIDs will seem expired or not yet valid; set the clock (NTP)",
                skew.abs()
            );
        }
        let bundle = timed(
            "fetching the trust bundle",
            BundleClient::new(channel).get_bundle(GetBundleRequest::default()),
        )
        .await?;
        let bundle = convert::bundle(bundle)
            .map_err(|error| IdentityError::Svid(format!("invalid trust domain bundle: {error}")))?;
        if bundle.trust_domain != self.config.trust_domain {
            return Err(IdentityError::Svid(format!(
                "the server's bundle is of trust domain {}, not {}: check trust_domain",
                bundle.trust_domain, self.config.trust_domain
            )));
        }
        self.bundle_changed(&bundle).await?;
        let again = {
            let mut held = self.held();
            held.key_id = Some(key_id);
            !held.data.svid.is_empty()
        };
        self.take_up(chain, (reattestable, true)).await?;
        self.attestations.fetch_add(1, Ordering::Relaxed);
        let id = self.spiffe_id().map(|id| id.to_string()).unwrap_or_default();
        if again {
            tracing::info!(subsystem_name = "manager", spiffe_id = id, "Successfully reattested node");
        } else {
            tracing::info!(
                subsystem_name = "attestor",
                spiffe_id = id,
                reattestable,
                "Node attestation was successful"
            );
        }
        Ok(())
    }

    /// Sets the authorities that the server must verify under; true if there are none on purpose.
    async fn trust_server(&self) -> Result<bool, IdentityError> {
        let stored = self.held().data.bundle.clone();
        let authorities = if stored.is_empty() {
            let attempt = self.held().bootstrap.tried(self.config.clock.now());
            self.store().await?;
            attempt.tell();
            self.config.trust.bootstrap(&attempt).await?
        } else {
            Some(stored)
        };
        match authorities {
            Some(authorities) if authorities.is_empty() => {
                Err(TrustError { text: "load bundle: no certs in bundle".into(), passing: false }.into())
            }
            Some(authorities) => {
                self.link.bundles.set(&self.config.trust_domain, authorities);
                Ok(false)
            }
            None => {
                tracing::warn!(
                    subsystem_name = "attestor",
                    "Insecure bootstrap enabled; skipping server certificate verification"
                );
                Ok(true)
            }
        }
    }

    async fn attest_over(
        &self,
        channel: Channel,
        csr: Vec<u8>,
    ) -> Result<(Option<types::X509svid>, bool), IdentityError> {
        let attestor = &self.config.attestor;
        let refused = |error| ServerError::attestor(attestor.name(), &error);
        let mut begun = attestor.begin().await.map_err(refused)?;
        let payload = begun.payload();
        let first = attest_agent_request::Step::Params(attest_agent_request::Params {
            data: Some(types::AttestationData { r#type: attestor.name().to_owned(), payload }),
            params: Some(AgentX509svidParams { csr }),
        });
        let (steps, requests) = mpsc::channel(1);
        let broken = |_| ServerError::other("the attestation stream to the server broke");
        steps.send(AttestAgentRequest { step: Some(first) }).await.map_err(broken)?;
        let what = format!("node attestation of an agent of trust domain {}", self.config.trust_domain);
        let failed = |status: Status| ServerError::new(&what, &status);
        let mut responses = AgentClient::new(channel)
            .attest_agent(ReceiverStream::new(requests))
            .await
            .map_err(failed)?
            .into_inner();
        for _ in 0..MAX_CHALLENGES {
            let response = responses.message().await.map_err(failed)?;
            match response.and_then(|response| response.step) {
                Some(attest_agent_response::Step::Result(result)) => {
                    return Ok((result.svid, result.reattestable));
                }
                Some(attest_agent_response::Step::Challenge(challenge)) => {
                    let answer = begun.respond(challenge).await.map_err(refused)?;
                    let step = attest_agent_request::Step::ChallengeResponse(answer);
                    steps.send(AttestAgentRequest { step: Some(step) }).await.map_err(broken)?;
                }
                None => break,
            }
        }
        Err(ServerError::other("the server ended node attestation without a result").into())
    }
}

/// The certificates of an agent SVID, leaf first.
pub(super) fn chain(svid: Option<types::X509svid>) -> Result<Vec<Certificate>, IdentityError> {
    let svid = svid.ok_or_else(|| IdentityError::Svid("attest response is missing SVID".into()))?;
    svid.cert_chain
        .iter()
        .map(|der| Certificate::from_der(der))
        .collect::<Result<_, _>>()
        .map_err(|error| IdentityError::Svid(format!("invalid SVID cert chain: {error}")))
}
