//! The service on the wire. A first sync is thousands of entries: they are written from the index's own, with no
//! message of theirs in between, which the generated service would ask for.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};
use steeple_proto::Codec;
use steeple_proto::steeple::agent::v1 as pb;
use steeple_runtime::grpc::MAX_MESSAGE;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};

use super::{Answers, PushService};

/// The number of `WatchResponse.entries`.
pub(super) const ENTRIES: u32 = 5;

/// A [`pb::WatchResponse`] as it goes out.
#[derive(Debug)]
pub(super) struct Encoded(Vec<u8>);

impl Encoded {
    /// `head` holds the fields before the entries, `tail` those behind.
    pub fn new(head: &pb::WatchResponse, entries: &[u8], tail: &pb::WatchResponse) -> Self {
        let mut bytes = Vec::with_capacity(head.encoded_len() + entries.len() + tail.encoded_len());
        head.encode_raw(&mut bytes);
        bytes.extend_from_slice(entries);
        tail.encode_raw(&mut bytes);
        Self(bytes)
    }

    #[cfg(test)]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Message for Encoded {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    /// Nobody sends it here.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

impl NamedService for PushService {
    const NAME: &'static str = pb::sync_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for PushService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/steeple.agent.v1.Sync/Watch" {
                return Ok(Status::unimplemented("").into_http());
            }
            let mut grpc = Grpc::new(Codec::<Encoded, pb::WatchRequest>::default())
                .max_decoding_message_size(MAX_MESSAGE);
            Ok(grpc.server_streaming(Watching(service), request).await)
        })
    }
}

struct Watching(PushService);

impl ServerStreamingService<pb::WatchRequest> for Watching {
    type Response = Encoded;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<pb::WatchRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.watch(request).await })
    }
}
