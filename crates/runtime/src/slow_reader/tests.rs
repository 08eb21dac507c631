use futures::channel::mpsc;
use http_body_util::StreamBody;

use super::*;
use crate::clock::FakeClock;

type Frames = mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>>;
type Answer = ReadBody<StreamBody<mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>>>;

const PATIENCE: Duration = Duration::from_mins(1);

fn start() -> (FakeClock, SlowReaders) {
    let clock = FakeClock::new(0);
    (clock.clone(), SlowReaders::new(PATIENCE, Arc::new(clock)))
}

async fn answer(readers: &SlowReaders) -> (Frames, Answer) {
    let (frames, body) = mpsc::unbounded();
    let body = Mutex::new(Some(StreamBody::new(body)));
    let service = tower::service_fn(move |_: Request<()>| {
        let body = body.lock().unwrap().take().unwrap();
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    let request = Request::builder().uri("/Service/Method").body(()).unwrap();
    let response = readers.layer(service).call(request).await.unwrap();
    (frames, response.into_body())
}

fn poll(body: &mut Answer) -> Poll<Option<Frame<Bytes>>> {
    let mut cx = Context::from_waker(futures::task::noop_waker_ref());
    Pin::new(body).poll_frame(&mut cx).map(|frame| frame.map(Result::unwrap))
}

fn data() -> Frame<Bytes> {
    Frame::data(Bytes::from_static(b"message"))
}

#[tokio::test]
async fn whoever_reads_may_be_quiet_for_as_long_as_it_likes() {
    let (clock, readers) = start();
    let (frames, mut body) = answer(&readers).await;
    for _ in 0..3 {
        frames.unbounded_send(Ok(data())).unwrap();
        assert!(matches!(poll(&mut body), Poll::Ready(Some(frame)) if frame.is_data()));
        assert!(poll(&mut body).is_pending(), "asked again: there was room");
        clock.advance(PATIENCE * 3);
        readers.look();
    }
    drop(body);
    assert!(readers.0.calls().open.is_empty());
}

#[tokio::test]
async fn a_call_whose_message_finds_no_room_ends_with_the_reason() {
    let (clock, readers) = start();
    let (frames, mut body) = answer(&readers).await;
    frames.unbounded_send(Ok(data())).unwrap();
    frames.unbounded_send(Ok(data())).unwrap();
    assert!(matches!(poll(&mut body), Poll::Ready(Some(frame)) if frame.is_data()));
    clock.advance(Duration::from_secs(59));
    readers.look();
    assert!(!body.call.ended.load(Ordering::Acquire));
    clock.advance(Duration::from_secs(1));
    readers.look();
    let Poll::Ready(Some(frame)) = poll(&mut body) else { panic!("no end") };
    let trailers = frame.into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "14");
    assert_eq!(
        trailers["grpc-message"],
        "the%20stream%20ended:%20nothing%20of%20it%20was%20read%20for%2060s"
    );
    assert!(matches!(poll(&mut body), Poll::Ready(None)));
}

#[tokio::test]
async fn a_connection_is_closed_once() {
    let hangup = Hangup::default();
    let (waker, count) = futures_test_waker();
    assert!(!hangup.is_closed(&Context::from_waker(&waker)));
    assert!(hangup.close() && !hangup.close());
    assert!(count.load(Ordering::Relaxed) > 0, "the reader is woken");
    assert!(hangup.is_closed(&Context::from_waker(&waker)));
}

fn futures_test_waker() -> (std::task::Waker, Arc<AtomicU64>) {
    struct Count(Arc<AtomicU64>);
    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let count = Arc::new(AtomicU64::new(0));
    (Arc::new(Count(count.clone())).into(), count)
}

#[tokio::test]
async fn without_patience_nothing_ends() {
    let clock = FakeClock::new(0);
    let readers = SlowReaders::new(Duration::MAX, Arc::new(clock.clone()));
    let (frames, mut body) = answer(&readers).await;
    frames.unbounded_send(Ok(data())).unwrap();
    assert!(poll(&mut body).is_ready());
    clock.advance(Duration::from_hours(1000));
    readers.look();
    assert!(poll(&mut body).is_pending());
    drop(frames);
    assert!(body.next_is_end());
}

impl Answer {
    fn next_is_end(&mut self) -> bool {
        matches!(poll(self), Poll::Ready(None))
    }
}
