//! What happens around every call, in SPIRE's order: names, metrics, authorization, the handler, audit of failures.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use steeple_runtime::grpc;
use steeple_runtime::metrics::{CallMetric, rpc_key};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Level;

use crate::access::{METHODS, Method, method};
use crate::authorize::{Denied, authorize};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::rpc::{Fields, RequestId, Rpc, emit};
use crate::state::ServerState;

/// Wraps all services of one endpoint.
#[derive(Clone, Debug)]
pub struct ApiLayer {
    state: Arc<ServerState>,
    meters: Arc<Meters>,
}

/// One for each method, by path: handles are looked up once.
type Meters = HashMap<&'static str, Arc<CallMetric>>;

impl ApiLayer {
    pub fn new(state: Arc<ServerState>) -> Self {
        let meters = METHODS.iter().map(|m| (m.path, Arc::new(CallMetric::new(rpc_key(m.path))))).collect();
        Self { state, meters: Arc::new(meters) }
    }
}

impl<S> Layer<S> for ApiLayer {
    type Service = ApiService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ApiService { api: self.clone(), inner }
    }
}

/// See [`ApiLayer`].
#[derive(Clone, Debug)]
pub struct ApiService<S> {
    api: ApiLayer,
    inner: S,
}

impl<S, B> Service<Request<Body>> for ApiService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(method) = method(request.uri().path()) else {
            // gRPC's own answer to a method nobody serves; nothing to authorize.
            let unknown = unknown_method(request.uri().path());
            let fallback = self.inner.call(request);
            return Box::pin(async move {
                let response = fallback.await?.map(Body::new);
                let bare = Status::from_header_map(response.headers());
                let bare = bare.is_some_and(|s| s.code() == Code::Unimplemented && s.message().is_empty());
                Ok(if bare { unknown.into_http() } else { response })
            });
        };
        let state = self.api.state.clone();
        let mut end = End::new(self.api.meters.get(method.path).cloned());
        let caller = Caller::from_extensions(request.extensions());
        let deadline =
            grpc::timeout(request.headers()).and_then(|timeout| state.clock.monotonic().checked_add(timeout));
        // The clone that was polled ready makes the call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(async move {
            let rpc = match admit(&state, method, caller, deadline).await {
                Ok(rpc) => rpc,
                Err(status) => {
                    end.finish(status.code(), None);
                    return Ok(status.into_http());
                }
            };
            request.extensions_mut().insert(rpc.clone());
            end.rpc = Some(rpc);
            let mut response = inner.call(request).await?.map(Body::new);
            if let Some(refused) = Status::from_header_map(response.headers()).as_ref().and_then(too_large) {
                response = refused.into_http();
            }
            if let Some(status) = Status::from_header_map(response.headers()) {
                end.finish(status.code(), Some(&status));
            }
            Ok(response.map(|body| Body::new(Observed { body: Box::pin(body), end })))
        })
    }
}

/// grpc-go's answer for a service that is not on this endpoint.
pub(crate) fn unknown_service(path: &str) -> Status {
    Status::unimplemented(match path.strip_prefix('/').unwrap_or(path).rsplit_once('/') {
        Some((service, _)) => format!("unknown service {service}"),
        None => format!("malformed method name: {path:?}"),
    })
}

/// grpc-go's answer for a method that its service does not have; tonic's has no text.
fn unknown_method(path: &str) -> Status {
    let (service, name) = path.strip_prefix('/').unwrap_or(path).rsplit_once('/').unwrap_or_default();
    Status::unimplemented(format!("unknown method {name} for service {service}"))
}

/// grpc-go's code and text for a message beyond the limit; tonic has another.
fn too_large(status: &Status) -> Option<Status> {
    let text = status.message();
    if status.code() != Code::OutOfRange || !text.contains("message length too large") {
        return None;
    }
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    Some(Status::resource_exhausted(match (numbers.next(), numbers.next()) {
        (Some(found), Some(limit)) => format!("grpc: received message larger than max ({found} vs. {limit})"),
        _ => text.to_owned(),
    }))
}

/// Who calls, and may they.
async fn admit(
    state: &Arc<ServerState>,
    method: &'static Method,
    caller: Result<Caller, Status>,
    deadline: Option<Duration>,
) -> Result<Rpc, Status> {
    let caller = caller?;
    if !method.is_served(caller.is_local()) {
        return Err(unknown_service(method.path));
    }
    match authorize(state, method.access, &caller).await {
        Ok(authorized) => Ok(Rpc::new(method, caller, authorized, deadline, state.clone())),
        Err(denied) => {
            log_denied(method, &caller, &denied);
            Err(denied.to_status(method.path))
        }
    }
}

/// The client learns little; the operator learns why.
fn log_denied(method: &'static Method, caller: &Caller, denied: &Denied) {
    if !tracing::enabled!(Level::ERROR) {
        return;
    }
    let mut fields =
        Fields::for_call(method, caller, &RequestId::default()).with("error", denied.to_string());
    if let Denied::Agent(agent) = denied
        && let Some(reason) = agent.reason()
    {
        fields.push("reason", reason.as_str_name());
    }
    emit(Level::ERROR, "Failed to authenticate caller", &fields);
}

/// Counts a call once, when its end is known, and audits it if it failed.
struct End {
    meter: Option<Arc<CallMetric>>,
    start: Duration,
    rpc: Option<Rpc>,
}

impl End {
    fn new(meter: Option<Arc<CallMetric>>) -> Self {
        let start = meter.as_ref().map(|meter| meter.start()).unwrap_or_default();
        Self { meter, start, rpc: None }
    }

    fn finish(&mut self, code: Code, status: Option<&Status>) {
        let Some(meter) = self.meter.take() else { return };
        meter.done(self.start, code);
        if code != Code::Ok
            && let (Some(rpc), Some(status)) = (&self.rpc, status)
        {
            rpc.audit_error(status);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        // The caller went away before the end.
        self.finish(Code::Cancelled, None);
    }
}

/// A response body that notices its trailers.
struct Observed<B> {
    body: Pin<Box<B>>,
    end: End,
}

impl<B: HttpBody<Data = Bytes>> HttpBody for Observed<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(self.body.as_mut().poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.end.finish(status.code(), Some(&status));
                }
            }
            Some(Err(_)) => self.end.finish(Code::Unknown, None),
            None => self.end.finish(Code::Ok, None),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
