//! The bootstrap bundle from a file, a URL or another Workload API.

use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use steeple_agent_api::{Attempt, TrustError, TrustSource};
use steeple_proto::workload::X509BundlesRequest;
use steeple_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use steeple_runtime::grpc::status_text;
use steeple_spiffe::endpoint::Endpoint;
use steeple_spiffe::{Bundle, Certificate, TrustDomain};
use tonic::metadata::MetadataValue;

use crate::config::{BundleFormat, Config, TrustConfig};

const TIMEOUT: Duration = Duration::from_secs(30);
/// SPIRE's patience with another Workload API.
const WORKLOAD_API_TIMEOUT: Duration = Duration::from_mins(1);
/// A bundle is a few kilobytes.
const MAX_BUNDLE: usize = 16 * 1024 * 1024;

pub struct Bootstrap {
    trust_domain: TrustDomain,
    config: TrustConfig,
    server_address: String,
    server_port: u16,
}

impl Bootstrap {
    pub fn new(config: &Config) -> Self {
        Self {
            trust_domain: config.trust_domain.clone(),
            config: config.trust.clone(),
            server_address: config.server_address.clone(),
            server_port: config.server_port,
        }
    }

    async fn download(&self, url: &str, socket: Option<&Path>, attempt: &Attempt) -> Result<String, String> {
        let failed =
            |error: reqwest::Error| format!("unable to fetch trust bundle URL {url}: {}", causes(&error));
        let mut builder = reqwest::Client::builder().timeout(TIMEOUT).tls_danger_accept_invalid_certs(false);
        let mut address =
            reqwest::Url::parse(url).map_err(|error| format!("unable to parse trust bundle URL: {error}"))?;
        if let Some(socket) = socket {
            builder = builder.unix_socket(socket.to_owned());
            let started = jiff::Timestamp::from_second(attempt.since).unwrap_or_default();
            // What the program at the other end may want to know (spire.md §2.3).
            address
                .query_pairs_mut()
                .append_pair("spire-attest-mode", attempt.mode)
                .append_pair("spire-connection-attempts", &attempt.number.to_string())
                .append_pair("spire-attest-start-time", &started.to_string())
                .append_pair("spire-server-address", &self.server_address)
                .append_pair("spire-server-port", &self.server_port.to_string())
                .append_pair("spiffe-trust-domain", self.trust_domain.name());
        }
        let client = builder.build().map_err(failed)?;
        let mut response = client.get(address).send().await.map_err(failed)?;
        if !response.status().is_success() {
            return Err(format!("error downloading trust bundle: {} answered {}", url, response.status()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > MAX_BUNDLE {
                return Err(format!("trust bundle URL {url} answered more than {MAX_BUNDLE} bytes"));
            }
            body.extend_from_slice(&chunk);
        }
        String::from_utf8(body).map_err(|_| format!("trust bundle URL {url} answered no text"))
    }

    fn parse(&self, text: &str, format: BundleFormat) -> Result<Vec<Certificate>, String> {
        let authorities = match format {
            BundleFormat::Pem => Certificate::from_pem(text).map_err(|error| error.to_string())?,
            BundleFormat::Spiffe => Bundle::from_spiffe_json(self.trust_domain.clone(), text)
                .map_err(|error| format!("unable to parse SPIFFE trust bundle: {error}"))?
                .x509_authorities
                .into_iter()
                .map(|authority| authority.certificate)
                .collect(),
        };
        if authorities.is_empty() {
            return Err("no certificates in it".to_owned());
        }
        Ok(authorities)
    }
}

#[tonic::async_trait]
impl TrustSource for Bootstrap {
    async fn bootstrap(&self, attempt: &Attempt) -> Result<Option<Vec<Certificate>>, TrustError> {
        match &self.config {
            TrustConfig::Insecure => Ok(None),
            TrustConfig::WorkloadApi(endpoint) => {
                let passing = |what: String| TrustError {
                    text: format!("{what}; check trust_bundle_spiffe_workload_api"),
                    passing: true,
                };
                let fetching =
                    tokio::time::timeout(WORKLOAD_API_TIMEOUT, x509_bundle(endpoint, &self.trust_domain));
                let late = || Err(format!("SPIFFE Workload API {endpoint} did not answer in a minute"));
                fetching.await.unwrap_or_else(|_| late()).map(Some).map_err(passing)
            }
            TrustConfig::File { path, format } => {
                let wrong = |what: String| TrustError {
                    text: format!(
                        "{}: {what}; check trust_bundle_path and trust_bundle_format",
                        path.display()
                    ),
                    passing: false,
                };
                let text = tokio::fs::read_to_string(path).await.map_err(|error| wrong(error.to_string()))?;
                self.parse(&text, *format).map(Some).map_err(wrong)
            }
            TrustConfig::Url { url, socket, format } => {
                let passing = |text| TrustError { text, passing: true };
                let text = self.download(url, socket.as_deref(), attempt).await.map_err(passing)?;
                let wrong =
                    |what| passing(format!("trust bundle from {url}: {what}; check trust_bundle_format"));
                self.parse(&text, *format).map(Some).map_err(wrong)
            }
        }
    }
}

/// The authorities that the Workload API at `endpoint` gives for `trust_domain`.
async fn x509_bundle(endpoint: &Endpoint, trust_domain: &TrustDomain) -> Result<Vec<Certificate>, String> {
    let failed =
        |what: String| format!("unable to fetch trust bundle from SPIFFE Workload API {endpoint}: {what}");
    let uri = match endpoint {
        Endpoint::Tcp(address) => format!("http://{address}"),
        Endpoint::Unix(_) => "http://localhost".to_owned(),
    };
    let dial = tonic::transport::Endpoint::try_from(uri).map_err(|error| failed(error.to_string()))?;
    let channel = match endpoint {
        Endpoint::Tcp(_) => dial.connect().await,
        Endpoint::Unix(path) => {
            let path = path.clone();
            dial.connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
        }
    };
    let channel = channel.map_err(|error| failed(causes(&error)))?;
    let mut request = tonic::Request::new(X509BundlesRequest {});
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    let mut client = SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(MAX_BUNDLE);
    let answers = client.fetch_x509_bundles(request).await;
    let mut answers = answers.map_err(|status| failed(status_text(&status)))?.into_inner();
    let answer = answers.message().await.map_err(|status| failed(status_text(&status)))?;
    let answer = answer.ok_or_else(|| failed("it ended the stream without an answer".to_owned()))?;
    let der = answer.bundles.get(trust_domain.as_id_str()).ok_or_else(|| {
        format!(
            "SPIFFE Workload API {endpoint} did not provide a trust bundle for trust domain {:?}",
            trust_domain.name()
        )
    })?;
    let authorities = Certificate::many_from_der(der).map_err(|error| failed(error.to_string()))?;
    if authorities.is_empty() {
        return Err(failed("the bundle is empty".to_owned()));
    }
    Ok(authorities)
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
