//! Asking a bundle endpoint.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use http::header;

use crate::clock::Clock;
use crate::tls::{EndpointTrust, client_config, refusal_in};

/// A bundle is some kilobytes.
const MAX_BODY: usize = 4 * 1024 * 1024;
/// What is shown of an unexpected answer's body.
const MAX_SHOWN: usize = 1024;
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// For the whole answer: a server that dribbles is given up.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why no bundle came. Says what to do where that is not plain.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{url:?} cannot be asked: {reason}")]
    Url { url: String, reason: String },
    #[error("{url}: cannot connect: {reason}")]
    Connect { url: String, reason: String },
    /// The certificate, or TLS itself.
    #[error("{url}: the endpoint could not be authenticated: {reason}")]
    Tls { url: String, reason: String },
    #[error("{url}: no whole answer within {} seconds", DEADLINE.as_secs())]
    Deadline { url: String },
    #[error("{url}: the connection broke: {reason}")]
    Broken { url: String, reason: String },
    /// SPIFFE Federation §5.2.1.4 lets a client follow; not to follow is safer, and the target can be configured.
    #[error(
        "{url}: the endpoint redirects to {to:?} (status {status}), and redirects are not followed; configure the URL \
         that serves the bundle"
    )]
    Redirect { url: String, status: u16, to: String },
    #[error("{url}: unexpected status {status} fetching bundle: {body}")]
    Status { url: String, status: u16, body: String },
    #[error("{url}: the answer is larger than {} MiB, which no bundle is; check the URL", MAX_BODY >> 20)]
    TooLarge { url: String },
}

/// GETs `url`. The answer's body is at most 4 MiB; nothing of it has been judged.
pub async fn fetch(url: &str, trust: EndpointTrust, clock: Arc<dyn Clock>) -> Result<Vec<u8>, FetchError> {
    fetch_within(url, trust, clock, DEADLINE).await
}

pub(super) async fn fetch_within(
    url: &str,
    trust: EndpointTrust,
    clock: Arc<dyn Clock>,
    deadline: Duration,
) -> Result<Vec<u8>, FetchError> {
    let tls = client_config(trust, clock)
        .map_err(|error| FetchError::Tls { url: url.to_owned(), reason: error.to_string() })?;
    let failed = |error: reqwest::Error| failure(url, &error);
    // One connection for each fetch: the endpoint proves each time that it is the one.
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .https_only(true)
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .connect_timeout(CONNECT_DEADLINE.min(deadline))
        .timeout(deadline)
        .build()
        .map_err(failed)?;
    let mut response =
        client.get(url).header(header::ACCEPT, "application/json").send().await.map_err(failed)?;
    let status = response.status();
    if status.is_redirection() {
        let to = response.headers().get(header::LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()));
        let to = to.unwrap_or_default().into_owned();
        return Err(FetchError::Redirect { url: url.to_owned(), status: status.as_u16(), to });
    }
    if status != http::StatusCode::OK {
        let body = read(&mut response, MAX_SHOWN).await.unwrap_or_else(|partial| partial.0);
        let body = shown(&body);
        return Err(FetchError::Status { url: url.to_owned(), status: status.as_u16(), body });
    }
    let too_large = || FetchError::TooLarge { url: url.to_owned() };
    if response.content_length().is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    read(&mut response, MAX_BODY).await.map_err(|(_, broke)| broke.map_or_else(too_large, failed))
}

/// The body, or what came of it and why it stopped: `None` = it is longer than `limit`.
async fn read(
    response: &mut reqwest::Response,
    limit: usize,
) -> Result<Vec<u8>, (Vec<u8>, Option<reqwest::Error>)> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => {
                body.extend_from_slice(&chunk[..limit - body.len()]);
                return Err((body, None));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => return Err((body, Some(error))),
        }
    }
}

/// Text for a log line.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(MAX_SHOWN)]);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn failure(url: &str, error: &reqwest::Error) -> FetchError {
    let url = url.to_owned();
    if error.is_timeout() {
        return FetchError::Deadline { url };
    }
    // The causes from the outside in; reqwest's own text only repeats the URL.
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(reason) = refusal_in(cause) {
            return FetchError::Tls { url, reason };
        }
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes.dedup();
    let reason = if causes.is_empty() { error.to_string() } else { causes.join(": ") };
    if error.is_builder() {
        FetchError::Url { url, reason }
    } else if error.is_connect() {
        FetchError::Connect { url, reason }
    } else {
        FetchError::Broken { url, reason }
    }
}
