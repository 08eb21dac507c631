//! Servers on one database, agents of theirs, and harm done to them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use steeple_databases::{Database, Engine, Server};
use steeple_e2e::{Deployment, free_port, uid};

use crate::Plan;
use crate::proxy::Proxy;

/// Everything that runs. Servers listen on one port of 127.0.0.11, .12, …
#[derive(Debug)]
pub struct Cluster {
    pub agents: Vec<Deployment>,
    pub servers: Vec<Deployment>,
    pub proxy: Option<Proxy>,
    pub database: Arc<Database>,
    /// The database server that answers now.
    pub backend: Option<Arc<Server>>,
    pub port: u16,
}

/// Each agent's own alias, the parent of its entries.
pub fn node(agent: usize) -> String {
    format!("/node-{agent}")
}

impl Cluster {
    pub fn start(plan: &Plan, handle: &tokio::runtime::Handle) -> Result<Self> {
        let database = Arc::new(Database::alone(plan.engine)?);
        let backend = (plan.engine != Engine::Sqlite).then(|| database.own_server().cloned()).transpose()?;
        let proxy = backend.as_ref().map(|server| Proxy::start(server.port(), handle)).transpose()?;
        let port = free_port()?;
        let hosts: Vec<String> = (0..plan.servers).map(|n| format!("127.0.0.{}", 11 + n)).collect();
        let mut cluster = Self { agents: Vec::new(), servers: Vec::new(), proxy, database, backend, port };
        for host in &hosts {
            let mut builder =
                Deployment::builder().disk_keys().database(&cluster.database).listen(host, port);
            if let Some(proxy) = &cluster.proxy {
                builder = builder.connection_string(cluster.database.connection_string_at(proxy.port()));
            }
            cluster.servers.push(builder.start()?);
        }
        for n in 0..plan.agents {
            cluster.start_agent(n, &hosts)?;
        }
        Ok(cluster)
    }

    /// An agent that attests through one server and knows all.
    fn start_agent(&mut self, n: usize, hosts: &[String]) -> Result<()> {
        let server = &self.servers[n % self.servers.len()];
        // Its own server first in the list, only so that the lists differ.
        let mut known = hosts.to_vec();
        known.rotate_left(n % hosts.len());
        let mut agent = Deployment::builder()
            .disk_keys()
            .database(&self.database)
            .listen("127.0.0.1", self.port)
            .servers(&known.join(","))
            .prepare()?;
        std::fs::write(agent.path("bundle.pem"), server.server_ok(&["bundle", "show"])?)?;
        let id = format!("spiffe://example.org{}", node(n));
        let printed = server.server_ok(&["token", "generate", "-spiffeID", &id])?;
        let token = printed.split_whitespace().nth(1).context("no token")?;
        agent.start_agent_with(&["-joinToken", token])?;
        // A workload that always has an identity keeps its stream.
        server.server_ok(&[
            "entry",
            "create",
            "-entryID",
            &format!("anchor-{n}"),
            "-spiffeID",
            &format!("spiffe://example.org/anchor-{n}"),
            "-parentID",
            &id,
            "-selector",
            &format!("unix:uid:{}", uid()),
        ])?;
        self.agents.push(agent);
        Ok(())
    }

    /// Kills servers and the database for so long; all run at the end.
    pub fn harm_for(&mut self, length: Duration) -> Result<String> {
        let end = Instant::now() + length;
        let (mut servers, mut databases, mut cuts, mut both) = (0, 0, 0, 0);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(fastrand::u64(500..4000)));
            let victim = fastrand::usize(..self.servers.len());
            match fastrand::u8(..10) {
                0..5 => {
                    self.kill_server(victim);
                    std::thread::sleep(Duration::from_millis(fastrand::u64(..2000)));
                    self.restart_server(victim)?;
                    servers += 1;
                }
                5..7 => {
                    self.kill_database(|_| {})?;
                    databases += 1;
                }
                7 => {
                    self.kill_database(|cluster| cluster.kill_server(victim))?;
                    self.restart_server(victim)?;
                    both += 1;
                }
                _ => {
                    if let Some(proxy) = &self.proxy {
                        proxy.cut();
                        cuts += 1;
                    }
                }
            }
            self.all_alive()?;
        }
        Ok(format!(
            "killed: a server {servers} times, the database {databases} times, both {both} times; connections cut {cuts} times"
        ))
    }

    fn kill_database(&mut self, meanwhile: impl FnOnce(&mut Self)) -> Result<()> {
        let Some(backend) = self.backend.clone() else {
            meanwhile(self);
            return Ok(());
        };
        backend.kill()?;
        meanwhile(self);
        std::thread::sleep(Duration::from_millis(fastrand::u64(..2500)));
        backend.start()
    }

    fn kill_server(&mut self, n: usize) {
        if let Some(mut server) = self.servers[n].server.take() {
            server.kill();
        }
    }

    fn restart_server(&mut self, n: usize) -> Result<()> {
        self.servers[n].start_server().with_context(|| format!("server {n} does not come back"))
    }

    /// No process may end by itself: not with the database gone, not because of another server.
    pub fn all_alive(&mut self) -> Result<()> {
        for (n, deployment) in self.servers.iter_mut().enumerate() {
            if let Some(status) = deployment.server.as_mut().and_then(steeple_e2e::Daemon::ended) {
                let log = deployment.server.as_ref().map(steeple_e2e::Daemon::log).unwrap_or_default();
                bail!("server {n} ended with {status}; its log ends:\n{}", tail(&log));
            }
        }
        for (n, deployment) in self.agents.iter_mut().enumerate() {
            if let Some(status) = deployment.agent.as_mut().and_then(steeple_e2e::Daemon::ended) {
                let log = deployment.agent.as_ref().map(steeple_e2e::Daemon::log).unwrap_or_default();
                bail!("agent {n} ended with {status}; its log ends:\n{}", tail(&log));
            }
        }
        Ok(())
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
