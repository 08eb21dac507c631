//! The gRPC service by hand: tonic's generated one would encode each response anew.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http::{Request as HttpRequest, Response as HttpResponse};
use prost::Message;
use steeple_proto::workload;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tower_service::Service;

use super::WorkloadApi;
use super::codec::EncodedCodec;
use crate::state::AgentState;

/// What a handler streams.
pub(super) type Encoded = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
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
            "FetchX509SVID" => stream::<workload::X509svidRequest, _>(state, request, move |request| {
                api.clone().fetch_x509_svid(request)
            }),
            "FetchX509Bundles" => stream::<workload::X509BundlesRequest, _>(state, request, move |request| {
                api.clone().fetch_x509_bundles(request)
            }),
            "FetchJWTBundles" => stream::<workload::JwtBundlesRequest, _>(state, request, move |request| {
                api.clone().fetch_jwt_bundles(request)
            }),
            "FetchWITSVID" => stream::<workload::WitsvidRequest, _>(state, request, move |request| {
                api.clone().fetch_wit_svid(request)
            }),
            "FetchWITBundles" => stream::<workload::WitBundlesRequest, _>(state, request, move |request| {
                api.clone().fetch_wit_bundles(request)
            }),
            "FetchJWTSVID" => unary::<workload::JwtsvidRequest, _>(state, request, move |request| {
                api.clone().fetch_jwt_svid(request)
            }),
            "ValidateJWTSVID" => {
                unary::<workload::ValidateJwtsvidRequest, _>(state, request, move |request| {
                    api.clone().validate_jwt_svid(request)
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

fn stream<D, F>(
    state: Arc<AgentState>,
    request: HttpRequest<Body>,
    handler: impl Fn(Request<D>) -> F + Send + Sync + 'static,
) -> Answer<Result<HttpResponse<Body>, Infallible>>
where
    D: Message + Default + 'static,
    F: Future<Output = Result<Encoded, Status>> + Send + 'static,
{
    let handler = Arc::new(move |request: Request<D>| {
        let (state, answer) = (state.clone(), handler(request));
        Box::pin(async move { state.unless_closed(answer).await.map(Response::new) }) as Answer<_>
    });
    Box::pin(async move {
        let mut grpc = Grpc::new(EncodedCodec::<D>::default());
        Ok(grpc.server_streaming(Streaming(handler), request).await)
    })
}

fn unary<D, F>(
    state: Arc<AgentState>,
    request: HttpRequest<Body>,
    handler: impl Fn(Request<D>) -> F + Send + Sync + 'static,
) -> Answer<Result<HttpResponse<Body>, Infallible>>
where
    D: Message + Default + 'static,
    F: Future<Output = Result<Bytes, Status>> + Send + 'static,
{
    let handler = Arc::new(move |request: Request<D>| {
        let (state, answer) = (state.clone(), handler(request));
        Box::pin(async move { state.unless_closed(answer).await.map(Response::new) }) as Answer<_>
    });
    Box::pin(async move {
        let mut grpc = Grpc::new(EncodedCodec::<D>::default());
        Ok(grpc.unary(Unary(handler), request).await)
    })
}

type Handler<D, R> = Arc<dyn Fn(Request<D>) -> Answer<Result<Response<R>, Status>> + Send + Sync>;

struct Streaming<D>(Handler<D, Encoded>);

impl<D: Message + Default + 'static> ServerStreamingService<D> for Streaming<D> {
    type Response = Bytes;
    type ResponseStream = Encoded;
    type Future = Answer<Result<Response<Encoded>, Status>>;

    fn call(&mut self, request: Request<D>) -> Self::Future {
        (self.0)(request)
    }
}

struct Unary<D>(Handler<D, Bytes>);

impl<D: Message + Default + 'static> UnaryService<D> for Unary<D> {
    type Response = Bytes;
    type Future = Answer<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<D>) -> Self::Future {
        (self.0)(request)
    }
}
