//! Caller → container → engine → selectors.
//!
//! What the caller's cgroups (or mounts) name is a claim that others than the engine may have arranged
//! ([`steeple_runtime::container`]). It counts once the engine's answer confirms it: the container's first process,
//! by the number that the engine tells, must be in the same cgroup, or for what the mounts said in the same mount
//! namespace. SPIRE does not look, and gives a container's selectors to whoever is in a cgroup of that name.

use std::io;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use steeple_plugin::{Caller, WorkloadAttestError, WorkloadAttestor};
use steeple_runtime::container::{Place, PlaceError, Process, Want, cgroup_mounts, cgroups};
use steeple_runtime::gate::{Gate, Unanswered};

use crate::config::DockerConfig;
use crate::engine::{Container, Engine, EngineError};
use crate::matchers::MatchError;

/// Calls under way to all engines together.
const AT_ONCE: usize = 64;
/// An engine answers in some milliseconds.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// See the module's documentation.
#[derive(Debug)]
pub struct Docker {
    config: DockerConfig,
    gate: Gate,
}

/// Why there are no selectors.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Match(#[from] MatchError),
    #[error(
        "the caller is in a container of user {0}'s Podman, which says of its containers what that user wants; to trust the engines of users set podman_socket_path_template"
    )]
    Rootless(u32),
    #[error("the engine at {socket}, asked for container {id}: {source}")]
    Unanswered { socket: String, id: String, source: Unanswered },
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(
        "container {id}: its first process is {pid}, says the engine, which is not to be found: {source}; has it ended, or is the engine in another PID namespace?"
    )]
    NoInit { id: String, pid: i32, source: io::Error },
    #[error(
        "the caller is in a cgroup (or has mounts) named after container {id}, but not where the engine's first process {pid} of that container is: not believed"
    )]
    Elsewhere { id: String, pid: i32 },
    #[error("cannot read the caller's {what}: {source}")]
    Proc { what: &'static str, source: io::Error },
}

/// How the claim is to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Cgroup,
    Mounts,
}

impl Docker {
    pub fn new(config: DockerConfig) -> Self {
        Self { config, gate: Gate::new(AT_ONCE, ANSWERS_WITHIN) }
    }

    /// The container that the caller claims. None: it is in no container.
    fn place(&self, process: &Process, pid: i32) -> Result<Option<(Place, Proof)>, Failure> {
        let read = |what, text: io::Result<String>| match text {
            Ok(text) => Ok(text),
            // SPIRE: a kernel without it has no containers.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(source) => Err(Failure::Proc { what, source }),
        };
        let cgroup = read("cgroups", process.cgroup())?;
        if self.config.verbose {
            log_cgroups(pid, &cgroup);
        }
        let found = match &self.config.matchers {
            Some(matchers) => return Ok(matchers.find(&cgroup)?.map(|place| (place, Proof::Cgroup))),
            None => Place::from_cgroup(&cgroup, Want::Container)?,
        };
        if let Some(place) = found {
            return Ok(Some((place, Proof::Cgroup)));
        }
        let mounts = read("mounts", process.mountinfo())?;
        if self.config.verbose {
            log_mounts(pid, &mounts);
        }
        Ok(Place::from_mountinfo(&mounts, Want::Container)?.map(|place| (place, Proof::Mounts)))
    }

    /// Podman's, if the place is named as Podman does; of the user whose slice it is in.
    fn engine(&self, place: &Place) -> Result<Engine, Failure> {
        let engine = |socket: &Path| Engine { socket: socket.to_owned(), version: None, user: None };
        match Owner::of(place) {
            Owner::Docker => {
                let version = self.config.docker_version.clone();
                Ok(Engine { version, ..engine(&self.config.docker_socket) })
            }
            Owner::Podman => Ok(engine(&self.config.podman_socket)),
            Owner::RootlessPodman(uid) => match &self.config.rootless_podman {
                Some(template) => Ok(Engine { user: Some(uid), ..engine(&template.of(uid)) }),
                None => Err(Failure::Rootless(uid)),
            },
        }
    }

    async fn ask(&self, process: &Process, place: &Place, proof: Proof) -> Result<Vec<String>, Failure> {
        let engine = self.engine(place)?;
        let id = &place.container_id;
        let socket = engine.socket.display().to_string();
        let key = format!("{socket} {id}");
        let told = self.gate.pass(&key, engine.inspect(id)).await;
        let container = told.map_err(|source| Failure::Unanswered { socket, id: id.clone(), source })??;
        confirm(process, place, proof, container.pid)?;
        Ok(selectors(container))
    }
}

#[async_trait]
impl WorkloadAttestor for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    async fn attest(&self, caller: &dyn Caller) -> Result<Vec<String>, WorkloadAttestError> {
        let pid = caller.pid();
        let gone = |_| WorkloadAttestError::Gone { pid };
        let process = Process::open(pid);
        // Still the caller after the handle was taken: the handle is the caller's.
        caller.still_here().map_err(gone)?;
        let process = process
            .map_err(|source| WorkloadAttestError::Io { what: "failed to get process".to_owned(), source })?;
        let Some((place, proof)) = self.place(&process, pid).map_err(|failure| failure.of(pid))? else {
            return Ok(Vec::new());
        };
        let found = self.ask(&process, &place, proof).await;
        caller.still_here().map_err(gone)?;
        found.map_err(|failure| failure.of(pid))
    }
}

impl Failure {
    fn of(self, pid: i32) -> WorkloadAttestError {
        match self {
            Self::Proc { source, .. } if source.raw_os_error() == Some(ESRCH) => {
                WorkloadAttestError::Gone { pid }
            }
            Self::Unanswered { source: Unanswered::StillSilent(_), .. } => {
                WorkloadAttestError::StillSilent(self.to_string())
            }
            failure => WorkloadAttestError::Other(failure.to_string()),
        }
    }
}

/// "No such process", on Linux.
const ESRCH: i32 = 3;

/// Which engine made the container, told by the name of its cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Docker,
    Podman,
    RootlessPodman(u32),
}

impl Owner {
    fn of(place: &Place) -> Self {
        let podman = place.anchors.iter().find(|anchor| {
            let (parent, name) = anchor.path.rsplit_once('/').unwrap_or(("", &anchor.path));
            name.starts_with("libpod-") || parent.ends_with("/libpod")
        });
        let Some(anchor) = podman else { return Self::Docker };
        let mut slices = anchor.path.split('/');
        let uid = slices.find_map(|part| part.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok());
        uid.map_or(Self::Podman, Self::RootlessPodman)
    }
}

fn confirm(process: &Process, place: &Place, proof: Proof, pid: i32) -> Result<(), Failure> {
    let id = || place.container_id.clone();
    let missing = |source| Failure::NoInit { id: id(), pid, source };
    let init = Process::open(pid).map_err(missing)?;
    let same = match proof {
        Proof::Cgroup => place.holds(&init.cgroup().map_err(missing)?),
        Proof::Mounts => process.shares_mounts(&init).map_err(missing)?,
    };
    same.then_some(()).ok_or_else(|| Failure::Elsewhere { id: id(), pid })
}

fn selectors(container: Container) -> Vec<String> {
    let labels = container.labels.iter().map(|(key, value)| format!("label:{key}:{value}"));
    let mut found: Vec<String> = labels.collect();
    found.extend(container.env.iter().map(|variable| format!("env:{variable}")));
    if !container.image.is_empty() {
        found.push(format!("image_id:{}", container.image));
    }
    // SPIRE asks what the image's name stands for now, which need not be what the container runs.
    if !container.image_id.is_empty() {
        found.push(format!("image_config_digest:{}", container.image_id));
    }
    found
}

fn log_cgroups(pid: i32, text: &str) {
    let Ok(lines) = cgroups(text) else { return };
    for (index, line) in lines.iter().enumerate() {
        tracing::debug!(
            subsystem_name = "workload_attestor",
            plugin_name = "docker",
            pid,
            index = index + 1,
            total = lines.len(),
            path = line.path,
            "PID cgroup enumerated"
        );
    }
}

fn log_mounts(pid: i32, text: &str) {
    let Ok(roots) = cgroup_mounts(text) else { return };
    for (index, root) in roots.iter().enumerate() {
        tracing::debug!(
            subsystem_name = "workload_attestor",
            plugin_name = "docker",
            pid,
            index = index + 1,
            total = roots.len(),
            root,
            "PID mount enumerated"
        );
    }
}

#[cfg(test)]
mod tests;
