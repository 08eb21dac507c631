//! SHA-256 of executables, remembered while the file stays the same.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};

/// Executables remembered; beyond it all are forgotten, which costs one more hashing each.
const REMEMBERED: usize = 1024;

/// A file as it was. The change time is part of it because an owner can set the modification time back.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// Clones share what is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests(Arc<Mutex<HashMap<Stamp, String>>>);

impl Digests {
    /// Lowercase hex. Reads the whole file: call it off the async threads.
    pub fn of(&self, mut file: File) -> io::Result<String> {
        let before = stamp(&file.metadata()?);
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&before) {
            return Ok(known.clone());
        }
        let digest = hash(&mut file)?;
        // A file that was written to meanwhile is not remembered.
        if stamp(&file.metadata()?) == before {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= REMEMBERED {
                known.clear();
            }
            known.insert(before, digest.clone());
        }
        Ok(digest)
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    (metadata.dev(), metadata.ino(), metadata.size(), modified, changed)
}

fn hash(file: &mut File) -> io::Result<String> {
    use std::fmt::Write as _;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => context.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut hex = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn known_digest_and_changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "abc").unwrap();
        let digests = Digests::default();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for _ in 0..2 {
            assert_eq!(digests.of(File::open(&path).unwrap()).unwrap(), abc);
        }
        assert_eq!(digests.0.lock().unwrap().len(), 1);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "abd").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_ne!(digests.of(File::open(&path).unwrap()).unwrap(), abc, "same size and modification time");
    }
}
