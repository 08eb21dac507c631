//! SHA-256 of executables, remembered while the file stays the same.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use tokio::sync::watch;

/// Executables remembered; beyond it all are forgotten, which costs one more hashing each.
const REMEMBERED: usize = 1024;

/// A file as it was. The change time is part of it because an owner can set the modification time back.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

/// Clones share what is remembered.
#[derive(Clone, Debug, Default)]
pub(super) struct Digests(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    digests: HashMap<Stamp, String>,
    /// Being read now. The other end is dropped when that is over.
    reading: HashMap<Stamp, watch::Receiver<()>>,
}

impl Digests {
    /// Lowercase hex. Each file is read by one thread at a time, however many ask, and to its end even if they no
    /// longer wait: the next who asks has it.
    pub async fn of(&self, mut file: File) -> io::Result<String> {
        let stamp = stamp(&file.metadata()?);
        let over = loop {
            let mut reading = {
                let mut known = self.known();
                if let Some(digest) = known.digests.get(&stamp) {
                    return Ok(digest.clone());
                }
                if let Some(reading) = known.reading.get(&stamp) {
                    reading.clone()
                } else {
                    let (over, reading) = watch::channel(());
                    known.reading.insert(stamp, reading);
                    break Reading { digests: self.clone(), stamp, _over: over };
                }
            };
            // The error is the end.
            let _ = reading.changed().await;
        };
        tokio::task::spawn_blocking(move || over.read(&mut file)).await.map_err(io::Error::other)?
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file is being read until this is dropped.
struct Reading {
    digests: Digests,
    stamp: Stamp,
    _over: watch::Sender<()>,
}

impl Reading {
    fn read(self, file: &mut File) -> io::Result<String> {
        let digest = hash(file)?;
        // A file that was written to meanwhile is not remembered.
        if stamp(&file.metadata()?) == self.stamp {
            let mut known = self.digests.known();
            if known.digests.len() >= REMEMBERED {
                known.digests.clear();
            }
            known.digests.insert(self.stamp, digest.clone());
        }
        Ok(digest)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.digests.known().reading.remove(&self.stamp);
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

    #[tokio::test]
    async fn known_digest_and_changes_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "abc").unwrap();
        let digests = Digests::default();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for _ in 0..2 {
            assert_eq!(digests.of(File::open(&path).unwrap()).await.unwrap(), abc);
        }
        assert_eq!(digests.known().digests.len(), 1);
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "abd").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let changed = digests.of(File::open(&path).unwrap()).await.unwrap();
        assert_ne!(changed, abc, "same size and modification time");
    }

    #[tokio::test]
    async fn a_file_is_read_once_for_all_who_wait_and_for_those_who_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, vec![7; 1024 * 1024]).unwrap();
        let digests = Digests::default();
        let open = || File::open(&path).unwrap();
        // The first gives up at once; what it began goes on.
        let mut first = Box::pin(digests.of(open()));
        let _ = tokio::time::timeout(std::time::Duration::ZERO, &mut first).await;
        drop(first);
        let (a, b) = tokio::join!(digests.of(open()), digests.of(open()));
        assert_eq!(a.unwrap(), b.unwrap());
        let known = digests.known();
        assert_eq!((known.digests.len(), known.reading.len()), (1, 0));
    }
}
