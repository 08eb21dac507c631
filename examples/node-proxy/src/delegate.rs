//! The agent's side: one stream for each workload, one for the authorities. Each message is the complete set.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use steeple_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use steeple_proto::envoy::extensions::transport_sockets::tls::v3 as tls;
use steeple_proto::spire::api::agent::delegatedidentity::v1 as api;
use steeple_proto::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use steeple_proto::spire::api::types::Selector;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint};

use crate::sds::Board;

/// How the agent is told which workload is meant.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// The agent attests it. The stream ends when the process does.
    Process(i32),
    /// The delegate knows what the workload is.
    Selectors(Vec<Selector>),
}

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// All identities of a node may come in one message.
const MAX_MESSAGE: usize = 64 << 20;

#[derive(Clone)]
pub(crate) struct Delegate {
    endpoint: Endpoint,
}

impl Delegate {
    pub fn new(socket: &Path) -> Result<Self> {
        let address = format!("unix://{}", socket.display());
        Ok(Self { endpoint: Endpoint::from_shared(address)? })
    }

    async fn client(&self) -> Result<DelegatedIdentityClient<Channel>> {
        let channel = self.endpoint.connect().await.context("the agent does not answer")?;
        Ok(DelegatedIdentityClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
    }

    /// Puts the workload's SVID on the board at each change, and asks again after each failure. The Envoy goes on with
    /// what it has meanwhile.
    pub async fn follow(self, name: String, wanted: Wanted, board: Board) {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Err(error) = self.svids(&name, &wanted, &board, &mut pause).await {
                eprintln!("{name}: {error:#}");
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn svids(&self, name: &str, wanted: &Wanted, board: &Board, pause: &mut Duration) -> Result<()> {
        let (selectors, pid) = match wanted {
            Wanted::Process(pid) => (Vec::new(), *pid),
            Wanted::Selectors(selectors) => (selectors.clone(), 0),
        };
        let asked = api::SubscribeToX509sviDsRequest { selectors, pid };
        let mut stream = self.client().await?.subscribe_to_x509svi_ds(asked).await?.into_inner();
        while let Some(message) = stream.message().await? {
            *pause = FIRST_PAUSE;
            // The first identity, as `default` is of an agent's own SDS.
            match message.x509_svids.first() {
                Some(svid) => board.put(name, certificate(svid)?),
                None => eprintln!("{name}: no entry matches it"),
            }
        }
        Ok(())
    }

    pub async fn follow_authorities(self, board: Board) {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Err(error) = self.authorities(&board, &mut pause).await {
                eprintln!("authorities: {error:#}");
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn authorities(&self, board: &Board, pause: &mut Duration) -> Result<()> {
        let asked = api::SubscribeToX509BundlesRequest {};
        let mut stream = self.client().await?.subscribe_to_x509_bundles(asked).await?.into_inner();
        while let Some(message) = stream.message().await? {
            *pause = FIRST_PAUSE;
            let mut bundles: Vec<(String, Vec<u8>)> = message.ca_certificates.into_iter().collect();
            bundles.sort();
            board.put("ROOTCA", crate::sds::trust(bundles.iter().map(|(id, der)| (&**id, pem_of_many(der)))));
        }
        Ok(())
    }
}

fn certificate(svid: &api::X509svidWithKey) -> Result<tls::secret::Type> {
    let inner = svid.x509_svid.as_ref().context("a message without an SVID")?;
    let chain: String = inner.cert_chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
    Ok(tls::secret::Type::TlsCertificate(tls::TlsCertificate {
        certificate_chain: Some(inline(chain)),
        private_key: Some(inline(pem("PRIVATE KEY", &svid.x509_svid_key))),
    }))
}

pub(crate) fn inline(text: String) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(text.into_bytes())) }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A bundle's certificates follow one another; each begins with its own length (DER).
fn pem_of_many(mut der: &[u8]) -> String {
    let mut text = String::new();
    while let Some(length) = length_of_first(der).filter(|length| *length <= der.len()) {
        text.push_str(&pem("CERTIFICATE", &der[..length]));
        der = &der[length..];
    }
    text
}

fn length_of_first(der: &[u8]) -> Option<usize> {
    let first = usize::from(*der.get(1)?);
    if first < 0x80 {
        return Some(2 + first);
    }
    let digits = der.get(2..2 + (first & 0x7f))?;
    let length = digits
        .iter()
        .try_fold(0usize, |length, digit| length.checked_mul(256)?.checked_add(usize::from(*digit)))?;
    length.checked_add(2 + digits.len())
}
