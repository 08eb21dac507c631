//! From the API call to the change on a stream that is already open.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use steeple_e2e::{Deployment, Workload, uid};
use steeple_proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, entry_client::EntryClient,
};
use steeple_proto::workload::{X509svidRequest, X509svidResponse};
use tonic::Streaming;

use crate::Plan;
use crate::idle::entry;
use crate::stats::{quantile, show};

const MEDIAN_LIMIT: Duration = Duration::from_millis(50);
const P99_LIMIT: Duration = Duration::from_millis(250);

pub async fn measure(deployment: &Deployment, plan: &Plan) -> Result<Vec<String>> {
    let me = format!("uid:{}", uid());
    let mut entries = EntryClient::new(steeple_e2e::connect_uds(&deployment.server_socket()).await?);
    create(&mut entries, "anchor", &me).await?;
    let mut workload = deployment.workload().await?;
    let mut stream = open(&mut workload).await?;
    let (mut created, mut deleted) = (Vec::new(), Vec::new());
    for n in 0..plan.trials {
        let id = format!("trial-{n}");
        let begin = Instant::now();
        create(&mut entries, &id, &me).await?;
        wait(&mut stream, &id, true).await?;
        created.push(begin.elapsed());
        let begin = Instant::now();
        let request = BatchDeleteEntryRequest { ids: vec![id.clone()] };
        entries.batch_delete_entry(request).await?;
        wait(&mut stream, &id, false).await?;
        deleted.push(begin.elapsed());
    }
    let mut late = Vec::new();
    for (name, mut samples) in
        [("entry created → SVID on the stream", created), ("entry deleted → gone from the stream", deleted)]
    {
        println!("{}", show(name, &mut samples));
        let (p50, p99) = (quantile(&samples, 0.5), quantile(&samples, 0.99));
        println!("  limits: p50 {MEDIAN_LIMIT:?}, p99 {P99_LIMIT:?}");
        if p50 > MEDIAN_LIMIT || p99 > P99_LIMIT {
            late.push(format!("{name}: p50 {p50:?}, p99 {p99:?}"));
        }
    }
    Ok(late)
}

/// A stream that has shown its first message. SPIRE's agent refuses until it has polled.
async fn open(workload: &mut Workload) -> Result<Streaming<X509svidResponse>> {
    for _ in 0..300 {
        if let Ok(opened) = workload.api.fetch_x509svid(Workload::request(X509svidRequest {})).await {
            let mut stream = opened.into_inner();
            if stream.message().await.is_ok_and(|message| message.is_some()) {
                return Ok(stream);
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("no identity in half a minute")
}

async fn create(
    entries: &mut EntryClient<tonic::transport::Channel>,
    id: &str,
    selector: &str,
) -> Result<()> {
    let request = BatchCreateEntryRequest { entries: vec![entry(id, selector)], output_mask: None };
    let results = entries.batch_create_entry(request).await?.into_inner().results;
    let status = results.first().and_then(|result| result.status.as_ref()).context("no status")?;
    anyhow::ensure!(status.code == 0, "{id}: {}", status.message);
    Ok(())
}

async fn wait(stream: &mut Streaming<X509svidResponse>, id: &str, present: bool) -> Result<()> {
    let suffix = format!("/{id}");
    let seen = async {
        loop {
            let message = stream.message().await?.context("the stream ended")?;
            if message.svids.iter().any(|svid| svid.spiffe_id.ends_with(&suffix)) == present {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_mins(1), seen)
        .await
        .with_context(|| format!("{id}: no change in a minute"))?
}
