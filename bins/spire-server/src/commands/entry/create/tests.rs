use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use steeple_cli::connect::connect_unix;
use steeple_proto::spire::api::server::entry::v1 as api;
use steeple_proto::spire::api::server::entry::v1::entry_server::{Entry, EntryServer};
use tonic::{Request, Response, Status, Streaming};

use super::*;

/// Creates entries whose ID does not say `bad`; fails as a whole from call `fails_at` on.
struct Server {
    calls: Arc<AtomicUsize>,
    fails_at: usize,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Entry for Server {
    async fn batch_create_entry(
        &self,
        request: Request<BatchCreateEntryRequest>,
    ) -> Answer<BatchCreateEntryResponse> {
        if self.calls.fetch_add(1, Ordering::SeqCst) >= self.fails_at {
            return Err(Status::unavailable("going away"));
        }
        let results = request.into_inner().entries.into_iter().map(|entry| {
            let bad = entry.id.contains("bad");
            let (code, message) = if bad { (3, "no good".to_owned()) } else { (0, "OK".to_owned()) };
            ItemResult { status: Some(types::Status { code, message }), entry: (!bad).then_some(entry) }
        });
        Ok(Response::new(BatchCreateEntryResponse { results: results.collect() }))
    }

    async fn count_entries(&self, _: Request<api::CountEntriesRequest>) -> Answer<api::CountEntriesResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_entries(&self, _: Request<api::ListEntriesRequest>) -> Answer<api::ListEntriesResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_entry(&self, _: Request<api::GetEntryRequest>) -> Answer<types::Entry> {
        Err(Status::unimplemented(""))
    }

    async fn batch_update_entry(
        &self,
        _: Request<api::BatchUpdateEntryRequest>,
    ) -> Answer<api::BatchUpdateEntryResponse> {
        Err(Status::unimplemented(""))
    }

    async fn batch_delete_entry(
        &self,
        _: Request<api::BatchDeleteEntryRequest>,
    ) -> Answer<api::BatchDeleteEntryResponse> {
        Err(Status::unimplemented(""))
    }

    async fn get_authorized_entries(
        &self,
        _: Request<api::GetAuthorizedEntriesRequest>,
    ) -> Answer<api::GetAuthorizedEntriesResponse> {
        Err(Status::unimplemented(""))
    }

    type SyncAuthorizedEntriesStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<api::SyncAuthorizedEntriesResponse, Status>> + Send>>;

    async fn sync_authorized_entries(
        &self,
        _: Request<Streaming<api::SyncAuthorizedEntriesRequest>>,
    ) -> Answer<Self::SyncAuthorizedEntriesStream> {
        Err(Status::unimplemented(""))
    }
}

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Buffer {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(data)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Outcome {
    calls: usize,
    out: String,
    err: String,
    failure: Option<String>,
}

/// Imports entries with these IDs from stdin.
async fn import(ids: &[String], fails_at: usize, output: Output) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let serving = tonic::transport::Server::builder()
        .add_service(EntryServer::new(Server { calls: Arc::clone(&calls), fails_at }))
        .serve_with_incoming(tokio_stream::wrappers::UnixListenerStream::new(listener));

    let entry = |id: &String| {
        format!(r#"{{"entry_id": "{id}", "spiffe_id": "spiffe://td/w", "parent_id": "spiffe://td/p"}}"#)
    };
    let json = format!(r#"{{"entries": [{}]}}"#, ids.iter().map(entry).collect::<Vec<_>>().join(","));
    let (out, err) = (Buffer::default(), Buffer::default());
    let io = Io::new(std::io::Cursor::new(json), out.clone(), err.clone());
    let mut flags = FlagSet::new(Create::NAME);
    let create = Create::flags(&mut flags);
    flags.parse(&["-data", "-"]).unwrap();
    let channel = connect_unix(path.to_str().unwrap(), "").unwrap();
    let mut session = Session::new(io, channel, output);
    let result = tokio::select! {
        result = create.run(&mut session) => result,
        _ = serving => panic!("the server ended"),
    };
    Outcome {
        calls: calls.load(Ordering::SeqCst),
        out: out.text(),
        err: err.text(),
        failure: result.err().map(|failure| failure.to_string()),
    }
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("e{i}")).collect()
}

#[tokio::test]
async fn a_long_import_is_several_calls_and_one_answer() {
    let outcome = import(&ids(1001), usize::MAX, Output::Pretty).await;
    assert_eq!((outcome.calls, outcome.failure), (3, None));
    assert_eq!(outcome.out.matches("Entry ID ").count(), 1001);
    assert_eq!(outcome.err, "");
    let outcome = import(&ids(1001), usize::MAX, Output::Json).await;
    let answer: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(answer["results"].as_array().unwrap().len(), 1001);
}

#[tokio::test]
async fn what_fails_goes_to_stderr_but_not_in_json() {
    let ids = ["good".to_owned(), "bad".to_owned()];
    let outcome = import(&ids, usize::MAX, Output::Pretty).await;
    assert!(outcome.out.starts_with("Entry ID                : good\n"), "{}", outcome.out);
    let refused = "Failed to create the following entry (code: InvalidArgument, msg: \"no good\"):\n\
                   Entry ID                : bad\n";
    assert!(outcome.err.starts_with(refused), "{}", outcome.err);
    assert_eq!(outcome.failure.as_deref(), Some("failed to create one or more entries"));
    // SPIRE's exit code is 0 here; the status is in the answer.
    let outcome = import(&ids, usize::MAX, Output::Json).await;
    assert_eq!((outcome.failure, outcome.err.as_str()), (None, ""));
    assert!(outcome.out.contains(r#""status":{"code":3,"message":"no good"}"#), "{}", outcome.out);
}

#[tokio::test]
async fn an_import_that_stops_says_how_far_it_came() {
    let outcome = import(&ids(1200), 2, Output::Pretty).await;
    assert_eq!(outcome.out.matches("Entry ID ").count(), 1000);
    assert_eq!(
        outcome.failure.as_deref(),
        Some(
            "stopped after 1000 of 1200 entries, at spiffe://td/w: rpc error: code = Unavailable desc = going away"
        )
    );
    let outcome = import(&ids(1), 0, Output::Pretty).await;
    assert_eq!(outcome.out, "");
    assert_eq!(outcome.failure.as_deref(), Some("rpc error: code = Unavailable desc = going away"));
}

#[tokio::test]
async fn nothing_to_import_is_still_asked_for() {
    let outcome = import(&[], usize::MAX, Output::Pretty).await;
    assert_eq!((outcome.calls, outcome.out.as_str(), outcome.failure), (1, "", None));
}

#[tokio::test]
async fn an_import_that_stops_is_whole_json() {
    let outcome = import(&ids(1200), 2, Output::Json).await;
    let answer: serde_json::Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(answer["results"].as_array().unwrap().len(), 1000);
    let outcome = import(&[], usize::MAX, Output::Json).await;
    assert_eq!(outcome.out, "{\"results\":[]}\n");
    assert_eq!(import(&ids(1), 0, Output::Json).await.out, "");
}

#[test]
fn a_batch_is_bounded_in_bytes_too() {
    let entry = |size: usize| types::Entry { hint: "x".repeat(size), ..types::Entry::default() };
    let entries =
        vec![entry(BATCH_BYTES / 2), entry(BATCH_BYTES), entry(BATCH_BYTES / 3), entry(9), entry(9)];
    let sizes: Vec<usize> = Batches(entries.into_iter().peekable()).map(|batch| batch.len()).collect();
    assert_eq!(sizes, [1, 1, 3]);
}
