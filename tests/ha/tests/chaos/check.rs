//! The database is read directly and compared with what everybody says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use steeple_databases::Engine;
use steeple_proto::spire::api::server::agent::v1::{GetAgentRequest, agent_client::AgentClient};
use steeple_proto::spire::api::server::bundle::v1::{GetFederatedBundleRequest, bundle_client::BundleClient};
use steeple_proto::spire::api::server::entry::v1::{GetAuthorizedEntriesRequest, entry_client::EntryClient};

use crate::cluster::{Cluster, node};
use crate::observers::Observers;
use crate::writers::{spiffe_id, text};
use crate::{Run, calls};

const TRUST_DOMAIN: &str = "spiffe://example.org";

/// Rows of the database that answers now.
fn rows(cluster: &Cluster, sql: &str) -> Result<Vec<Vec<String>>> {
    let told = match &cluster.backend {
        Some(server) => server.query(cluster.database.name(), sql)?,
        None => cluster.database.query(sql)?,
    };
    let separator =
        if matches!(cluster.database.engine(), Engine::MariaDb | Engine::MySql) { '\t' } else { '|' };
    Ok(told.lines().map(|line| line.split(separator).map(str::to_owned).collect()).collect())
}

/// Removes what writers wrote, so that another round starts with nothing.
pub fn forget(cluster: &Cluster) -> Result<()> {
    let first = cluster.servers.first().context("no server")?;
    for row in rows(cluster, "select entry_id from registered_entries where entry_id like 'w%'")? {
        first.server_ok(&["entry", "delete", "-entryID", &row[0]])?;
    }
    for row in rows(cluster, "select trust_domain from bundles where trust_domain like '%.test'")? {
        first.server_ok(&["bundle", "delete", "-mode", "dissociate", "-id", &row[0]])?;
    }
    for row in rows(cluster, "select spiffe_id from attested_node_entries where spiffe_id like '%victim%'")? {
        first.server_ok(&["agent", "evict", "-spiffeID", &row[0]])?;
    }
    std::thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Every acknowledged write is stored, and nothing that nobody wrote.
pub fn writes(cluster: &Cluster, run: &Arc<Run>) -> Result<Vec<String>> {
    let mut stored = BTreeMap::new();
    let sql =
        "select entry_id, parent_id, spiffe_id, hint, ttl from registered_entries where entry_id like 'w%'";
    for row in rows(cluster, sql)? {
        let path = |id: &str| id.trim_start_matches(TRUST_DOMAIN).to_owned();
        stored.insert(row[0].clone(), format!("{}|{}|{}|{}", path(&row[1]), path(&row[2]), row[3], row[4]));
    }
    let sql = "select spiffe_id, serial_number from attested_node_entries where spiffe_id like '%victim%'";
    for row in rows(cluster, sql)? {
        let state = if row[1].is_empty() { "banned" } else { "attested" };
        stored.insert(format!("agent {}", row[0].trim_start_matches(TRUST_DOMAIN)), state.to_owned());
    }
    // A bundle's content is a protobuf: what it says is asked from a server below.
    let first = cluster.servers.first().context("no server")?;
    for row in rows(cluster, "select trust_domain from bundles where trust_domain like '%.test'")? {
        let shown = first.server_ok(&["bundle", "list", "-format", "spiffe", "-id", &row[0]])?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let name = row[0].trim_start_matches("spiffe://");
        stored
            .insert(format!("bundle {name}"), shown["spiffe_refresh_hint"].as_i64().unwrap_or(0).to_string());
    }
    Ok(run.ledger().differences(&stored))
}

/// How far a server may be behind, also right after it lost its database.
const BEHIND: Duration = Duration::from_secs(3);
/// Later than that a change is not late but lost.
const LOST: Duration = Duration::from_secs(20);

/// What each server answers to each agent is what the database holds for it; agents and bundles alike.
pub async fn answers(cluster: &Cluster) -> Result<Vec<String>> {
    let begin = Instant::now();
    loop {
        let asked = begin.elapsed();
        let wrong = answers_now(cluster).await;
        if wrong.as_ref().is_ok_and(Vec::is_empty) {
            println!(
                "servers, asked {asked:.1?} after the last writer ended, answer what the database holds"
            );
            return Ok(if asked > BEHIND {
                vec![format!("a server was behind for {asked:?}, limit {BEHIND:?}")]
            } else {
                Vec::new()
            });
        }
        let head = rows(cluster, "select head from steeple_meta")?;
        println!("after {asked:?}, head {head:?}: {wrong:?}");
        if asked > LOST {
            return wrong;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn answers_now(cluster: &Cluster) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (a, agent) in cluster.agents.iter().enumerate() {
        let expected = authorized(cluster, a)?;
        for (s, server) in cluster.servers.iter().enumerate() {
            let address = format!("127.0.0.{}:{}", 11 + s, cluster.port);
            let channel = calls::channel(server, &address, calls::identity_of(agent)?)?;
            let request = GetAuthorizedEntriesRequest { output_mask: None };
            let answer = EntryClient::new(channel).get_authorized_entries(request).await;
            let answer = answer.with_context(|| format!("server {s} refuses agent {a}"))?.into_inner();
            let told: BTreeSet<String> = answer
                .entries
                .iter()
                .map(|entry| format!("{}|{}|{}", entry.id, text(entry), entry.revision_number))
                .collect();
            compared += told.len();
            for line in told.symmetric_difference(&expected) {
                let who = if expected.contains(line) { "the database" } else { "the server" };
                wrong.push(format!("agent {a} at server {s}: only {who} has {line}"));
            }
        }
    }
    for (s, server) in cluster.servers.iter().enumerate() {
        wrong.extend(others(cluster, s, steeple_e2e::connect_uds(&server.server_socket()).await?).await?);
    }
    println!(
        "{compared} entries of {} agents compared at {} servers",
        cluster.agents.len(),
        cluster.servers.len()
    );
    Ok(wrong)
}

async fn others(cluster: &Cluster, s: usize, channel: tonic::transport::Channel) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let sql = "select spiffe_id, serial_number from attested_node_entries where spiffe_id like '%victim%' order by 1";
    for row in rows(cluster, sql)?.iter().take(200) {
        let request =
            GetAgentRequest { id: spiffe_id(row[0].trim_start_matches(TRUST_DOMAIN)), output_mask: None };
        match AgentClient::new(channel.clone()).get_agent(request).await {
            Ok(agent) if agent.get_ref().banned == row[1].is_empty() => {}
            other => wrong.push(format!("server {s}, {}: {other:?}", row[0])),
        }
    }
    for row in rows(cluster, "select trust_domain from bundles where trust_domain like '%.test'")? {
        let trust_domain = row[0].trim_start_matches("spiffe://").to_owned();
        let request = GetFederatedBundleRequest { trust_domain, output_mask: None };
        if let Err(status) = BundleClient::new(channel.clone()).get_federated_bundle(request).await {
            wrong.push(format!("server {s}, {}: {status}", row[0]));
        }
    }
    Ok(wrong)
}

/// The entries below an agent, by SPIRE's rule, read from the tables.
fn authorized(cluster: &Cluster, agent: usize) -> Result<BTreeSet<String>> {
    let alias = format!("{TRUST_DOMAIN}{}", node(agent));
    // The alias entry is the agent's too.
    let sql = format!(
        "with recursive reach(id) as (select parent_id from registered_entries where spiffe_id = '{alias}' \
         union select e.spiffe_id from registered_entries e join reach r on e.parent_id = r.id) \
         select entry_id, parent_id, spiffe_id, hint, ttl, revision_number from registered_entries \
         where parent_id in (select id from reach)"
    );
    let path = |id: &str| id.trim_start_matches(TRUST_DOMAIN).to_owned();
    Ok(rows(cluster, &sql)?
        .iter()
        .map(|row| format!("{}|{}|{}|{}|{}|{}", row[0], path(&row[1]), path(&row[2]), row[3], row[4], row[5]))
        .collect())
}

/// What workloads hold is what the database says, and nothing came or went without a write.
pub fn identities(cluster: &mut Cluster, run: &Arc<Run>, observers: &Observers) -> Result<Vec<String>> {
    cluster.all_alive()?;
    let mut wrong = Vec::new();
    for a in 0..cluster.agents.len() {
        let own = node(a);
        let expected: BTreeSet<String> = authorized(cluster, a)?
            .iter()
            .filter_map(|line| Some(line.split('|').nth(2)?.trim_start_matches('/').to_owned()))
            .filter(|name| format!("/{name}") != own)
            .collect();
        // SVIDs are signed after the entries arrived.
        let mut missing = BTreeSet::new();
        for _ in 0..50 {
            missing = observers.seen(a).now.symmetric_difference(&expected).cloned().collect();
            if missing.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let seen = observers.seen(a);
        wrong.extend(missing.iter().map(|name| format!("workload at agent {a}: {name} differs")));
        let names: BTreeSet<&String> = seen.came.keys().chain(seen.went.keys()).collect();
        for name in names.into_iter().filter(|name| name.starts_with('w')) {
            let count = |of: &BTreeMap<String, u64>| of.get(name).copied().unwrap_or(0);
            let (came, went) = (count(&seen.came), count(&seen.went));
            if !run.ledger().explains(name, came, went) {
                wrong.push(format!("workload at agent {a}: {name} came {came} times and went {went} times"));
            }
        }
        wrong.extend(seen.broken.iter().map(|why| format!("workload at agent {a}: its stream ended: {why}")));
        println!(
            "agent {a}: {} identities now, {} came, {} went",
            seen.now.len(),
            seen.came.values().sum::<u64>(),
            seen.went.values().sum::<u64>()
        );
    }
    Ok(wrong)
}
