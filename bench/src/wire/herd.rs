//! Many agents over real mTLS connections, in processes of their own: `steeple-bench herd`. The driver writes a [`Spec`]
//! line to such a process and reads [`Said`] lines from it.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use steeple_proto::spire::api::server::entry::v1::EntryRevision;
use steeple_spiffe::Certificate;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Semaphore, mpsc};

use super::node::{Node, Way, tokens};
use crate::subject::Place;

/// What a herd process is to do.
#[derive(Debug, Serialize, Deserialize)]
struct Spec {
    address: String,
    trust_domain: String,
    bundle: String,
    tokens: Vec<String>,
    /// By Steeple's push stream, or by SyncAuthorizedEntries every five seconds.
    push: bool,
}

/// What it tells, each once all its agents have come so far. Times in microseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// Connected, with a full view.
    Held,
    /// Saw this entry.
    Seen {
        id: String,
        at: Vec<u64>,
    },
    /// Reconnected and has a full view again.
    Back {
        at: Vec<u64>,
    },
    Failed {
        error: String,
    },
}

/// What one agent tells within the process.
enum News {
    Held,
    Seen(String),
    Back,
    Failed(String),
}

/// Agents of one process at most: each has a connection.
const EACH: usize = 2500;
/// SPIRE's agent asks every five seconds.
const POLL: Duration = Duration::from_secs(5);
/// Entries of this name are reported when they come.
pub const CHANGE: &str = "change-";
const ATTESTING: usize = 16;
const PATIENCE: Duration = Duration::from_mins(10);

/// The driver's side.
#[derive(Debug)]
pub struct Herd {
    members: Vec<(Child, Lines<BufReader<ChildStdout>>)>,
    agents: usize,
}

impl Herd {
    /// Attests and connects `agents` of them; returns when all have a full view.
    pub async fn start(place: &mut Place, agents: usize, push: bool) -> Result<Self> {
        let bundle = place.admin.authorities().await?.iter().map(Certificate::to_pem).collect::<String>();
        let mut members = Vec::new();
        let mut left = agents;
        while left > 0 {
            let some = left.min(EACH);
            left -= some;
            let spec = Spec {
                address: place.at.address.clone(),
                trust_domain: place.admin.trust_domain().to_owned(),
                bundle: bundle.clone(),
                tokens: tokens(&mut place.admin, some).await?,
                push,
            };
            members.push(spawn(&spec).await?);
        }
        let mut herd = Self { members, agents };
        for n in 0..herd.members.len() {
            match herd.said(n).await? {
                Said::Held => {}
                other => bail!("a herd began with {other:?}"),
            }
        }
        Ok(herd)
    }

    pub fn agents(&self) -> usize {
        self.agents
    }

    /// Until all agents have seen the entry; how long after `begin` each did.
    pub async fn seen(&mut self, entry: &str, begin: u64) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for n in 0..self.members.len() {
            match self.said(n).await? {
                Said::Seen { id, at } if id == entry => times.extend(at),
                other => bail!("a herd said {other:?} instead of {entry}"),
            }
        }
        Ok(since(begin, &times))
    }

    /// Until all have a full view again.
    pub async fn back(&mut self, begin: u64) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for n in 0..self.members.len() {
            match self.said(n).await? {
                Said::Back { at } => times.extend(at),
                other => bail!("a herd said {other:?} instead of coming back"),
            }
        }
        Ok(since(begin, &times))
    }

    async fn said(&mut self, member: usize) -> Result<Said> {
        let line = tokio::time::timeout(PATIENCE, self.members[member].1.next_line()).await;
        let line = line.context("a herd is silent")??.context("a herd has ended")?;
        match serde_json::from_str(&line).with_context(|| line.clone())? {
            Said::Failed { error } => bail!("a simulated agent: {error}"),
            said => Ok(said),
        }
    }
}

/// Microseconds since 1970, the same in all processes.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn since(begin: u64, times: &[u64]) -> Vec<Duration> {
    times.iter().map(|at| Duration::from_micros(at.saturating_sub(begin))).collect()
}

async fn spawn(spec: &Spec) -> Result<(Child, Lines<BufReader<ChildStdout>>)> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("herd")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut line = serde_json::to_vec(spec)?;
    line.push(b'\n');
    let mut stdin = child.stdin.take().context("no stdin")?;
    stdin.write_all(&line).await?;
    // The process ends when its stdin does: with the driver.
    child.stdin = Some(stdin);
    let stdout = child.stdout.take().context("no stdout")?;
    Ok((child, BufReader::new(stdout).lines()))
}

/// The program `steeple-bench herd`.
pub async fn run() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let spec: Spec = serde_json::from_str(&line).context("no spec")?;
    let way = Way::new(&spec.address, &spec.trust_domain, Certificate::from_pem(&spec.bundle)?)?;
    let (news, heard) = mpsc::unbounded_channel();
    let count = spec.tokens.len();
    let push = spec.push;
    let work = async move {
        let shared = way.anonymous()?;
        let gate = Arc::new(Semaphore::new(ATTESTING));
        let nodes: Vec<Result<Node>> = stream::iter(spec.tokens)
            .map(|token| {
                let (way, shared) = (&way, shared.clone());
                async move { way.join_through(shared, &token).await }
            })
            .buffer_unordered(ATTESTING)
            .collect()
            .await;
        for (n, node) in nodes.into_iter().enumerate() {
            let (node, news, gate) = (node?, news.clone(), gate.clone());
            // Polls are spread over the interval as those of real agents are.
            let offset = POLL.mul_f64(n as f64 / count as f64);
            #[allow(clippy::disallowed_methods, reason = "agents of a simulation end with its process")]
            tokio::spawn(async move {
                let lived = if push {
                    push_forever(&node, &news, &gate).await
                } else {
                    poll_forever(&node, &news, &gate, offset).await
                };
                if let Err(error) = lived {
                    news.send(News::Failed(format!("{error:#}"))).ok();
                }
            });
        }
        tell(heard, count).await
    };
    // Nothing more comes: what ends is the driver.
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    tokio::select! { done = work => done, _ = ended => Ok(()) }
}

/// Collects what single agents tell until all did.
async fn tell(mut heard: mpsc::UnboundedReceiver<News>, count: usize) -> Result<()> {
    let mut held = 0;
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let mut back = Vec::new();
    while let Some(news) = heard.recv().await {
        let said = match news {
            News::Held => {
                held += 1;
                (held == count).then_some(Said::Held)
            }
            News::Seen(id) => {
                let times = seen.entry(id.clone()).or_default();
                times.push(now());
                (times.len() == count).then(|| Said::Seen { at: seen.remove(&id).unwrap_or_default(), id })
            }
            News::Back => {
                back.push(now());
                (back.len() == count).then(|| Said::Back { at: std::mem::take(&mut back) })
            }
            News::Failed(error) => Some(Said::Failed { error }),
        };
        if let Some(said) = said {
            let mut line = serde_json::to_vec(&said)?;
            line.push(b'\n');
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&line)?;
            stdout.flush()?;
        }
    }
    Ok(())
}

/// An agent that is pushed to; after a lost connection it comes again as Steeple's agent does, from what it knows.
///
/// The first connections pass a gate: nobody starts thousands of agents in one second. What follows a restart of the server does not.
async fn push_forever(node: &Node, news: &mpsc::UnboundedSender<News>, gate: &Semaphore) -> Result<()> {
    let mut first = Some(gate.acquire().await?);
    let (mut revision, mut log_id) = (0, String::new());
    let mut synced_once = false;
    let mut pause = Duration::from_millis(250);
    loop {
        let opened = node.watch(revision, log_id.clone()).await;
        let Ok(mut stream) = opened else {
            ensure!(synced_once, "{:#}", opened.err().context("no error")?);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(4));
            continue;
        };
        let mut complete = false;
        while let Ok(Some(message)) = stream.message().await {
            for entry in &message.entries {
                if entry.id.starts_with(CHANGE) && synced_once && complete {
                    news.send(News::Seen(entry.id.clone()))?;
                }
            }
            if !message.more {
                (revision, log_id) = (message.revision, message.log_id);
                if !std::mem::replace(&mut complete, true) {
                    synced_once = true;
                    news.send(if first.take().is_some() { News::Held } else { News::Back })?;
                    pause = Duration::from_millis(250);
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

/// An agent that polls as SPIRE's does.
async fn poll_forever(
    node: &Node,
    news: &mpsc::UnboundedSender<News>,
    gate: &Semaphore,
    offset: Duration,
) -> Result<()> {
    let mut known: BTreeMap<String, i64> = BTreeMap::new();
    let (mut first, mut lost) = (true, false);
    let mut turn = Some(gate.acquire().await?);
    loop {
        let new = |revisions: &[EntryRevision]| {
            let news = revisions.iter().filter(|r| known.get(&r.id) != Some(&r.revision_number));
            news.map(|r| r.id.clone()).collect()
        };
        match node.sync_with(new).await {
            Ok((_, entries)) => {
                for entry in entries {
                    let before = known.insert(entry.id.clone(), entry.revision_number);
                    if before.is_none() && entry.id.starts_with(CHANGE) && !first {
                        news.send(News::Seen(entry.id))?;
                    }
                }
                turn.take();
                if std::mem::take(&mut first) {
                    news.send(News::Held)?;
                    tokio::time::sleep(offset).await;
                }
                if std::mem::take(&mut lost) {
                    news.send(News::Back)?;
                }
            }
            Err(error) if first => return Err(error),
            Err(_) => lost = true,
        }
        tokio::time::sleep(POLL).await;
    }
}
