//! What Cilium's node agent does with the admin socket, call by call (cilium/cilium, pkg/auth/spire): both streams or
//! none, each message the complete set, a new try after 100 ms, twice as late each time up to 10 s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use prost::Message as _;
use steeple_e2e::connect_uds;
use steeple_proto::spire::api::agent::delegatedidentity::v1 as api;
use steeple_proto::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use steeple_proto::spire::api::types::Selector;
use steeple_spiffe::Certificate;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Its own limit, also for sending.
const MAX_MESSAGE: usize = 20 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub struct CiliumAgent {
    socket: PathBuf,
    trust_domain: &'static str,
    /// By `spiffe://TD/path`.
    pub svids: BTreeMap<String, api::X509svidWithKey>,
    /// Of every trust domain, as one pool.
    pub authorities: Vec<Certificate>,
    /// SVIDs that were replaced or disappeared.
    pub rotated: Vec<String>,
    pub deleted: Vec<String>,
    pub messages: usize,
    pub largest: usize,
    pub errors: Vec<String>,
    streams: Option<Streams>,
    pause: Duration,
}

struct Streams {
    svids: Streaming<api::SubscribeToX509sviDsResponse>,
    bundles: Streaming<api::SubscribeToX509BundlesResponse>,
}

enum Heard {
    Svids(api::SubscribeToX509sviDsResponse),
    Bundles(api::SubscribeToX509BundlesResponse),
}

pub fn selector(kind: &str, value: &str) -> Selector {
    Selector { r#type: kind.into(), value: value.into() }
}

/// Everything it asks for.
pub fn mutual_auth() -> api::SubscribeToX509sviDsRequest {
    api::SubscribeToX509sviDsRequest { selectors: vec![selector("cilium", "mutual-auth")], pid: 0 }
}

pub async fn client(socket: &Path) -> Result<DelegatedIdentityClient<Channel>> {
    ensure!(std::fs::metadata(socket).is_ok(), "{} is not there", socket.display());
    let client = DelegatedIdentityClient::new(connect_uds(socket).await?);
    Ok(client.max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE))
}

impl CiliumAgent {
    pub fn new(socket: PathBuf, trust_domain: &'static str) -> Self {
        Self {
            socket,
            trust_domain,
            svids: BTreeMap::new(),
            authorities: Vec::new(),
            rotated: Vec::new(),
            deleted: Vec::new(),
            messages: 0,
            largest: 0,
            errors: Vec::new(),
            streams: None,
            pause: FIRST_PAUSE,
        }
    }

    async fn open(&self) -> Result<Streams> {
        let mut client = client(&self.socket).await?;
        let svids = client.subscribe_to_x509svi_ds(mutual_auth()).await?.into_inner();
        let bundles = client.subscribe_to_x509_bundles(api::SubscribeToX509BundlesRequest {}).await?;
        Ok(Streams { svids, bundles: bundles.into_inner() })
    }

    /// Goes on until `reached`.
    pub async fn until(
        &mut self,
        what: &str,
        within: Duration,
        reached: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + within;
        while !reached(self) {
            let left = end.saturating_duration_since(Instant::now());
            match timeout(left, self.step()).await {
                Ok(stepped) => stepped?,
                Err(_) => bail!(
                    "not within {within:?}: {what}; {} SVIDs, {} rotated, {} authorities, {} messages, errors {:?}",
                    self.svids.len(),
                    self.rotated.len(),
                    self.authorities.len(),
                    self.messages,
                    self.errors
                ),
            }
        }
        Ok(())
    }

    /// One message, or one failure and the pause after it.
    async fn step(&mut self) -> Result<()> {
        let failure = match &mut self.streams {
            None => match self.open().await {
                Ok(streams) => {
                    self.streams = Some(streams);
                    return Ok(());
                }
                Err(error) => format!("{error:#}"),
            },
            Some(streams) => match streams.hear().await {
                Ok(heard) => {
                    self.pause = FIRST_PAUSE;
                    return self.take(heard);
                }
                Err(status) => format!("{:?} {}", status.code(), status.message()),
            },
        };
        self.streams = None;
        self.errors.push(failure);
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }

    fn take(&mut self, heard: Heard) -> Result<()> {
        match heard {
            Heard::Svids(message) => self.take_svids(message),
            Heard::Bundles(message) => {
                let pool = message.ca_certificates.values().map(|der| Certificate::many_from_der(der));
                let pool: Vec<Vec<Certificate>> = pool.collect::<Result<_, _>>()?;
                self.authorities = pool.into_iter().flatten().collect();
                Ok(())
            }
        }
    }

    fn take_svids(&mut self, message: api::SubscribeToX509sviDsResponse) -> Result<()> {
        self.messages += 1;
        self.largest = self.largest.max(message.encoded_len());
        let mut now = BTreeMap::new();
        for svid in message.x509_svids {
            let inner = svid.x509_svid.as_ref().context("no SVID")?;
            let id = inner.id.as_ref().context("no id")?;
            ensure!(id.trust_domain == self.trust_domain, "the whole message is dropped: {id:?}");
            ensure!(inner.expires_at > 0, "a change could not be told");
            let key = format!("spiffe://{}{}", id.trust_domain, id.path);
            if let Some(before) = self.svids.get(&key).and_then(|before| before.x509_svid.as_ref())
                && (before.expires_at != inner.expires_at || before.cert_chain != inner.cert_chain)
            {
                self.rotated.push(key.clone());
            }
            now.insert(key, svid);
        }
        self.deleted.extend(self.svids.keys().filter(|key| !now.contains_key(*key)).cloned());
        self.svids = now;
        Ok(())
    }

    /// Chain and PKCS#8 key of an identity, as it would show them to its peers.
    pub fn certificate(&self, number: u32) -> Result<(Vec<Certificate>, &[u8])> {
        let key = format!("spiffe://{}/identity/{number}", self.trust_domain);
        let svid = self.svids.get(&key).with_context(|| format!("no SPIFFE ID for identity/{number}"))?;
        let inner = svid.x509_svid.as_ref().context("no SVID")?;
        let chain: Result<Vec<Certificate>, _> =
            inner.cert_chain.iter().map(|der| Certificate::from_der(der)).collect();
        Ok((chain?, &svid.x509_svid_key))
    }
}

impl Streams {
    async fn hear(&mut self) -> Result<Heard, Status> {
        let ended = || Status::unavailable("EOF");
        tokio::select! {
            message = self.svids.message() => message?.map(Heard::Svids).ok_or_else(ended),
            message = self.bundles.message() => message?.map(Heard::Bundles).ok_or_else(ended),
        }
    }
}
