//! The sealing key: a secret that is not where the state is, as far as the machine can.

use std::fmt;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use steeple_runtime::keyring::{self, KeyringError};
use zeroize::Zeroizing;

/// `experimental.sealed_state`. A TPM will be one more, and the first that `auto` tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SealingMode {
    /// The first of these that there is.
    #[default]
    Auto,
    /// A systemd credential, read only.
    Credential,
    /// The kernel's keyring: gone after a reboot.
    Keyring,
    /// A file of its own.
    File,
    /// State is not kept.
    Off,
}

/// The word is none of the modes'.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is unknown; must be one of [auto, credential, keyring, file, off]")]
pub struct UnknownMode(String);

impl FromStr for SealingMode {
    type Err = UnknownMode;

    fn from_str(name: &str) -> Result<Self, UnknownMode> {
        Ok(match name {
            "auto" => Self::Auto,
            "credential" => Self::Credential,
            "keyring" => Self::Keyring,
            "file" => Self::File,
            "off" => Self::Off,
            _ => return Err(UnknownMode(name.to_owned())),
        })
    }
}

/// Where to look for the key.
#[derive(Clone, Debug)]
pub struct SealingKeyConfig {
    pub mode: SealingMode,
    /// `experimental.sealed_state_key_path`; `agent-state.key` in the data directory if not set.
    pub path: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`
    pub credentials: Option<PathBuf>,
    /// Whether [`SealingMode::Auto`] may keep the key in a file: not where the operator keeps the agent's own key off the
    /// disk.
    pub file_allowed: bool,
}

/// Why there is no sealing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error(
        "sealed_state: no credential {CREDENTIAL:?}: pass one with LoadCredentialEncrypted={CREDENTIAL}:… in the unit, or choose another mode"
    )]
    NoCredential,
    #[error("sealed_state: {} holds {found} bytes; a sealing key has {wanted}", path.display())]
    Length { path: PathBuf, found: usize, wanted: &'static str },
    #[error("sealed_state: {} can be read by others (mode {mode:04o}): chmod 600 it, or remove it to have a new one made", path.display())]
    Exposed { path: PathBuf, mode: u32 },
    #[error("sealed_state: cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("sealed_state: {0}; choose another mode, or allow keyctl and add_key where the agent runs")]
    Keyring(KeyringError),
    #[error("sealed_state: no random bytes")]
    Random,
}

/// Its text is in ours: it is no source beside it.
impl From<KeyringError> for KeyError {
    fn from(error: KeyringError) -> Self {
        Self::Keyring(error)
    }
}

/// Name of the systemd credential.
const CREDENTIAL: &str = "steeple-agent-state-key";
const FILE: &str = "agent-state.key";
/// Of a key that we make.
const LENGTH: usize = 32;

/// A key in force.
pub(super) struct SealingKey {
    place: Place,
    secret: Zeroizing<Vec<u8>>,
    /// It was made now: nothing that is on disk was sealed with it.
    is_new: bool,
}

#[derive(Debug)]
enum Place {
    Credential,
    Keyring { name: String },
    File { path: PathBuf },
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey").field("place", &self.place).finish_non_exhaustive()
    }
}

impl SealingKey {
    /// The key that the configuration asks for, made if need be. `None` if state is not to be kept.
    pub fn find(config: &SealingKeyConfig, data_dir: &Path) -> Result<Option<Self>, KeyError> {
        let path = config.path.clone().unwrap_or_else(|| data_dir.join(FILE));
        let keyring =
            || Place::Keyring { name: format!("steeple-agent-state:{}", absolute(data_dir).display()) };
        match config.mode {
            SealingMode::Off => {
                tracing::info!(subsystem_name = "sealed_state", mode = "off", "Agent state is not kept");
                // What we made ourselves. An operator's file stays.
                let _ = std::fs::remove_file(data_dir.join(FILE));
                Ok(None)
            }
            SealingMode::Credential => credential(config)?.ok_or(KeyError::NoCredential).map(Some),
            SealingMode::Keyring => Self::kept(keyring()).map(Some),
            SealingMode::File => Self::kept(Place::File { path }).map(Some),
            SealingMode::Auto => {
                if let Some(key) = credential(config)? {
                    return Ok(Some(key));
                }
                match Self::kept(keyring()) {
                    Ok(key) => return Ok(Some(key)),
                    Err(error) if config.file_allowed || config.path.is_some() => {
                        tracing::info!(subsystem_name = "sealed_state", error = %error, "The sealing key is kept in a file");
                    }
                    Err(error) => {
                        tracing::warn!(
                            subsystem_name = "sealed_state",
                            mode = "off",
                            error = %error,
                            "Agent state is not kept: with KeyManager \"memory\" no key goes to disk unless sealed_state = \"file\" says so"
                        );
                        return Ok(None);
                    }
                }
                Self::kept(Place::File { path }).map(Some)
            }
        }
    }

    /// As `experimental.sealed_state` calls it.
    pub fn mode(&self) -> &'static str {
        match self.place {
            Place::Credential => "credential",
            Place::Keyring { .. } => "keyring",
            Place::File { .. } => "file",
        }
    }

    pub fn secret(&self) -> &[u8] {
        &self.secret
    }

    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Keyrings forget what nobody asks for.
    pub fn refresh(&self) -> Result<(), KeyError> {
        match &self.place {
            Place::Keyring { name } => Ok(keyring::store(name, &self.secret)?),
            _ => Ok(()),
        }
    }

    /// Another key from now on; one that was given to us stays.
    pub fn renew(&mut self) -> Result<(), KeyError> {
        if !matches!(self.place, Place::Credential) {
            self.secret = fresh()?;
            self.store()?;
        }
        Ok(())
    }

    fn kept(place: Place) -> Result<Self, KeyError> {
        let found = match &place {
            Place::Credential => None,
            Place::Keyring { name } => keyring::load(name)?.filter(|secret| secret.len() == LENGTH),
            Place::File { path } => read(path)?,
        };
        if let Some(secret) = found {
            return Ok(Self { place, secret, is_new: false });
        }
        let key = Self { place, secret: fresh()?, is_new: true };
        key.store()?;
        Ok(key)
    }

    fn store(&self) -> Result<(), KeyError> {
        match &self.place {
            Place::Credential => Ok(()),
            Place::Keyring { name } => Ok(keyring::store(name, &self.secret)?),
            Place::File { path } => write(path, &self.secret).map_err(|source| KeyError::Io {
                what: "write",
                path: path.clone(),
                source,
            }),
        }
    }
}

fn fresh() -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let mut secret = Zeroizing::new(vec![0; LENGTH]);
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| KeyError::Random)?;
    Ok(secret)
}

fn credential(config: &SealingKeyConfig) -> Result<Option<SealingKey>, KeyError> {
    let Some(path) = config.credentials.as_ref().map(|directory| directory.join(CREDENTIAL)) else {
        return Ok(None);
    };
    match std::fs::read(&path).map(Zeroizing::new) {
        Ok(secret) if secret.len() < LENGTH => {
            Err(KeyError::Length { path, found: secret.len(), wanted: "at least 32" })
        }
        Ok(secret) => Ok(Some(SealingKey { place: Place::Credential, secret, is_new: false })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyError::Io { what: "read", path, source }),
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, KeyError> {
    let wrong = |source| KeyError::Io { what: "read", path: path.to_owned(), source };
    let mode = match std::fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let secret = Zeroizing::new(std::fs::read(path).map_err(wrong)?);
    if secret.len() != LENGTH {
        let (path, found) = (path.to_owned(), secret.len());
        return Err(KeyError::Length { path, found, wanted: "32; remove it to have a new one made" });
    }
    Ok(Some(secret))
}

/// A crash leaves the old file or the new one.
fn write(path: &Path, secret: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("key.tmp");
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(secret)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

fn absolute(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests;
