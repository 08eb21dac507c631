//! One question to Docker or Podman: what is this container? A new connection each time: it costs some 20 µs on a
//! Unix socket, keeps nothing while nobody asks, and cannot be stale.
//!
//! An engine may be wrong, stuck or somebody else's program: its answer is bounded in size, must be about the container
//! asked for, and never reaches a log.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

/// A container with thousands of labels has some 100 kB.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// SPIRE's: three more tries, the pause doubling.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(200), Duration::from_millis(400)];

/// Who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    pub socket: PathBuf,
    pub version: Option<ApiVersion>,
    /// The user whose engine it is: no other may answer in its place. None: whoever the operator lets listen there.
    pub user: Option<u32>,
}

/// `1.41`: which version of its API Docker shall speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiVersion(String);

impl ApiVersion {
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.strip_prefix('v').unwrap_or(text);
        let (major, minor) = numbers.split_once('.')?;
        let number = |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        (number(major) && number(minor)).then(|| Self(numbers.to_owned()))
    }
}

/// What is of interest of a container.
pub struct Container {
    /// Of its first process.
    pub pid: i32,
    pub labels: BTreeMap<String, String>,
    /// `NAME=value`: may be secret.
    pub env: Vec<String>,
    /// As it was asked for when the container was made.
    pub image: String,
    /// `sha256:…` of the image's configuration.
    pub image_id: String,
}

/// Why the engine told nothing.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot connect to the engine at {}: {source}; is it running, and may the agent use its socket?", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the engine at {} is user {found}'s, not user {wanted}'s", socket.display())]
    OtherUser { socket: PathBuf, found: u32, wanted: u32 },
    #[error("the engine at {} broke off: {source}", socket.display())]
    Http { socket: PathBuf, source: hyper::Error },
    #[error("the engine at {} has no container {id}", socket.display())]
    NoContainer { socket: PathBuf, id: String },
    #[error("the engine at {} answers {status}", socket.display())]
    Refused { socket: PathBuf, status: StatusCode },
    #[error("the engine at {} answers with more than {MAX_ANSWER} bytes, or breaks off", socket.display())]
    Body { socket: PathBuf },
    #[error("the engine at {} answers with something else than a container (line {line}, column {column} of the answer)", socket.display())]
    Shape { socket: PathBuf, line: usize, column: usize },
    #[error("the engine at {} was asked for container {asked} and tells of another", socket.display())]
    OtherContainer { socket: PathBuf, asked: String },
    #[error("container {id} is not running, says the engine at {}", socket.display())]
    NotRunning { socket: PathBuf, id: String },
}

impl EngineError {
    /// Another try may do better.
    fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Http { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            _ => false,
        }
    }
}

impl Engine {
    /// Tries again what may pass, as SPIRE does.
    pub async fn inspect(&self, id: &str) -> Result<Container, EngineError> {
        for pause in PAUSES {
            match self.inspect_once(id).await {
                Err(error) if error.is_passing() => tokio::time::sleep(pause).await,
                told => return told,
            }
        }
        self.inspect_once(id).await
    }

    async fn inspect_once(&self, id: &str) -> Result<Container, EngineError> {
        let body = self.get(id).await?;
        let told: Inspected = serde_json::from_slice(&body).map_err(|error| {
            // Its text may show what stands there: environment variables are secrets.
            EngineError::Shape { socket: self.socket(), line: error.line(), column: error.column() }
        })?;
        if !told.is(id) {
            return Err(EngineError::OtherContainer { socket: self.socket(), asked: id.to_owned() });
        }
        let pid = told.state.pid;
        if pid <= 0 {
            return Err(EngineError::NotRunning { socket: self.socket(), id: id.to_owned() });
        }
        let config = told.config.unwrap_or_default();
        Ok(Container {
            pid,
            labels: config.labels.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            image: config.image.unwrap_or_default(),
            image_id: told.image.unwrap_or_default(),
        })
    }

    async fn get(&self, id: &str) -> Result<Bytes, EngineError> {
        let stream = self.connect().await?;
        let broken = |source| EngineError::Http { socket: self.socket(), source };
        let (mut sender, connection) =
            http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
        let version = self.version.as_ref().map(|version| format!("/v{}", version.0)).unwrap_or_default();
        let mut request = Request::new(Empty::new());
        // What is not a path cannot come here: IDs and names are checked where they are found.
        *request.uri_mut() = format!("{version}/containers/{id}/json").parse().unwrap_or_default();
        request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("localhost"));
        let answer = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            match response.status() {
                StatusCode::OK => {}
                StatusCode::NOT_FOUND => {
                    return Err(EngineError::NoContainer { socket: self.socket(), id: id.to_owned() });
                }
                status => return Err(EngineError::Refused { socket: self.socket(), status }),
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            body.map(http_body_util::Collected::to_bytes)
                .map_err(|_| EngineError::Body { socket: self.socket() })
        };
        driven(answer, connection).await
    }

    async fn connect(&self) -> Result<UnixStream, EngineError> {
        let failed = |source| EngineError::Connect { socket: self.socket(), source };
        let stream = UnixStream::connect(&self.socket).await.map_err(failed)?;
        if let Some(wanted) = self.user {
            let found = stream.peer_cred().map_err(failed)?.uid();
            if found != wanted {
                return Err(EngineError::OtherUser { socket: self.socket(), found, wanted });
            }
        }
        Ok(stream)
    }

    fn socket(&self) -> PathBuf {
        Path::to_path_buf(&self.socket)
    }
}

/// The answer, while the connection is kept going. One that ends may have left the answer behind.
async fn driven<T>(answer: impl Future<Output = T>, connection: impl Future) -> T {
    let (mut answer, mut connection) = (pin!(answer), pin!(connection));
    tokio::select! {
        answer = &mut answer => return answer,
        _ = &mut connection => {}
    }
    answer.await
}

/// Docker's `GET /containers/ID/json`; Podman's compatible form has the same names.
#[derive(Deserialize)]
struct Inspected {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Name", default)]
    name: Option<String>,
    #[serde(rename = "Image", default)]
    image: Option<String>,
    #[serde(rename = "State")]
    state: State,
    #[serde(rename = "Config", default)]
    config: Option<Config>,
}

#[derive(Deserialize)]
struct State {
    #[serde(rename = "Pid", default)]
    pid: i32,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(rename = "Labels", default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(rename = "Env", default)]
    env: Option<Vec<String>>,
    #[serde(rename = "Image", default)]
    image: Option<String>,
}

impl Inspected {
    /// By its ID, or by what a legacy pattern found: the beginning of the ID, or the name.
    fn is(&self, asked: &str) -> bool {
        let start = self.id.get(..asked.len()).is_some_and(|start| start.eq_ignore_ascii_case(asked));
        let name = self.name.as_deref().map(|name| name.strip_prefix('/').unwrap_or(name));
        start || name == Some(asked)
    }
}

#[cfg(test)]
pub(crate) mod tests;
