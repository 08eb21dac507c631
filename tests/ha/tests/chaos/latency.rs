//! How long until a write on one server is seen by agents of the others.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use steeple_proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, entry_client::EntryClient,
};
use steeple_proto::spire::api::types::{Entry, Selector};
use steeple_proto::steeple::agent::v1::{WatchRequest, WatchResponse, sync_client::SyncClient};
use tonic::Streaming;

use crate::calls;
use crate::cluster::{Cluster, node};
use crate::writers::spiffe_id;

const TRIALS: usize = 100;
const P99_LIMIT: Duration = Duration::from_millis(100);
/// SQLite's and MySQL's servers look for others' writes by time.
const P99_LIMIT_POLLED: Duration = Duration::from_millis(500);

pub async fn measure(cluster: &Cluster) -> Result<Vec<String>> {
    let agent = cluster.agents.first().context("no agent")?;
    let mut samples = Vec::new();
    for (w, writer) in cluster.servers.iter().enumerate() {
        let mut entries = EntryClient::new(steeple_e2e::connect_uds(&writer.server_socket()).await?);
        let mut streams = Vec::new();
        for (s, server) in cluster.servers.iter().enumerate().filter(|(s, _)| *s != w) {
            let address = format!("127.0.0.{}:{}", 11 + s, cluster.port);
            let channel = calls::channel(server, &address, calls::identity_of(agent)?)?;
            streams.push(SyncClient::new(channel).watch(WatchRequest::default()).await?.into_inner());
        }
        for trial in 0..TRIALS {
            let id = format!("latency-{w}-{trial}");
            let entry = Entry {
                id: id.clone(),
                spiffe_id: spiffe_id(&format!("/{id}")),
                parent_id: spiffe_id(&node(0)),
                selectors: vec![Selector { r#type: "unix".into(), value: "uid:4000000000".into() }],
                ..Entry::default()
            };
            let begin = Instant::now();
            let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
            let results = entries.batch_create_entry(request).await?.into_inner().results;
            anyhow::ensure!(
                results.iter().all(|r| r.status.as_ref().is_some_and(|s| s.code == 0)),
                "{results:?}"
            );
            for stream in &mut streams {
                seen(stream, &id).await?;
                samples.push(begin.elapsed());
            }
            entries.batch_delete_entry(BatchDeleteEntryRequest { ids: vec![id] }).await?;
        }
    }
    samples.sort_unstable();
    let at = |q: f64| samples.get(((samples.len() - 1) as f64 * q) as usize).copied().unwrap_or_default();
    let (p50, p99) = (at(0.5), at(0.99));
    let limit = match cluster.database.engine() {
        steeple_databases::Engine::Postgres => P99_LIMIT,
        _ => P99_LIMIT_POLLED,
    };
    println!(
        "write on one server → delta on a stream of another: p50 {p50:?}, p99 {p99:?} of {} (limit {limit:?})",
        samples.len()
    );
    Ok((p99 > limit)
        .then(|| format!("visibility on other servers: p99 {p99:?}, limit {limit:?}"))
        .into_iter()
        .collect())
}

async fn seen(stream: &mut Streaming<WatchResponse>, id: &str) -> Result<()> {
    let waiting = async {
        loop {
            let message = stream.message().await?.context("the stream ended")?;
            if message.entries.iter().any(|entry| entry.id == id) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(calls::PATIENCE, waiting).await.with_context(|| format!("{id} was not seen"))?
}
