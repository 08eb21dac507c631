//! Names of users and groups from /etc/passwd and /etc/group, read again when the file has changed.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A file larger than this is not read; the selectors with names are left out then.
const MAX_FILE: u64 = 64 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct Names {
    path: PathBuf,
    /// Colons that a line has at least.
    colons: usize,
    read: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    stamp: Stamp,
    names: Arc<HashMap<u32, String>>,
}

/// Device, inode, size, modification and change time: another file has another stamp.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl Names {
    /// `name:password:uid:gid:gecos:home:shell`
    pub fn users(path: PathBuf) -> Self {
        Self { path, colons: 6, read: Mutex::new(None) }
    }

    /// `name:password:gid:members`
    pub fn groups(path: PathBuf) -> Self {
        Self { path, colons: 3, read: Mutex::new(None) }
    }

    /// The first name of the number; `None` also when the file cannot be read, as in SPIRE.
    pub fn find(&self, number: u32) -> Option<String> {
        self.names()?.get(&number).cloned()
    }

    fn names(&self) -> Option<Arc<HashMap<u32, String>>> {
        let metadata = fs::metadata(&self.path).ok().filter(|metadata| metadata.len() <= MAX_FILE)?;
        let stamp = (
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            (metadata.mtime(), metadata.mtime_nsec()),
            (metadata.ctime(), metadata.ctime_nsec()),
        );
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = read.as_ref().filter(|read| read.stamp == stamp) {
            return Some(Arc::clone(&read.names));
        }
        let text = fs::read(&self.path).ok()?;
        let names = Arc::new(parse(&String::from_utf8_lossy(&text), self.colons));
        *read = Some(Read { stamp, names: Arc::clone(&names) });
        Some(names)
    }
}

/// Go's os/user rules: comments, NIS lines and lines with too few fields or bad numbers do not count.
fn parse(text: &str, colons: usize) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('#') || line.matches(':').count() < colons {
            continue;
        }
        let mut fields = line.split(':');
        let (Some(name), Some(number)) = (fields.next(), fields.nth(1)) else { continue };
        if name.is_empty() || name.starts_with(['+', '-']) {
            continue;
        }
        if let Ok(number) = number.parse() {
            names.entry(number).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_reads_the_same_lines() {
        let passwd = "# comment:x:1:1:::\nroot:x:0:0:root:/root:/bin/sh\n+nis:x:5:5:::\ntoor:x:0:0:::\nshort:x:7\n\
                      bad:x:x:0:::\n  padded:x:8:8:::\n:x:9:9:::\n";
        let names = parse(passwd, 6);
        assert_eq!(names.len(), 2);
        assert_eq!((names[&0].as_str(), names[&8].as_str()), ("root", "padded"));
        assert_eq!(parse("wheel:x:10:a,b\nnobody:x:11:\n", 3).len(), 2);
    }

    #[test]
    fn a_changed_file_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("group");
        let names = Names::groups(path.clone());
        assert_eq!(names.find(1), None);
        fs::write(&path, "one:x:1:\n").unwrap();
        assert_eq!(names.find(1).as_deref(), Some("one"));
        fs::write(&path, "uno:x:1:\ntwo:x:2:\n").unwrap();
        assert_eq!(names.find(1).as_deref(), Some("uno"));
        assert_eq!(names.find(2).as_deref(), Some("two"));
    }
}
