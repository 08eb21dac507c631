//! Ends calls whose client does not read what it is sent.
//!
//! A stream holds at most two messages for a client that is slow, whatever happens meanwhile: the next one is made when
//! the last has gone out. Here is what ends the wait: a call whose message finds no room for `patience` ends with a status
//! that says so, for when its client reads again; if it does not within the same time, its connection is closed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Frame, SizeHint};
use tonic::Status;
use tower::{Layer, Service};

use crate::clock::Clock;
use crate::peer::PeerInfo;

/// What an operator gets who sets nothing.
pub const DEFAULT_PATIENCE: Duration = Duration::from_mins(1);
/// At most one log line in this time.
const LOG_PAUSE: Duration = Duration::from_secs(10);

/// Watches every call of the servers that it is a layer of. Clones are the same.
#[derive(Clone)]
pub struct SlowReaders(Arc<Shared>);

struct Shared {
    patience: Duration,
    clock: Arc<dyn Clock>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    open: HashMap<u64, Arc<Call>>,
    next: u64,
    logged: Option<Duration>,
    held_back: u64,
}

struct Call {
    method: String,
    peer: Option<PeerInfo>,
    /// Since when a message waits for room, milliseconds of the monotonic clock; [`READING`] if none does.
    waits_since: AtomicU64,
    ended: AtomicBool,
}

const READING: u64 = u64::MAX;

impl SlowReaders {
    pub fn new(patience: Duration, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared { patience, clock, calls: Mutex::default() }))
    }

    /// Looks after the calls, forever.
    pub async fn run(self) {
        let pause = (self.0.patience / 4).clamp(Duration::from_millis(100), Duration::from_secs(15));
        loop {
            tokio::time::sleep(pause).await;
            self.look();
        }
    }

    /// Ends what has waited for too long.
    pub fn look(&self) {
        let now = millis(self.0.clock.monotonic());
        let patience = millis(self.0.patience);
        let calls: Vec<Arc<Call>> = self.0.calls().open.values().cloned().collect();
        for call in calls {
            let since = call.waits_since.load(Ordering::Acquire);
            if since == READING {
                continue;
            }
            let waited = now.saturating_sub(since);
            if waited >= patience && !call.ended.swap(true, Ordering::AcqRel) {
                metrics::counter!("slow_reader.dropped", "method" => call.method.clone()).increment(1);
                self.0.tell(&call, "Call ended: its client does not read");
            }
            if waited >= patience.saturating_mul(2)
                && let Some(peer) = &call.peer
                && peer.hangup.close()
            {
                self.0.tell(&call, "Connection closed: its client does not read");
            }
        }
    }

    fn enter(&self, method: String, peer: Option<PeerInfo>) -> (u64, Arc<Call>) {
        let (waits_since, ended) = (AtomicU64::new(READING), AtomicBool::new(false));
        let call = Arc::new(Call { method, peer, waits_since, ended });
        let mut calls = self.0.calls();
        calls.next += 1;
        let id = calls.next;
        calls.open.insert(id, call.clone());
        (id, call)
    }
}

impl Shared {
    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A flood of slow readers must not fill the disk.
    fn tell(&self, call: &Call, message: &'static str) {
        let now = self.clock.monotonic();
        let held_back = {
            let mut calls = self.calls();
            if calls.logged.is_some_and(|logged| now.saturating_sub(logged) < LOG_PAUSE) {
                calls.held_back += 1;
                return;
            }
            calls.logged = Some(now);
            std::mem::take(&mut calls.held_back)
        };
        let peer = call.peer.as_ref().map(|info| &info.peer);
        tracing::warn!(
            subsystem_name = "endpoints",
            method = call.method,
            pid = peer.map(|peer| peer.pid),
            uid = peer.map(|peer| peer.uid),
            waited = ?self.patience,
            held_back,
            "{message}"
        );
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX - 1)
}

/// Closes a connection from outside.
#[derive(Default)]
pub struct Hangup {
    closed: AtomicBool,
    reader: AtomicWaker,
}

impl Hangup {
    /// False if it was closed already.
    pub fn close(&self) -> bool {
        let first = !self.closed.swap(true, Ordering::AcqRel);
        self.reader.wake();
        first
    }

    /// For the connection, when it reads; wakes it when that changes.
    pub fn is_closed(&self, cx: &Context<'_>) -> bool {
        self.reader.register(cx.waker());
        self.closed.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Hangup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hangup").field(&self.closed).finish()
    }
}

impl<S> Layer<S> for SlowReaders {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, readers: self.clone() }
    }
}

/// A service whose answers are watched.
#[derive(Clone)]
pub struct Watched<S> {
    inner: S,
    readers: SlowReaders,
}

impl<S, A, B> Service<Request<A>> for Watched<S>
where
    S: Service<Request<A>, Response = Response<B>, Error = Infallible>,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<ReadBody<B>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let method = request.uri().path().to_owned();
        let peer = request.extensions().get::<PeerInfo>().cloned();
        let (readers, answer) = (self.readers.clone(), self.inner.call(request));
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|inner| {
                let (id, call) = readers.enter(method, peer);
                ReadBody { inner, id, call, readers, over: false }
            }))
        })
    }
}

/// A body that notes when it is read.
pub struct ReadBody<B> {
    inner: B,
    id: u64,
    call: Arc<Call>,
    readers: SlowReaders,
    over: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Body for ReadBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        // It is asked again once there is room for what it answered last.
        this.call.waits_since.store(READING, Ordering::Release);
        if this.over {
            return Poll::Ready(None);
        }
        if this.call.ended.load(Ordering::Acquire) {
            this.over = true;
            return Poll::Ready(Some(Ok(Frame::trailers(refusal(this.readers.0.patience)))));
        }
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && frame.is_data()
        {
            let now = millis(this.readers.0.clock.monotonic());
            this.call.waits_since.store(now, Ordering::Release);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> Drop for ReadBody<B> {
    fn drop(&mut self) {
        self.readers.0.calls().open.remove(&self.id);
    }
}

/// Clients take it for a reason to call again.
fn refusal(patience: Duration) -> HeaderMap {
    let status = Status::unavailable(format!("the stream ended: nothing of it was read for {patience:?}"));
    let mut trailers = HeaderMap::new();
    // It has no metadata that could be malformed.
    let _ = status.add_header(&mut trailers);
    trailers
}

#[cfg(test)]
mod tests;
