//! GetAuthorizedEntries and SyncAuthorizedEntries (spire.md §6.3).

use steeple_datastore::model::Entry;
use steeple_proto::spire::api::server::entry::v1 as pb;
use steeple_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use steeple_proto::spire::api::types;
use steeple_spiffe::SpiffeId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::harness::{NOW, Server, entry, server};

async fn fill(server: &Server, agent: &SpiffeId, count: usize) -> Vec<String> {
    let entries: Vec<Entry> = (0..count).map(|n| entry(agent.as_str(), &format!("/w{n:04}"))).collect();
    server.state.store.create_entries(entries, NOW).await.unwrap();
    let mut ids: Vec<String> = authorized(server, agent).await.into_iter().map(|entry| entry.id).collect();
    ids.sort();
    ids
}

async fn authorized(server: &Server, agent: &SpiffeId) -> Vec<types::Entry> {
    let signed = server.agent_svid(agent).await;
    server.put_agent(agent, &signed).await;
    let channel = server.with_svid(&signed, &crate::harness::pool_key(1));
    let request = pb::GetAuthorizedEntriesRequest { output_mask: None };
    EntryClient::new(channel).get_authorized_entries(request).await.unwrap().into_inner().entries
}

struct Sync {
    requests: mpsc::Sender<pb::SyncAuthorizedEntriesRequest>,
    answers: Streaming<pb::SyncAuthorizedEntriesResponse>,
}

impl Sync {
    async fn open(channel: Channel) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(4);
        let answers = EntryClient::new(channel)
            .sync_authorized_entries(ReceiverStream::new(stream))
            .await?
            .into_inner();
        Ok(Self { requests, answers })
    }

    async fn ask(&self, output_mask: Option<types::EntryMask>, ids: &[String]) {
        let request = pb::SyncAuthorizedEntriesRequest { output_mask, ids: ids.to_vec() };
        self.requests.send(request).await.unwrap();
    }

    async fn answer(&mut self) -> pb::SyncAuthorizedEntriesResponse {
        self.answers.message().await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn an_entry_is_authorized_the_moment_its_creation_is_acknowledged() {
    let server = server().await;
    let (id, channel) = server.agent("watching").await;
    let mut agent = EntryClient::new(channel);
    let mut operator = EntryClient::new(server.local());
    for n in 0..50 {
        let path = format!("/fresh{n}");
        let created = server.entry(entry(id.as_str(), &path)).await;
        let request = pb::GetAuthorizedEntriesRequest { output_mask: None };
        let seen = agent.get_authorized_entries(request).await.unwrap().into_inner().entries;
        assert!(seen.iter().any(|entry| entry.id == created.id), "{n}");
        operator.batch_delete_entry(pb::BatchDeleteEntryRequest { ids: vec![created.id] }).await.unwrap();
        assert!(agent.get_authorized_entries(request).await.unwrap().into_inner().entries.is_empty(), "{n}");
    }
}

#[tokio::test]
async fn aliases_and_descendants_are_authorized_and_masks_apply() {
    let server = server().await;
    let (id, channel) = server.agent("parent").await;
    server.entry(entry(id.as_str(), "/child")).await;
    server.entry(entry("spiffe://example.org/child", "/grandchild")).await;
    server.entry(entry("spiffe://example.org/elsewhere", "/stranger")).await;
    let mask = types::EntryMask { spiffe_id: true, ..Default::default() };
    let request = pb::GetAuthorizedEntriesRequest { output_mask: Some(mask) };
    let entries =
        EntryClient::new(channel).get_authorized_entries(request).await.unwrap().into_inner().entries;
    let mut paths: Vec<_> = entries.iter().map(|e| e.spiffe_id.clone().unwrap().path).collect();
    paths.sort();
    assert_eq!(paths, ["/child", "/grandchild"]);
    assert!(entries.iter().all(|e| !e.id.is_empty() && e.parent_id.is_none() && e.selectors.is_empty()));
}

#[tokio::test]
async fn up_to_five_hundred_come_at_once_and_the_stream_ends() {
    let server = server().await;
    let (id, channel) = server.agent("small").await;
    let ids = fill(&server, &id, 500).await;
    let channel2 = server.agent("small").await.1;
    drop(channel);
    let mut sync = Sync::open(channel2).await.unwrap();
    sync.ask(None, &[]).await;
    let answer = sync.answer().await;
    assert!(answer.entry_revisions.is_empty() && !answer.more);
    let mut got: Vec<String> = answer.entries.into_iter().map(|entry| entry.id).collect();
    got.sort();
    assert_eq!(got, ids);
    assert_eq!(sync.answers.message().await.unwrap(), None);
}

#[tokio::test]
async fn more_come_as_revisions_and_on_request() {
    let server = server().await;
    let id = crate::harness::agent_id("large");
    let ids = fill(&server, &id, 1_201).await;
    let (_, channel) = server.agent("large").await;
    let mut sync = Sync::open(channel).await.unwrap();
    let mask = types::EntryMask { revision_number: true, spiffe_id: true, ..Default::default() };
    sync.ask(Some(mask), &[]).await;
    let mut revisions = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let answer = sync.answer().await;
        assert!(answer.entries.is_empty());
        sizes.push(answer.entry_revisions.len());
        revisions.extend(answer.entry_revisions);
        if !answer.more {
            break;
        }
    }
    assert_eq!(sizes, [500, 500, 201]);
    assert!(revisions.iter().all(|revision| revision.created_at == NOW && revision.revision_number == 0));
    let mut got: Vec<String> = revisions.into_iter().map(|revision| revision.id).collect();
    got.sort();
    assert_eq!(got, ids);

    // Any order, unknown ones left out; the mask of the first request applies.
    let wanted = vec![ids[7].clone(), "unknown".to_owned(), ids[3].clone()];
    sync.ask(None, &wanted).await;
    let answer = sync.answer().await;
    let found: Vec<_> = answer.entries.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!((found, answer.more), (vec![ids[3].clone(), ids[7].clone()], false));
    assert!(answer.entries.iter().all(|entry| entry.spiffe_id.is_some() && entry.selectors.is_empty()));

    sync.ask(None, &ids).await;
    let mut sizes = Vec::new();
    loop {
        let answer = sync.answer().await;
        sizes.push(answer.entries.len());
        if !answer.more {
            break;
        }
    }
    assert_eq!(sizes, [500, 500, 201]);

    sync.ask(None, &[]).await;
    assert!(sync.answer().await.entries.is_empty());
    drop(sync.requests);
    assert_eq!(sync.answers.message().await.unwrap(), None, "the stream ends when the agent closes it");
}

#[tokio::test]
async fn the_first_request_has_rules() {
    let server = server().await;
    let (_, channel) = server.agent("rude").await;
    let cases = [
        (None, vec!["x".to_owned()], "specifying IDs on initial request is not supported"),
        (Some(types::EntryMask::default()), Vec::new(), "revision number cannot be masked"),
    ];
    for (mask, ids, message) in cases {
        let mut sync = Sync::open(channel.clone()).await.unwrap();
        sync.ask(mask, &ids).await;
        let status = sync.answers.message().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, message));
    }
}
