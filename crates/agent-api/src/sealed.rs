//! The agent's state at rest: what it would have to wait for its server for after a restart, sealed on disk.
//!
//! [`Sealed::restore`] takes up what an earlier process held, before the server has answered anything; [`Sealed::run`]
//! keeps the file up with the state. Changes are appended, so that keeping them costs what changed; the file is written
//! anew once what was appended outgrows the rest. Nothing that serves a workload waits for it.
//!
//! | module | what it is |
//! |---|---|
//! | [`key`] | the sealing key, and where it is kept: the seam for TPMs |
//! | [`file`] | the file: header, sealed frames |
//! | [`record`] | what a frame holds |
//! | [`keeper`] | when what is written |

mod file;
mod keeper;
mod key;
mod record;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use steeple_agent_core::snapshot::Snapshot;
use steeple_runtime::clock::Clock;
use steeple_spiffe::{SpiffeId, TrustDomain};

use crate::state::AgentState;
use file::{Header, ReadError};
use keeper::Keeper;
use key::SealingKey;
pub use key::{KeyError, SealingKeyConfig, SealingMode, UnknownMode};

/// How state is sealed, and where.
#[derive(Clone, Debug)]
pub struct SealedConfig {
    pub data_dir: PathBuf,
    pub trust_domain: TrustDomain,
    pub key: SealingKeyConfig,
}

/// See the [module](self).
pub struct Sealed {
    trust_domain: TrustDomain,
    path: PathBuf,
    clock: Arc<dyn Clock>,
    key: Mutex<SealingKey>,
    keeper: Mutex<Keeper>,
}

/// What was taken up from disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    pub entries: usize,
    pub x509_svids: usize,
    pub jwt_svids: usize,
}

/// Beside `agent-data.json`.
const FILE: &str = "agent-state.sealed";

impl Sealed {
    /// Finds or makes the sealing key. `None` if state is not kept; what was kept earlier goes then. Waits for the disk.
    pub fn open(config: SealedConfig, clock: Arc<dyn Clock>) -> Result<Option<Arc<Self>>, KeyError> {
        let path = config.data_dir.join(FILE);
        let Some(key) = SealingKey::find(&config.key, &config.data_dir)? else {
            remove_all(&path);
            return Ok(None);
        };
        tracing::info!(subsystem_name = "sealed_state", mode = key.mode(), "Agent state is kept sealed");
        metrics::gauge!("sealed_state", "mode" => key.mode()).set(1.0);
        let trust_domain = config.trust_domain;
        let (key, keeper) = (Mutex::new(key), Mutex::default());
        Ok(Some(Arc::new(Self { trust_domain, path, clock, key, keeper })))
    }

    /// Puts in force what was kept for this agent, as far as it has not ended. A file that cannot be used is moved aside
    /// and reported. Waits for the disk.
    pub fn restore(&self, state: &AgentState, agent: Option<&SpiffeId>) -> Option<Restored> {
        let _ = std::fs::remove_file(temporary(&self.path));
        let read = {
            let key = self.key();
            let read = self.read(&key, agent);
            if matches!(read, Err(ReadError::Seal)) && key.is_new() {
                tracing::info!(
                    subsystem_name = "sealed_state",
                    mode = key.mode(),
                    "The key that the agent's state was sealed with is gone; starting without it"
                );
                let _ = std::fs::remove_file(&self.path);
                return None;
            }
            read
        };
        let mut snapshot = match read {
            Ok(snapshot) => snapshot?,
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.move_aside(&error);
                return None;
            }
        };
        snapshot.drop_ended(state.now());
        let restored = put_in_force(state, snapshot);
        tracing::info!(
            subsystem_name = "sealed_state",
            entries = restored.entries,
            x509_svids = restored.x509_svids,
            jwt_svids = restored.jwt_svids,
            revision = state.view().revision(),
            "Agent state restored"
        );
        (restored.entries > 0).then_some(restored)
    }

    fn read(&self, key: &SealingKey, agent: Option<&SpiffeId>) -> Result<Option<Snapshot>, ReadError> {
        let mut file = file::Reader::open(&self.path)?;
        let agent = agent.ok_or(ReadError::NoAgent)?;
        file.belongs_to(&self.header(key, agent))?;
        let (snapshot, torn) = file.snapshot(key.secret())?;
        if torn {
            tracing::warn!(
                subsystem_name = "sealed_state",
                path = %self.path.display(),
                "The last change was not written to its end and is left out"
            );
        }
        Ok(Some(snapshot))
    }

    fn header(&self, key: &SealingKey, agent: &SpiffeId) -> Header {
        Header::new(key.mode(), &self.trust_domain, agent)
    }

    /// One is kept, for whoever wants to know what happened to it.
    fn move_aside(&self, error: &ReadError) {
        for old in aside(&self.path) {
            let _ = std::fs::remove_file(old);
        }
        let to = self.path.with_extension(format!("sealed.bad-{}", self.clock.now()));
        let moved = std::fs::rename(&self.path, &to);
        metrics::counter!("sealed_state_refused").increment(1);
        tracing::error!(
            subsystem_name = "sealed_state",
            path = %self.path.display(),
            moved_to = %to.display(),
            error = %error,
            move_error = moved.err().map(|error| error.to_string()),
            "Sealed agent state cannot be used; it was moved aside, and everything is fetched from the server"
        );
    }

    /// Drops what is kept, and the key that could still open what a disk remembers of it. Waits for the disk.
    pub fn forget(&self) {
        let mut keeper = self.keeper();
        *keeper = Keeper::default();
        remove_all(&self.path);
        if let Err(error) = self.key().renew() {
            tracing::warn!(subsystem_name = "sealed_state", error = %error, "The sealing key could not be replaced");
        }
        tracing::info!(subsystem_name = "sealed_state", "Sealed agent state removed");
    }

    fn key(&self) -> MutexGuard<'_, SealingKey> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put_in_force(state: &AgentState, mut snapshot: Snapshot) -> Restored {
    let changes = state.view().restore(&mut snapshot);
    let entries = changes.entries.len();
    state.apply(&changes);
    let now = state.now();
    state.cache().restore(snapshot.svids, now);
    state.jwt().restore(snapshot.tokens, now);
    state.keep_budget();
    let (x509_svids, jwt_svids) = state.svid_counts();
    metrics::gauge!("lru_cache_svid_map_size", "svid_type" => "X509").set(x509_svids as f64);
    metrics::gauge!("jwt_svid_cache_size").set(jwt_svids as f64);
    Restored { entries, x509_svids, jwt_svids }
}

/// The file, what is half written, what was moved aside.
fn remove_all(path: &Path) {
    for path in [path.to_owned(), temporary(path)].into_iter().chain(aside(path)) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(subsystem_name = "sealed_state", path = %path.display(), error = %error, "Sealed agent state cannot be removed");
            }
            _ => {}
        }
    }
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("sealed.tmp")
}

/// What was moved aside earlier.
fn aside(path: &Path) -> Vec<PathBuf> {
    let Some(directory) = path.parent() else { return Vec::new() };
    let prefix = format!("{FILE}.bad-");
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bad = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    bad.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests;
