//! The gRPC service by hand: tonic's generated one would encode each response anew, and tonic's encoder would copy what is
//! encoded once into a buffer of each stream. Requests are decoded by tonic.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request as HttpRequest, Response as HttpResponse};
use hyper::body::{Body as HttpBody, Frame};
use prost::Message;
use steeple_proto::{Codec, workload};
use steeple_runtime::grpc::MAX_MESSAGE;
use tonic::body::Body;
use tonic::codec::{Codec as _, Streaming};
use tonic::server::NamedService;
use tonic::{Code, Request, Status};
use tower_service::Service;

use super::WorkloadApi;
use super::encode::Framed;
use crate::state::AgentState;

/// What a handler streams.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<Framed, Status>> + Send>>;
type Answer<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl NamedService for WorkloadApi {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl Service<HttpRequest<Body>> for WorkloadApi {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Answer<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let api = self.clone();
        let state = self.0.state.clone();
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        match method {
            "FetchX509SVID" => answer(state, request, |message: Request<workload::X509svidRequest>| {
                api.fetch_x509_svid(message)
            }),
            "FetchX509Bundles" => answer(state, request, |message: Request<workload::X509BundlesRequest>| {
                api.fetch_x509_bundles(message)
            }),
            "FetchJWTBundles" => answer(state, request, |message: Request<workload::JwtBundlesRequest>| {
                api.fetch_jwt_bundles(message)
            }),
            "FetchWITSVID" => answer(state, request, |message: Request<workload::WitsvidRequest>| {
                api.fetch_wit_svid(message)
            }),
            "FetchWITBundles" => answer(state, request, |message: Request<workload::WitBundlesRequest>| {
                api.fetch_wit_bundles(message)
            }),
            "FetchJWTSVID" => answer(state, request, |message: Request<workload::JwtsvidRequest>| {
                once(api.fetch_jwt_svid(message))
            }),
            "ValidateJWTSVID" => {
                answer(state, request, |message: Request<workload::ValidateJwtsvidRequest>| {
                    once(api.validate_jwt_svid(message))
                })
            }
            other => {
                let status = Status::new(
                    Code::Unimplemented,
                    format!("unknown method {other} for service SpiffeWorkloadAPI"),
                );
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

/// The answer of a unary method.
async fn once(answer: impl Future<Output = Result<Framed, Status>>) -> Result<Answers, Status> {
    let answer = answer.await?;
    Ok(Box::pin(stream::iter([Ok(answer)])))
}

fn answer<D, F>(
    state: Arc<AgentState>,
    request: HttpRequest<Body>,
    handler: impl FnOnce(Request<D>) -> F + Send + 'static,
) -> Answer<Result<HttpResponse<Body>, Infallible>>
where
    D: Message + Default + 'static,
    F: Future<Output = Result<Answers, Status>> + Send,
{
    Box::pin(async move {
        let answers = async { state.unless_closed(handler(only_message(request).await?)).await };
        Ok(match answers.await {
            Ok(answers) => {
                let mut response = HttpResponse::new(Body::new(Sent { answers: Some(answers) }));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                response
            }
            Err(status) => status.into_http(),
        })
    })
}

/// The one message of a request.
async fn only_message<D: Message + Default + 'static>(
    request: HttpRequest<Body>,
) -> Result<Request<D>, Status> {
    uncompressed(request.headers())?;
    let (parts, body) = request.into_parts();
    let messages = Streaming::new_request(Codec::<(), D>::default().decoder(), body, None, Some(MAX_MESSAGE));
    let mut messages = pin!(messages);
    let message = messages.message().await?.ok_or_else(|| Status::internal("Missing request message."))?;
    // To the end: a request that breaks off has no answer.
    messages.trailers().await?;
    Ok(Request::from_http(HttpRequest::from_parts(parts, message)))
}

/// Compression is not served, as in SPIRE; the refusal is tonic's.
fn uncompressed(headers: &HeaderMap) -> Result<(), Status> {
    let Some(encoding) = headers.get("grpc-encoding").filter(|encoding| *encoding != "identity") else {
        return Ok(());
    };
    let encoding = String::from_utf8_lossy(encoding.as_bytes());
    let mut status =
        Status::unimplemented(format!("Content is compressed with `{encoding}` which isn't supported"));
    status
        .metadata_mut()
        .insert("grpc-accept-encoding", tonic::metadata::MetadataValue::from_static("identity"));
    Err(status)
}

/// A response on its way: messages, then the status.
struct Sent {
    answers: Option<Answers>,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(answers) = &mut self.answers else { return Poll::Ready(None) };
        let status = match ready!(answers.as_mut().poll_next(cx)) {
            Some(Ok(message)) => return Poll::Ready(Some(Ok(Frame::data(message.0)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.answers = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.answers.is_none()
    }
}
