//! A workload at each agent, which writes down what comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use steeple_e2e::Workload;
use steeple_proto::workload::X509svidRequest;
use tokio::task::JoinSet;

use crate::cluster::Cluster;

/// What the workload at one agent saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Names of identities it has now.
    pub now: BTreeSet<String>,
    /// How often each came and went.
    pub came: BTreeMap<String, u64>,
    pub went: BTreeMap<String, u64>,
    /// Streams that ended, with why. The agent lives, so there must be none.
    pub broken: Vec<String>,
}

/// Ends with its owner.
#[derive(Debug)]
pub struct Observers {
    seen: Vec<Arc<Mutex<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Observers {
    pub fn seen(&self, agent: usize) -> MutexGuard<'_, Seen> {
        lock(&self.seen[agent])
    }

    /// Starts counting anew.
    pub fn forget(&self) {
        for seen in &self.seen {
            let mut seen = lock(seen);
            seen.came.clear();
            seen.went.clear();
        }
    }
}

pub fn start(cluster: &Cluster, handle: &tokio::runtime::Handle) -> Observers {
    let mut tasks = JoinSet::new();
    let mut all = Vec::new();
    for agent in &cluster.agents {
        let seen = Arc::<Mutex<Seen>>::default();
        all.push(seen.clone());
        tasks.spawn_on(observe(agent.workload_socket(), seen), handle);
    }
    Observers { seen: all, _tasks: tasks }
}

async fn observe(socket: PathBuf, seen: Arc<Mutex<Seen>>) {
    loop {
        if let Err(error) = follow(&socket, &seen).await {
            lock(&seen).broken.push(format!("{error:#}"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn follow(socket: &std::path::Path, seen: &Mutex<Seen>) -> Result<()> {
    let mut workload = Workload::connect(socket).await?;
    let mut stream = workload.api.fetch_x509svid(Workload::request(X509svidRequest {})).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let names: BTreeSet<String> = message
            .svids
            .iter()
            .filter_map(|svid| Some(svid.spiffe_id.rsplit_once('/')?.1.to_owned()))
            .collect();
        let mut seen = lock(seen);
        for name in names.difference(&seen.now.clone()) {
            *seen.came.entry(name.clone()).or_default() += 1;
        }
        for name in seen.now.clone().difference(&names) {
            *seen.went.entry(name.clone()).or_default() += 1;
        }
        seen.now = names;
    }
    anyhow::bail!("the agent closed the stream")
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
