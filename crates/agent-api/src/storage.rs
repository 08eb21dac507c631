//! `<data_dir>/agent-data.json`, written so that a crash leaves the old file or the new one.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use steeple_agent_core::agent_data::{AgentData, AgentDataError};

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Storage {
    path: PathBuf,
}

/// Why the agent's state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("cannot {what} {}: {source}; check data_dir and its permissions", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: {source}; remove the file to attest anew", path.display())]
    Damaged { path: PathBuf, source: AgentDataError },
}

impl Storage {
    /// Makes the directory if it is not there.
    pub fn open(data_dir: &Path) -> Result<Self, StorageError> {
        let io = |what| move |source| StorageError::Io { what, path: data_dir.to_owned(), source };
        fs::create_dir_all(data_dir).map_err(io("create"))?;
        let storage = Self { path: data_dir.join("agent-data.json") };
        // Found out now rather than after the join token is spent.
        let probe = data_dir.join(".agent-probe");
        fs::write(&probe, b"").map_err(io("write to"))?;
        fs::remove_file(&probe).map_err(io("write to"))?;
        Ok(storage)
    }

    /// Nothing stored yet is an empty [`AgentData`].
    pub fn load(&self) -> Result<AgentData, StorageError> {
        match fs::read(&self.path) {
            Ok(text) => AgentData::from_json(&text)
                .map_err(|source| StorageError::Damaged { path: self.path.clone(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(AgentData::default()),
            Err(source) => Err(StorageError::Io { what: "read", path: self.path.clone(), source }),
        }
    }

    pub fn store(&self, data: &AgentData) -> Result<(), StorageError> {
        let text =
            data.to_json().map_err(|source| StorageError::Damaged { path: self.path.clone(), source })?;
        self.write(&text).map_err(|source| StorageError::Io {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        let temporary = self.path.with_extension("json.tmp");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        if let Some(directory) = self.path.parent() {
            fs::File::open(directory)?.sync_all()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn starts_empty_and_keeps_what_is_stored_privately() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(&dir.path().join("deep/data")).unwrap();
        assert!(storage.load().unwrap().svid.is_empty());
        storage.store(&AgentData { reattestable: true, ..AgentData::default() }).unwrap();
        assert!(storage.load().unwrap().reattestable);
        let mode = fs::metadata(&storage.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_named_and_a_file_in_the_way_too() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path()).unwrap();
        fs::write(&storage.path, "{").unwrap();
        let error = storage.load().unwrap_err().to_string();
        assert!(error.contains("agent-data.json") && error.contains("remove the file"), "{error}");
        let error = Storage::open(&storage.path).unwrap_err().to_string();
        assert!(error.contains("data_dir"), "{error}");
    }
}
