//! Random writers on every server.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use steeple_e2e::uid;
use steeple_proto::spire::api::server::agent::v1::{
    BanAgentRequest, CreateJoinTokenRequest, DeleteAgentRequest, agent_client::AgentClient,
};
use steeple_proto::spire::api::server::bundle::v1::{
    BatchDeleteFederatedBundleRequest, BatchSetFederatedBundleRequest,
    batch_delete_federated_bundle_request::Mode, bundle_client::BundleClient,
};
use steeple_proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, entry_client::EntryClient,
};
use steeple_proto::spire::api::types::{Bundle, Entry, EntryMask, Selector, Spiffeid, Status};
use tokio::task::JoinSet;
use tonic::transport::Channel;

use crate::Run;
use crate::calls::{self, PATIENCE};
use crate::cluster::{Cluster, node};

/// Things that each writer has in hand.
const THINGS: u64 = 12;
const NOT_FOUND: i32 = 5;
/// After a call without an answer: what it started has ended by then, or never will.
const UNSURE: Duration = Duration::from_millis(1500);

/// Running until [`Run::stop`].
#[derive(Debug)]
pub struct Writers(JoinSet<()>);

impl Writers {
    pub async fn join(mut self) {
        while let Some(ended) = self.0.join_next().await {
            assert!(ended.is_ok(), "a writer ended: {ended:?}");
        }
    }
}

/// Two for each server: one of entries, one of bundles and agents.
pub fn start(cluster: &Cluster, run: &Arc<Run>, handle: &tokio::runtime::Handle) -> Writers {
    let mut tasks = JoinSet::new();
    for (n, server) in cluster.servers.iter().enumerate() {
        let writer =
            Writer { n, socket: server.server_socket(), agents: cluster.agents.len(), run: run.clone() };
        let other = writer.clone();
        tasks.spawn_on(async move { writer.entries().await }, handle);
        let anonymous = calls::channel(
            server,
            &format!("127.0.0.{}:{}", 11 + n, cluster.port),
            steeple_runtime::tls::LiveIdentity::default(),
        );
        tasks.spawn_on(
            async move {
                if let Ok(anonymous) = anonymous {
                    other.others(anonymous).await;
                }
            },
            handle,
        );
    }
    Writers(tasks)
}

#[derive(Clone, Debug)]
struct Writer {
    n: usize,
    socket: PathBuf,
    agents: usize,
    run: Arc<Run>,
}

/// What became of a call.
enum Outcome {
    Done,
    Unsure,
}

impl Writer {
    async fn connect(&self) -> Option<Channel> {
        while !self.run.stopped() {
            match steeple_e2e::connect_uds(&self.socket).await {
                Ok(channel) => return Some(channel),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        None
    }

    /// Writes the attempt down, makes the call, and writes down what came of it.
    async fn attempt(
        &self,
        key: &str,
        state: Option<String>,
        call: impl Future<Output = Result<Vec<Option<Status>>, tonic::Status>>,
    ) -> Outcome {
        let deletes = state.is_none();
        self.run.ledger().attempt(key, state);
        let answer = tokio::time::timeout(PATIENCE, call).await;
        let done = match &answer {
            Ok(Ok(items)) => {
                items.iter().flatten().all(|item| item.code == 0 || deletes && item.code == NOT_FOUND)
            }
            Ok(Err(status)) => deletes && status.code() == tonic::Code::NotFound,
            Err(_) => false,
        };
        if done {
            self.run.ledger().acknowledge(key);
            return Outcome::Done;
        }
        self.run.ledger().unanswered();
        tokio::time::sleep(UNSURE).await;
        Outcome::Unsure
    }

    async fn entries(&self) {
        // `None`: not known, so that the next thing to do is to delete it.
        let mut present: Vec<Option<bool>> = vec![Some(false); THINGS as usize];
        let mut step = 0;
        while !self.run.stopped() {
            let Some(channel) = self.connect().await else { return };
            let mut client = EntryClient::new(channel);
            while !self.run.stopped() {
                step += 1;
                let thing = fastrand::u64(..THINGS);
                let held = &mut present[thing as usize];
                let entry = self.entry(thing, step);
                let key = entry.id.clone();
                let (outcome, after) = match *held {
                    Some(false) => {
                        (self.attempt(&key, Some(text(&entry)), create(&mut client, entry)).await, true)
                    }
                    Some(true) if fastrand::bool() => {
                        (self.attempt(&key, Some(text(&entry)), update(&mut client, entry)).await, true)
                    }
                    _ => (self.attempt(&key, None, delete(&mut client, key.clone())).await, false),
                };
                if matches!(outcome, Outcome::Unsure) {
                    *held = None;
                    break;
                }
                *held = Some(after);
                tokio::time::sleep(Duration::from_millis(fastrand::u64(..20))).await;
            }
        }
    }

    fn entry(&self, thing: u64, step: u64) -> Entry {
        let id = format!("w{}-{thing}", self.n);
        Entry {
            spiffe_id: spiffe_id(&format!("/{id}")),
            // One thing has one agent, so that its comings and goings can be counted there.
            parent_id: spiffe_id(&node((thing as usize + self.n) % self.agents)),
            selectors: vec![Selector { r#type: "unix".into(), value: format!("uid:{}", uid()) }],
            // Of two entries with one hint a workload gets only the older one.
            hint: format!("{id}-{step}"),
            x509_svid_ttl: 600 + (step % 100) as i32,
            id,
            ..Entry::default()
        }
    }

    async fn others(&self, anonymous: Channel) {
        let mut step = 0;
        while !self.run.stopped() {
            let Some(channel) = self.connect().await else { return };
            let mut bundles = BundleClient::new(channel.clone());
            let mut agents = AgentClient::new(channel);
            while !self.run.stopped() {
                step += 1;
                let outcome = if step % 4 == 0 {
                    self.victim(step, &mut agents, anonymous.clone()).await
                } else {
                    self.bundle(step, &mut bundles).await
                };
                if matches!(outcome, Outcome::Unsure) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(fastrand::u64(20..100))).await;
            }
        }
    }

    async fn bundle(&self, step: u64, client: &mut BundleClient<Channel>) -> Outcome {
        let name = format!("b{}-{}.test", self.n, fastrand::u64(..4));
        let key = format!("bundle {name}");
        if fastrand::u8(..4) == 0 {
            let request = BatchDeleteFederatedBundleRequest {
                trust_domains: vec![name],
                mode: Mode::Dissociate as i32,
            };
            let call = async {
                let results = client.batch_delete_federated_bundle(request).await?.into_inner().results;
                Ok(results.into_iter().map(|result| result.status).collect())
            };
            return self.attempt(&key, None, call).await;
        }
        let bundle = Bundle {
            trust_domain: name,
            refresh_hint: step as i64,
            sequence_number: step,
            ..Bundle::default()
        };
        let request = BatchSetFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
        let call = async {
            let results = client.batch_set_federated_bundle(request).await?.into_inner().results;
            Ok(results.into_iter().map(|result| result.status).collect())
        };
        self.attempt(&key, Some(step.to_string()), call).await
    }

    /// Attests an agent, then bans or evicts it.
    async fn victim(&self, step: u64, client: &mut AgentClient<Channel>, anonymous: Channel) -> Outcome {
        let token = format!("victim-{}-{step}-{}", self.n, fastrand::u32(..));
        let request = CreateJoinTokenRequest { ttl: 600, token: token.clone(), agent_id: None };
        if !matches!(tokio::time::timeout(PATIENCE, client.create_join_token(request)).await, Ok(Ok(_))) {
            tokio::time::sleep(UNSURE).await;
            return Outcome::Unsure;
        }
        let path = format!("/spire/agent/join_token/{token}");
        let key = format!("agent {path}");
        let attested = async {
            calls::attest(anonymous, &token).await?;
            Ok(Vec::new())
        };
        if matches!(self.attempt(&key, Some("attested".into()), attested).await, Outcome::Unsure) {
            return Outcome::Unsure;
        }
        if fastrand::bool() {
            let request = BanAgentRequest { id: spiffe_id(&path) };
            let ban = async { client.ban_agent(request).await.map(|_| Vec::new()) };
            self.attempt(&key, Some("banned".into()), ban).await
        } else {
            let request = DeleteAgentRequest { id: spiffe_id(&path) };
            let evict = async { client.delete_agent(request).await.map(|_| Vec::new()) };
            self.attempt(&key, None, evict).await
        }
    }
}

/// What of an entry is compared with the database.
pub fn text(entry: &Entry) -> String {
    let path = |id: &Option<Spiffeid>| id.as_ref().map(|id| id.path.clone()).unwrap_or_default();
    format!("{}|{}|{}|{}", path(&entry.parent_id), path(&entry.spiffe_id), entry.hint, entry.x509_svid_ttl)
}

#[allow(clippy::unnecessary_wraps, reason = "as messages hold it")]
pub fn spiffe_id(path: &str) -> Option<Spiffeid> {
    Some(Spiffeid { trust_domain: steeple_e2e::TRUST_DOMAIN.into(), path: path.into() })
}

type Items = Result<Vec<Option<Status>>, tonic::Status>;

async fn create(client: &mut EntryClient<Channel>, entry: Entry) -> Items {
    let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    let results = client.batch_create_entry(request).await?.into_inner().results;
    Ok(results.into_iter().map(|result| result.status).collect())
}

async fn update(client: &mut EntryClient<Channel>, entry: Entry) -> Items {
    let mask = EntryMask { hint: true, x509_svid_ttl: true, ..EntryMask::default() };
    let request = BatchUpdateEntryRequest { entries: vec![entry], input_mask: Some(mask), output_mask: None };
    let results = client.batch_update_entry(request).await?.into_inner().results;
    Ok(results.into_iter().map(|result| result.status).collect())
}

async fn delete(client: &mut EntryClient<Channel>, id: String) -> Items {
    let results =
        client.batch_delete_entry(BatchDeleteEntryRequest { ids: vec![id] }).await?.into_inner().results;
    Ok(results.into_iter().map(|result| result.status).collect())
}
