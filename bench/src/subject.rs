//! Whose server and agent are measured, and where they are.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use steeple_e2e::{Deployment, DeploymentBuilder, NODE};

use crate::measure::Process;
use crate::wire::Admin;

/// A system under measurement.
#[derive(Debug)]
pub struct Subject {
    pub name: String,
    /// Whether it has Steeple's own APIs.
    pub steeple: bool,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Binaries(PathBuf),
    Running(Running),
}

/// A system that somebody else started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Running {
    pub server_socket: PathBuf,
    pub workload_socket: PathBuf,
    /// HOST:PORT of the server's TCP API.
    pub address: String,
    /// The SPIFFE ID that the running agent has: parent of the entries made here.
    pub parent: String,
}

impl Running {
    /// All four are needed.
    pub fn complete(self) -> Result<Self> {
        let empty = Path::new("");
        if self.server_socket == empty
            || self.workload_socket == empty
            || self.address.is_empty()
            || self.parent.is_empty()
        {
            bail!("a running system takes --server-socket, --workload-socket, --server-address and --parent");
        }
        Ok(self)
    }
}

impl Subject {
    pub fn binaries(dir: &Path) -> Result<Self> {
        let printed = std::process::Command::new(dir.join("spire-server"))
            .arg("--version")
            .output()
            .with_context(|| format!("{}/spire-server does not start", dir.display()))?;
        let text = [printed.stdout, printed.stderr].concat();
        let steeple = String::from_utf8_lossy(&text).to_lowercase().contains("steeple");
        let name = if steeple { "steeple" } else { "spire" };
        Ok(Self { name: name.to_owned(), steeple, source: Source::Binaries(dir.to_owned()) })
    }

    pub fn running(running: Running) -> Self {
        // Whether it pushes is not known: it is measured by SPIRE's APIs.
        Self { name: "running".to_owned(), steeple: false, source: Source::Running(running) }
    }

    /// The folder of its binaries.
    pub fn bin_dir(&self) -> Result<&Path> {
        match &self.source {
            Source::Binaries(dir) => Ok(dir),
            Source::Running(_) => bail!("this scenario starts its own servers: it takes --bin-dir"),
        }
    }

    /// A server in a fresh folder, on SQLite.
    pub async fn server(&self) -> Result<Place> {
        self.open(|builder| builder, false).await
    }

    /// The same with an agent.
    pub async fn with_agent(&self) -> Result<Place> {
        self.open(|builder| builder, true).await
    }

    /// The same with other options. A running system has those it has.
    pub async fn open(
        &self,
        options: impl FnOnce(DeploymentBuilder) -> DeploymentBuilder,
        agent: bool,
    ) -> Result<Place> {
        let dir = match &self.source {
            Source::Binaries(dir) => dir,
            Source::Running(running) => return Place::running(running).await,
        };
        let mut deployment = options(
            Deployment::builder().bin_dir(dir).engine(steeple_e2e::Engine::Sqlite).quiet().unlimited(),
        )
        .start()?;
        if agent {
            deployment.start_agent()?;
        }
        Place::of(deployment).await
    }
}

/// One server, perhaps with an agent. What is started here ends with it.
#[derive(Debug)]
pub struct Place {
    pub deployment: Option<Deployment>,
    pub at: Running,
    pub admin: Admin,
}

impl Place {
    /// A deployment that a scenario started itself.
    pub async fn of(deployment: Deployment) -> Result<Self> {
        let at = Running {
            server_socket: deployment.server_socket(),
            workload_socket: deployment.workload_socket(),
            address: format!("127.0.0.1:{}", deployment.port()),
            parent: NODE.to_owned(),
        };
        let admin = Admin::connect(&at.server_socket, &at.parent).await?;
        Ok(Self { deployment: Some(deployment), at, admin })
    }

    async fn running(at: &Running) -> Result<Self> {
        let admin = Admin::connect(&at.server_socket, &at.parent).await?;
        Ok(Self { deployment: None, at: at.clone(), admin })
    }

    /// What restarts need.
    pub fn own(&mut self) -> Result<&mut Deployment> {
        self.deployment.as_mut().context("this scenario restarts what it measures: it takes --bin-dir")
    }

    pub fn server(&self) -> Result<Process> {
        match &self.deployment {
            Some(deployment) => {
                let daemon = deployment.server.as_ref().context("the server has gone")?;
                Ok(Process { pid: daemon.pid() })
            }
            None => listener(&self.at.server_socket),
        }
    }

    pub fn agent(&self) -> Result<Process> {
        match &self.deployment {
            Some(deployment) => {
                let daemon = deployment.agent.as_ref().context("the agent has gone")?;
                Ok(Process { pid: daemon.pid() })
            }
            None => listener(&self.at.workload_socket),
        }
    }
}

/// Who listens on a socket, as the kernel tells.
fn listener(socket: &Path) -> Result<Process> {
    let stream = std::os::unix::net::UnixStream::connect(socket)?;
    let credentials = rustix::net::sockopt::socket_peercred(&stream)?;
    Ok(Process { pid: credentials.pid.as_raw_nonzero().get().cast_unsigned() })
}
