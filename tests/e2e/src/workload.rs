//! A Workload API client that sends just what the test says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hyper_util::rt::TokioIo;
use steeple_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, metadata::MetadataValue};

/// The raw generated client over one connection.
#[derive(Clone, Debug)]
pub struct Workload {
    pub api: SpiffeWorkloadApiClient<Channel>,
}

impl Workload {
    pub async fn connect(socket: &Path) -> Result<Self> {
        Ok(Self {
            api: SpiffeWorkloadApiClient::new(connect_uds(socket).await?).max_decoding_message_size(64 << 20),
        })
    }

    /// A request with the security header (SPIFFE_Workload_Endpoint §3).
    pub fn request<T>(message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
        request
    }
}

/// A channel over a Unix socket.
pub async fn connect_uds(socket: &Path) -> Result<Channel> {
    let path: PathBuf = socket.to_owned();
    Endpoint::from_static("http://localhost")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .with_context(|| format!("{} does not answer", socket.display()))
}
