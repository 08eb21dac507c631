//! Resident memory of an idle server with the planned entries, and of an idle agent.

use std::time::Duration;

use anyhow::{Context, Result};
use steeple_e2e::{Daemon, Deployment, NODE};
use steeple_proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, entry_client::EntryClient};
use steeple_proto::spire::api::types::{Entry, Selector, Spiffeid};

use crate::Plan;

/// KiB.
const SERVER_LIMIT: u64 = 25 * 1024;
const AGENT_LIMIT: u64 = 12 * 1024;

pub async fn measure(deployment: &Deployment, plan: &Plan) -> Result<Vec<String>> {
    let mut late = Vec::new();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let agent = rss(deployment.agent.as_ref())?;
    println!("agent idle: {agent} KiB RSS (limit {AGENT_LIMIT})");
    if agent > AGENT_LIMIT {
        late.push(format!("agent idle {agent} KiB"));
    }
    let mut entries = EntryClient::new(steeple_e2e::connect_uds(&deployment.server_socket()).await?);
    // Entries of other workloads on the same node: the agent holds them, but they are not the caller's.
    for chunk in (0..plan.entries).collect::<Vec<_>>().chunks(200) {
        let request = BatchCreateEntryRequest {
            entries: chunk
                .iter()
                .map(|n| entry(&format!("base-{n}"), &format!("uid:{}", 1_000_000 + n)))
                .collect(),
            output_mask: None,
        };
        let results = entries.batch_create_entry(request).await?.into_inner().results;
        anyhow::ensure!(
            results.iter().all(|r| r.status.as_ref().is_some_and(|s| s.code == 0)),
            "not all were created"
        );
    }
    tokio::time::sleep(Duration::from_secs(8)).await;
    let server = rss(deployment.server.as_ref())?;
    println!("server idle with {} entries: {server} KiB RSS (limit {SERVER_LIMIT})", plan.entries);
    println!("agent with their SVIDs: {} KiB RSS (no limit set)", rss(deployment.agent.as_ref())?);
    if server > SERVER_LIMIT {
        late.push(format!("server idle {server} KiB"));
    }
    Ok(late)
}

/// An entry under the deployment's node.
pub fn entry(id: &str, selector: &str) -> Entry {
    let (trust_domain, path) = NODE.trim_start_matches("spiffe://").split_once('/').unwrap_or_default();
    let id_of = |path: &str| Some(Spiffeid { trust_domain: trust_domain.to_owned(), path: path.to_owned() });
    Entry {
        id: id.to_owned(),
        spiffe_id: id_of(&format!("/{id}")),
        parent_id: id_of(&format!("/{path}")),
        selectors: vec![Selector { r#type: "unix".into(), value: selector.to_owned() }],
        ..Entry::default()
    }
}

fn rss(daemon: Option<&Daemon>) -> Result<u64> {
    daemon.and_then(Daemon::rss_kib).context("the process has gone")
}
