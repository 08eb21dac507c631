//! A certificate and its key in two files that something else renews.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::tls::{IdentityError, LiveIdentity};

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("{}: {reason}; check the path and its permissions", path.display())]
    Unreadable { path: PathBuf, reason: std::io::Error },
    #[error("{}: no usable certificates in PEM form: {reason}", path.display())]
    Certificates { path: PathBuf, reason: String },
    #[error("{}: no usable private key in PEM form: {reason}", path.display())]
    Key { path: PathBuf, reason: String },
    #[error("{} and {}: {reason}", certificate.display(), key.display())]
    Unusable { certificate: PathBuf, key: PathBuf, reason: IdentityError },
}

/// What looking at the files again brought.
#[derive(Debug)]
pub enum Reload {
    Unchanged,
    /// The new certificate is presented from now on.
    Loaded,
    /// They changed and cannot be used; what was presented before still is.
    Kept(FilesError),
}

/// Keeps an identity what the files say.
#[derive(Debug)]
pub struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    identity: LiveIdentity,
    seen: Stamps,
}

/// When each file last changed, and how long it is.
type Stamps = [Option<(SystemTime, u64)>; 2];

impl CertificateFiles {
    /// Loads the files.
    pub fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, FilesError> {
        let mut files = Self { certificate, key, identity: LiveIdentity::new(), seen: Stamps::default() };
        files.seen = files.stamps();
        files.present()?;
        Ok(files)
    }

    pub fn identity(&self) -> LiveIdentity {
        self.identity.clone()
    }

    /// Loads the files again if they changed.
    pub fn reload(&mut self) -> Reload {
        let stamps = self.stamps();
        if stamps == self.seen {
            return Reload::Unchanged;
        }
        match self.present() {
            Ok(()) => {
                self.seen = stamps;
                Reload::Loaded
            }
            // Tried again next time: the other half may just not be there yet.
            Err(error) => Reload::Kept(error),
        }
    }

    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key].map(|path| {
            let about = std::fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        })
    }

    fn present(&self) -> Result<(), FilesError> {
        let path = || self.certificate.clone();
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(&self.certificate)?)
            .collect::<Result<_, _>>()
            .map_err(|e| FilesError::Certificates { path: path(), reason: e.to_string() })?;
        if chain.is_empty() {
            let reason = "there is none".to_owned();
            return Err(FilesError::Certificates { path: path(), reason });
        }
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|e| FilesError::Key { path: self.key.clone(), reason: e.to_string() })?;
        self.identity.set_key(chain, &key).map_err(|reason| FilesError::Unusable {
            certificate: path(),
            key: self.key.clone(),
            reason,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FilesError> {
    std::fs::read(path).map_err(|reason| FilesError::Unreadable { path: path.to_owned(), reason })
}
