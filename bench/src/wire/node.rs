//! An agent without a process: attests, connects over mTLS and asks for what an agent asks for.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use steeple_proto::spire::api::server::agent::v1::attest_agent_request::{Params, Step};
use steeple_proto::spire::api::server::agent::v1::attest_agent_response::{
    Result as Attested, Step as Answer,
};
use steeple_proto::spire::api::server::agent::v1::{AgentX509svidParams, AttestAgentRequest};
use steeple_proto::spire::api::server::entry::v1::EntryRevision;
use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use steeple_proto::spire::api::server::entry::v1::{
    GetAuthorizedEntriesRequest, SyncAuthorizedEntriesRequest,
};
use steeple_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use steeple_proto::spire::api::server::svid::v1::{
    BatchNewX509svidRequest, NewJwtsvidRequest, NewX509svidParams,
};
use steeple_proto::spire::api::types::{self, Entry};
use steeple_proto::steeple::agent::v1::sync_client::SyncClient;
use steeple_proto::steeple::agent::v1::{WatchRequest, WatchResponse};
use steeple_runtime::clock;
use steeple_runtime::tls::{ClientTls, LiveBundles, LiveIdentity, ServerTrust, Servers};
use steeple_spiffe::x509::{DistinguishedName, assemble, csr_tbs};
use steeple_spiffe::{Certificate, KeyType, PrivateKey, SpiffeId, TrustDomain};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::{Admin, agent_mask, pop::Proof, succeeded};
use crate::subject::Place;

/// How agents reach their server.
#[derive(Clone, Debug)]
pub struct Way {
    pub address: String,
    server: SpiffeId,
    bundles: LiveBundles,
}

/// An attested agent with its connection.
#[derive(Clone, Debug)]
pub struct Node {
    channel: Channel,
    csr: Vec<u8>,
}

/// Entries whose full text one SyncAuthorizedEntries message asks for (SPIRE's agent).
const ASKED: usize = 500;
const MAX_MESSAGE: usize = 256 << 20;

impl Way {
    pub async fn to(place: &mut Place) -> Result<Self> {
        let authorities = place.admin.authorities().await?;
        Self::new(&place.at.address, place.admin.trust_domain(), authorities)
    }

    pub fn new(address: &str, trust_domain: &str, authorities: Vec<Certificate>) -> Result<Self> {
        let trust_domain = TrustDomain::new(trust_domain)?;
        let bundles = LiveBundles::new();
        bundles.set(&trust_domain, authorities);
        Ok(Self {
            address: address.to_owned(),
            server: SpiffeId::from_parts(&trust_domain, "/spire/server")?,
            bundles,
        })
    }

    /// TLS that shows `identity`, if it is set.
    pub fn tls(&self, identity: LiveIdentity) -> Result<ClientTls> {
        Ok(ClientTls::new(
            self.server.clone(),
            ServerTrust::Bundles(self.bundles.clone()),
            identity,
            clock::system(),
        )?)
    }

    pub fn servers(&self) -> Arc<Servers> {
        Arc::new(Servers::new(&self.address))
    }

    /// A channel without a client certificate.
    pub fn anonymous(&self) -> Result<Channel> {
        Ok(self.tls(LiveIdentity::new())?.channel(&self.servers())?)
    }

    /// Attests with a join token, on a connection of its own as an agent does, and connects with the SVID.
    pub async fn join(&self, token: &str) -> Result<Node> {
        self.join_through(self.anonymous()?, token).await
    }

    /// The same on a connection that others use too.
    pub async fn join_through(&self, channel: Channel, token: &str) -> Result<Node> {
        let data = types::AttestationData { r#type: "join_token".into(), payload: token.into() };
        self.attest(channel, data, None).await
    }

    /// Attests with an X.509 certificate.
    pub async fn prove(&self, proof: &Proof) -> Result<Node> {
        let data = types::AttestationData { r#type: "x509pop".into(), payload: proof.payload()? };
        self.attest(self.anonymous()?, data, Some(proof)).await
    }

    async fn attest(
        &self,
        channel: Channel,
        data: types::AttestationData,
        proof: Option<&Proof>,
    ) -> Result<Node> {
        let key = PrivateKey::generate(KeyType::EcP256)?;
        let csr = request(&key)?;
        let params = Params { data: Some(data), params: Some(AgentX509svidParams { csr: csr.clone() }) };
        let (steps, stream) = mpsc::channel(1);
        steps.send(AttestAgentRequest { step: Some(Step::Params(params)) }).await?;
        let mut client = AgentClient::new(channel);
        let mut answers =
            client.attest_agent(ReceiverStream::new(stream)).await.context("AttestAgent")?.into_inner();
        loop {
            match answers.message().await.context("AttestAgent")?.and_then(|answer| answer.step) {
                Some(Answer::Challenge(challenge)) => {
                    let response = proof.context("a challenge")?.respond(&challenge)?;
                    steps.send(AttestAgentRequest { step: Some(Step::ChallengeResponse(response)) }).await?;
                }
                Some(Answer::Result(result)) => return self.node(&result, &key, csr),
                None => bail!("AttestAgent ended without a result"),
            }
        }
    }

    fn node(&self, attested: &Attested, key: &PrivateKey, csr: Vec<u8>) -> Result<Node> {
        let chain = attested.svid.as_ref().context("AttestAgent: no SVID")?.cert_chain.iter();
        let chain = chain.map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>()?;
        let identity = LiveIdentity::new();
        identity.set(&chain, key)?;
        Ok(Node { channel: self.tls(identity)?.channel(&self.servers())?, csr })
    }
}

impl Node {
    /// One more agent of this server.
    pub async fn new(place: &mut Place) -> Result<Self> {
        let token = place.admin.token().await?;
        Way::to(place).await?.join(&token).await
    }

    /// The same, once the server lets it see this many entries: SPIRE's reads them every five seconds.
    pub async fn seeing(place: &mut Place, entries: usize) -> Result<Self> {
        let node = Self::new(place).await?;
        for _ in 0..300 {
            let seen = node.sync(true).await?.0;
            if seen >= entries {
                return Ok(node);
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        bail!("the agent does not see {entries} entries after a minute")
    }

    fn entries(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Through SPIRE's GetAuthorizedEntries.
    pub async fn authorized(&self) -> Result<usize> {
        let request = GetAuthorizedEntriesRequest { output_mask: Some(agent_mask()) };
        let got = self.entries().get_authorized_entries(request).await.context("GetAuthorizedEntries")?;
        Ok(got.into_inner().entries.len())
    }

    /// Through SPIRE's SyncAuthorizedEntries, as its agent does: revisions first, then the entries that are new (all
    /// of them if `first`, else none). How many there are, and those it read.
    pub async fn sync(&self, first: bool) -> Result<(usize, Vec<Entry>)> {
        let wanted = |revisions: &[EntryRevision]| -> Vec<String> {
            if first { revisions.iter().map(|revision| revision.id.clone()).collect() } else { Vec::new() }
        };
        self.sync_with(wanted).await
    }

    /// The same; `wanted` names the entries that are new.
    pub async fn sync_with(
        &self,
        wanted: impl FnOnce(&[EntryRevision]) -> Vec<String>,
    ) -> Result<(usize, Vec<Entry>)> {
        let (asks, stream) = mpsc::channel(4);
        asks.send(SyncAuthorizedEntriesRequest { output_mask: Some(agent_mask()), ids: Vec::new() }).await?;
        let mut client = self.entries();
        let opened = client
            .sync_authorized_entries(ReceiverStream::new(stream))
            .await
            .context("SyncAuthorizedEntries")?;
        let mut answers = opened.into_inner();
        let (mut revisions, mut entries) = (Vec::new(), Vec::new());
        loop {
            let answer =
                answers.message().await.context("SyncAuthorizedEntries")?.context("it ended early")?;
            revisions.extend(answer.entry_revisions);
            entries.extend(answer.entries);
            if !answer.more {
                break;
            }
        }
        if revisions.is_empty() {
            return Ok((entries.len(), entries));
        }
        for ids in wanted(&revisions).chunks(ASKED) {
            asks.send(SyncAuthorizedEntriesRequest { output_mask: None, ids: ids.to_vec() }).await?;
            let mut missing = ids.len();
            while missing > 0 {
                let answer =
                    answers.message().await.context("SyncAuthorizedEntries")?.context("it ended early")?;
                ensure!(!answer.entries.is_empty(), "SyncAuthorizedEntries: {missing} entries are missing");
                missing = missing.saturating_sub(answer.entries.len());
                entries.extend(answer.entries);
            }
        }
        Ok((revisions.len(), entries))
    }

    /// Steeple's push stream.
    pub async fn watch(&self, last_revision: u64, log_id: String) -> Result<tonic::Streaming<WatchResponse>> {
        let mut client = SyncClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        Ok(client.watch(WatchRequest { last_revision, log_id }).await.context("Watch")?.into_inner())
    }

    /// Signs for these entries.
    pub async fn sign(&self, ids: &[String]) -> Result<()> {
        let params =
            ids.iter().map(|id| NewX509svidParams { entry_id: id.clone(), csr: self.csr.clone() }).collect();
        let mut client = SvidClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let signed = client
            .batch_new_x509svid(BatchNewX509svidRequest { params })
            .await
            .context("BatchNewX509SVID")?;
        let results = signed.into_inner().results;
        ensure!(results.len() == ids.len(), "BatchNewX509SVID: {} results for {}", results.len(), ids.len());
        results.iter().try_for_each(|result| succeeded("BatchNewX509SVID", result.status.as_ref()))
    }

    pub async fn sign_jwt(&self, entry_id: &str) -> Result<()> {
        let request = NewJwtsvidRequest { entry_id: entry_id.to_owned(), audience: vec!["bench".into()] };
        let signed =
            SvidClient::new(self.channel.clone()).new_jwtsvid(request).await.context("NewJWTSVID")?;
        ensure!(signed.into_inner().svid.is_some(), "NewJWTSVID: no SVID");
        Ok(())
    }
}

/// A certificate request without a name, as agents make it.
pub fn request(key: &PrivateKey) -> Result<Vec<u8>> {
    request_for(key, &[])
}

pub fn request_for(key: &PrivateKey, uris: &[&str]) -> Result<Vec<u8>> {
    let algorithm = key.key_type().x509_signature_algorithm();
    let tbs = csr_tbs(&DistinguishedName::default_svid(), &key.public_key(), uris, &[]);
    Ok(assemble(&tbs, algorithm, &key.sign(algorithm, &tbs)?))
}

/// Tokens for many agents.
pub async fn tokens(admin: &mut Admin, count: usize) -> Result<Vec<String>> {
    let mut tokens = Vec::with_capacity(count);
    for _ in 0..count {
        tokens.push(admin.token().await?);
    }
    Ok(tokens)
}
