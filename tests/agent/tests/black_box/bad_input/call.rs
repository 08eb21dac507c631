//! Calls whose messages are bytes, so that they may be wrong.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bytes::{Buf as _, BufMut as _};
use steeple_e2e::connect_uds;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataKey, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// The security header as it has to be.
pub const HEADER: (&str, &str) = ("workload.spiffe.io", "true");
const LONG: Duration = Duration::from_mins(1);

pub struct Calls(Grpc<Channel>);

impl Calls {
    pub async fn connect(socket: &Path) -> Result<Self> {
        Ok(Self(Grpc::new(connect_uds(socket).await?)))
    }

    /// The status that the call ends with, if it ends with no message before.
    pub async fn refusal(
        &mut self,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: &[u8],
    ) -> Status {
        let mut request = Request::new(body.to_vec());
        for (name, value) in headers {
            request.metadata_mut().append(MetadataKey::from_static(name), MetadataValue::from_static(value));
        }
        let call = async {
            self.0.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
            let path = path.parse().map_err(|_| Status::unknown("not a path"))?;
            let mut stream = self.0.server_streaming(request, path, Raw).await?.into_inner();
            stream.message().await
        };
        match tokio::time::timeout(LONG, call).await {
            Err(_) => Status::deadline_exceeded("no answer at all"),
            Ok(Err(status)) => status,
            Ok(Ok(message)) => Status::new(Code::Ok, format!("{message:?}")),
        }
    }
}

#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length).to_vec()))
    }
}
