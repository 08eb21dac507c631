//! What both sides of every node attestor keep to.

use async_trait::async_trait;
use steeple_spiffe::{Certificate, SpiffeId};

use crate::{
    AgentAttributes, AgentNodeAttestor, AttestError, Attestation, AttestorHost, Challenged, Evidence,
    ServerNodeAttestor,
};

/// A server that has seen these agents and has these authorities.
#[derive(Debug, Default)]
pub struct Host {
    pub attested: Vec<SpiffeId>,
    pub authorities: Vec<Certificate>,
}

#[async_trait]
impl AttestorHost for Host {
    async fn is_attested(&self, agent: &SpiffeId) -> Result<bool, AttestError> {
        Ok(self.attested.contains(agent))
    }

    async fn x509_authorities(&self) -> Result<Vec<Certificate>, AttestError> {
        Ok(self.authorities.clone())
    }
}

/// What went between the two sides.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    pub payload: Vec<u8>,
    pub challenges: Vec<Vec<u8>>,
    pub answers: Vec<Vec<u8>>,
}

/// An agent that answers as `agent` does.
pub struct Answering<'a> {
    pub agent: &'a mut dyn Attestation,
    pub exchange: Exchange,
}

#[async_trait]
impl Challenged for Answering<'_> {
    async fn challenge(&mut self, challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        let answer = self.agent.respond(challenge.clone()).await?;
        // SPIRE's host takes an empty answer for none.
        assert!(!answer.is_empty(), "an answer is never empty");
        self.exchange.challenges.push(challenge);
        self.exchange.answers.push(answer.clone());
        Ok(answer)
    }
}

/// One that always says the same.
#[derive(Debug)]
pub struct Parrot(pub Vec<u8>);

#[async_trait]
impl Challenged for Parrot {
    async fn challenge(&mut self, _challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        Ok(self.0.clone())
    }
}

/// One attestation of `agent` with `server`.
pub async fn attest(
    agent: &dyn AgentNodeAttestor,
    server: &dyn ServerNodeAttestor,
) -> (Result<AgentAttributes, AttestError>, Exchange) {
    let mut begun = agent.begin().await.expect("the agent begins");
    let payload = begun.payload();
    let mut answering = Answering {
        agent: begun.as_mut(),
        exchange: Exchange { payload: payload.clone(), ..Exchange::default() },
    };
    let evidence = Evidence { payload, client_ip: None };
    let outcome = server.attest(evidence, &mut answering).await;
    (outcome, answering.exchange)
}

/// Two sides that fit: the agent is who it is, twice, and nothing it said once is good again. `replayable` is for proofs
/// that are not in the answers (http_challenge).
pub async fn node_attestor(agent: &dyn AgentNodeAttestor, server: &dyn ServerNodeAttestor, replayable: bool) {
    assert_eq!(agent.name(), server.name());
    let (first, exchange) = attest(agent, server).await;
    let first = first.expect("attests");
    let (again, other) = attest(agent, server).await;
    assert_eq!(again.expect("attests again"), first, "one node, one ID");
    assert!(!exchange.payload.is_empty(), "a payload is never empty");
    assert!(!exchange.challenges.is_empty(), "a payload alone proves nothing");
    for challenge in &exchange.challenges {
        assert!(!other.challenges.contains(challenge), "a challenge is never asked twice");
    }
    if !replayable {
        // The payload is public; so are old answers to whoever listened.
        for answer in &exchange.answers {
            let evidence = Evidence { payload: exchange.payload.clone(), client_ip: None };
            let replayed = server.attest(evidence, &mut Parrot(answer.clone())).await;
            assert!(replayed.is_err(), "an old answer is good again: {replayed:?}");
        }
    }
    garbage_is_refused(agent, server, &exchange, replayable).await;
}

async fn garbage_is_refused(
    agent: &dyn AgentNodeAttestor,
    server: &dyn ServerNodeAttestor,
    good: &Exchange,
    replayable: bool,
) {
    let cut = &good.payload[..good.payload.len() / 2];
    let deep = "[".repeat(50_000);
    let big = "x".repeat(64 * 1024);
    let garbage: [&[u8]; 9] =
        [b"", b"garbage", b"{}", b"[]", b"null", b"\xff\xfe", cut, big.as_bytes(), deep.as_bytes()];
    for bytes in garbage {
        let evidence = Evidence { payload: bytes.to_vec(), client_ip: None };
        let refused = server.attest(evidence, &mut Parrot(b"{}".to_vec())).await;
        assert!(
            refused.is_err(),
            "payload {:?}: {refused:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(20)])
        );
        if !replayable {
            let evidence = Evidence { payload: good.payload.clone(), client_ip: None };
            let refused = server.attest(evidence, &mut Parrot(bytes.to_vec())).await;
            assert!(
                refused.is_err(),
                "answer {:?}: {refused:?}",
                String::from_utf8_lossy(&bytes[..bytes.len().min(20)])
            );
        }
        let mut begun = agent.begin().await.expect("the agent begins");
        // Refused or not (`{}` may be a challenge), it does not fall over.
        let _ = begun.respond(bytes.to_vec()).await;
    }
}
