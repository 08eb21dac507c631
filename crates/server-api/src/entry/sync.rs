//! SyncAuthorizedEntries (spire.md §6.3): small sets whole, large ones as revisions from which the agent asks for
//! what it lacks.

use std::sync::Arc;

use steeple_datastore::model::Entry;
use steeple_proto::spire::api::server::entry::v1 as pb;
use steeple_proto::spire::api::types;
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::EntryError;
use crate::convert::entry_to_proto_masked;
use crate::rpc::Rpc;

/// Entries or revisions in one message.
pub(super) const PAGE: usize = 500;

type Answer = Result<pb::SyncAuthorizedEntriesResponse, Status>;

pub(super) fn serve(
    tasks: &TaskGroup,
    rpc: Rpc,
    requests: Streaming<pb::SyncAuthorizedEntriesRequest>,
    entries: Vec<Arc<Entry>>,
) -> ReceiverStream<Answer> {
    let (answers, stream) = mpsc::channel(1);
    tasks.spawn_until_shutdown("sync authorized entries", OnEnd::Log, async move {
        if let Err(status) = converse(&rpc, requests, entries, &answers).await {
            // The agent has gone if nobody takes the status.
            let _ = answers.send(Err(status)).await;
        } else {
            rpc.audit();
        }
    });
    ReceiverStream::new(stream)
}

async fn converse(
    rpc: &Rpc,
    mut requests: Streaming<pb::SyncAuthorizedEntriesRequest>,
    mut entries: Vec<Arc<Entry>>,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), Status> {
    let Some(first) = requests.message().await? else {
        return Err(Status::unknown("EOF"));
    };
    if !first.ids.is_empty() {
        return Err(rpc.refuse(EntryError::InitialIds));
    }
    if first.output_mask.is_some_and(|mask| !mask.revision_number) {
        return Err(rpc.refuse(EntryError::RevisionMasked));
    }
    // The mask of later requests is ignored.
    let mask = first.output_mask;
    if entries.len() <= PAGE {
        return send(answers, page(&entries, mask.as_ref(), false)).await;
    }
    let mut pages = entries.chunks(PAGE).peekable();
    while let Some(chunk) = pages.next() {
        let entry_revisions = chunk.iter().map(|e| revision(e)).collect();
        let more = pages.peek().is_some();
        send(answers, pb::SyncAuthorizedEntriesResponse { entry_revisions, entries: Vec::new(), more })
            .await?;
    }
    entries.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    loop {
        let mut ids = match requests.message().await {
            Ok(Some(request)) => request.ids,
            Ok(None) => return Ok(()),
            Err(status) if status.code() == Code::Cancelled => return Ok(()),
            Err(status) => return Err(status),
        };
        ids.sort_unstable();
        answer(answers, &entries, &ids, mask.as_ref()).await?;
    }
}

/// Unknown IDs are left out. At least one message, the last without `more`.
async fn answer(
    answers: &mpsc::Sender<Answer>,
    entries: &[Arc<Entry>],
    ids: &[String],
    mask: Option<&types::EntryMask>,
) -> Result<(), Status> {
    let mut found = Vec::new();
    for id in ids {
        let Ok(at) = entries.binary_search_by(|e| e.id.as_str().cmp(id)) else { continue };
        if found.len() == PAGE {
            send(answers, page(&found, mask, true)).await?;
            found.clear();
        }
        found.push(entries[at].clone());
    }
    send(answers, page(&found, mask, false)).await
}

fn page(
    entries: &[Arc<Entry>],
    mask: Option<&types::EntryMask>,
    more: bool,
) -> pb::SyncAuthorizedEntriesResponse {
    pb::SyncAuthorizedEntriesResponse {
        entry_revisions: Vec::new(),
        entries: entries.iter().map(|e| entry_to_proto_masked(e, mask)).collect(),
        more,
    }
}

fn revision(entry: &Entry) -> pb::EntryRevision {
    pb::EntryRevision {
        id: entry.id.clone(),
        revision_number: entry.revision_number,
        created_at: entry.created_at,
    }
}

async fn send(
    answers: &mpsc::Sender<Answer>,
    response: pb::SyncAuthorizedEntriesResponse,
) -> Result<(), Status> {
    answers.send(Ok(response)).await.map_err(|_| Status::cancelled("the agent has gone"))
}
