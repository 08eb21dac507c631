//! The bootstrap bundle from a file or a URL.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use steeple_agent_api::{TrustError, TrustSource};
use steeple_spiffe::{Bundle, Certificate, TrustDomain};

use crate::config::{BundleFormat, Config, TrustConfig};

const TIMEOUT: Duration = Duration::from_secs(30);
/// A bundle is a few kilobytes.
const MAX_BUNDLE: usize = 16 * 1024 * 1024;

pub struct Bootstrap {
    trust_domain: TrustDomain,
    config: TrustConfig,
    server_address: String,
    server_port: u16,
    /// When this agent began, Unix seconds.
    started: i64,
    attempts: AtomicU64,
}

impl Bootstrap {
    pub fn new(config: &Config, started: i64) -> Self {
        Self {
            started,
            attempts: AtomicU64::new(0),
            trust_domain: config.trust_domain.clone(),
            config: config.trust.clone(),
            server_address: config.server_address.clone(),
            server_port: config.server_port,
        }
    }

    async fn download(&self, url: &str, socket: Option<&Path>) -> Result<String, String> {
        let failed =
            |error: reqwest::Error| format!("unable to fetch trust bundle URL {url}: {}", causes(&error));
        let mut builder = reqwest::Client::builder().timeout(TIMEOUT).tls_danger_accept_invalid_certs(false);
        let mut address =
            reqwest::Url::parse(url).map_err(|error| format!("unable to parse trust bundle URL: {error}"))?;
        if let Some(socket) = socket {
            builder = builder.unix_socket(socket.to_owned());
            let attempts = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
            let started = jiff::Timestamp::from_second(self.started).unwrap_or_default();
            // What the program at the other end may want to know (spire.md §2.3).
            address
                .query_pairs_mut()
                .append_pair("spire-attest-mode", "bootstrap")
                .append_pair("spire-connection-attempts", &attempts.to_string())
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
    async fn bootstrap(&self) -> Result<Option<Vec<Certificate>>, TrustError> {
        match &self.config {
            TrustConfig::Insecure => Ok(None),
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
                let text = self.download(url, socket.as_deref()).await.map_err(passing)?;
                let wrong =
                    |what| passing(format!("trust bundle from {url}: {what}; check trust_bundle_format"));
                self.parse(&text, *format).map(Some).map_err(wrong)
            }
        }
    }
}

fn causes(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
