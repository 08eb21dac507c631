//! A workload, and an Envoy, on the agent's socket.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use steeple_e2e::Workload;
use steeple_proto::envoy::service::discovery::v3::DiscoveryRequest;
use steeple_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use steeple_proto::workload::{JwtsvidRequest, ValidateJwtsvidRequest, X509svidRequest, X509svidResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

/// An open FetchX509SVID stream.
#[derive(Debug)]
pub struct Held {
    stream: Streaming<X509svidResponse>,
    /// What it last said.
    pub last: X509svidResponse,
    /// The connection ends with its last user.
    _workload: Workload,
}

pub const PATIENCE: Duration = Duration::from_mins(2);

impl Held {
    /// Connects and waits for the first message.
    pub async fn open(socket: &Path) -> Result<Self> {
        let mut workload = Workload::connect(socket).await?;
        let opened = workload.api.fetch_x509svid(Workload::request(X509svidRequest {})).await;
        let mut stream = opened.context("FetchX509SVID")?.into_inner();
        let last = stream.message().await.context("FetchX509SVID")?.context("FetchX509SVID ended")?;
        Ok(Self { stream, last, _workload: workload })
    }

    /// The same, again and again while there is no identity or no agent.
    pub async fn patiently(socket: &Path, pause: Duration) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        loop {
            match Self::open(socket).await {
                Ok(held) => return Ok(held),
                Err(error) if Instant::now() > end => return Err(error.context("after two minutes")),
                Err(_) => tokio::time::sleep(pause).await,
            }
        }
    }

    /// Waits until it holds this many identities.
    pub async fn until_count(&mut self, count: usize) -> Result<()> {
        self.until(&format!("{count} identities"), |message| message.svids.len() == count).await
    }

    /// Waits until an identity whose ID ends so is there, or is not.
    pub async fn until_named(&mut self, name: &str, present: bool) -> Result<()> {
        let suffix = format!("/{name}");
        let there =
            |message: &X509svidResponse| message.svids.iter().any(|svid| svid.spiffe_id.ends_with(&suffix));
        self.until(name, |message| there(message) == present).await
    }

    async fn until(&mut self, what: &str, holds: impl Fn(&X509svidResponse) -> bool) -> Result<()> {
        let waited = async {
            while !holds(&self.last) {
                self.last =
                    self.stream.message().await.context("FetchX509SVID")?.context("FetchX509SVID ended")?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, waited)
            .await
            .with_context(|| format!("{what}: nothing in two minutes"))?
    }

    /// Ends with the connection.
    pub async fn ended(mut self) {
        while let Ok(Some(_)) = self.stream.message().await {}
    }
}

/// One FetchX509SVID on this connection: the first message, then away.
pub async fn fetch_x509(workload: &mut Workload, count: usize) -> Result<()> {
    let opened =
        workload.api.fetch_x509svid(Workload::request(X509svidRequest {})).await.context("FetchX509SVID")?;
    let message =
        opened.into_inner().message().await.context("FetchX509SVID")?.context("FetchX509SVID ended")?;
    ensure!(message.svids.len() == count, "{} identities instead of {count}", message.svids.len());
    Ok(())
}

/// One FetchJWTSVID for one audience; one of the tokens.
pub async fn fetch_jwt(workload: &mut Workload, count: usize) -> Result<String> {
    let request = JwtsvidRequest { audience: vec!["bench".into()], spiffe_id: String::new() };
    let answer =
        workload.api.fetch_jwtsvid(Workload::request(request)).await.context("FetchJWTSVID")?.into_inner();
    ensure!(answer.svids.len() == count, "{} JWT-SVIDs instead of {count}", answer.svids.len());
    Ok(answer.svids.into_iter().next().context("no JWT-SVID")?.svid)
}

pub async fn validate_jwt(workload: &mut Workload, token: &str) -> Result<()> {
    let request = ValidateJwtsvidRequest { audience: "bench".into(), svid: token.to_owned() };
    workload.api.validate_jwtsvid(Workload::request(request)).await.context("ValidateJWTSVID")?;
    Ok(())
}

/// One StreamSecrets for the default identity and the bundle, as Envoy asks.
pub async fn fetch_secrets(channel: Channel) -> Result<()> {
    const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    let (asks, stream) = mpsc::channel(1);
    let ask = DiscoveryRequest {
        resource_names: vec!["default".into(), "ROOTCA".into()],
        type_url: SECRET.into(),
        ..DiscoveryRequest::default()
    };
    asks.send(ask).await?;
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let mut answers =
        client.stream_secrets(ReceiverStream::new(stream)).await.context("StreamSecrets")?.into_inner();
    let answer = answers.message().await.context("StreamSecrets")?.context("StreamSecrets ended")?;
    match answer.resources.len() {
        2 => Ok(()),
        count => bail!("{count} secrets instead of 2"),
    }
}
