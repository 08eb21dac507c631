//! SPIRE's `unix` attestor (spire.md §3.9): users, groups, and on request the executable.
//!
//! What is read from /proc is the caller's because the caller still has its number when the attestors have answered
//! ([`Caller::still_here`]). What may take longer, its executable, is read through one open handle on its directory:
//! once the process ends, reads through the handle fail.

mod digest;
mod names;

use std::ffi::{CString, OsString};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags, openat, readlink, readlinkat};
use steeple_plugin::{Caller, WorkloadAttestError, WorkloadAttestor};

use digest::Digests;
use names::Names;

/// /proc/PID/status is longer only for a process in hundreds of groups.
const STATUS: usize = 4096;
const MAX_STATUS: usize = 1024 * 1024;

/// SPIRE's options, and where the system keeps its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixConfig {
    /// Adds `path` and `sha256`.
    pub discover_workload_path: bool,
    /// Bytes; 0 = no limit, negative = no `sha256`.
    pub workload_size_limit: i64,
    /// Environment variable `HOST_PROC`, else /proc.
    pub proc_dir: PathBuf,
    /// Holds `passwd` and `group`. A static binary has no NSS, nor has SPIRE's.
    pub etc_dir: PathBuf,
}

impl Default for UnixConfig {
    fn default() -> Self {
        let proc_dir = std::env::var_os("HOST_PROC").filter(|dir| !dir.is_empty());
        Self {
            discover_workload_path: false,
            workload_size_limit: 0,
            proc_dir: proc_dir.map_or_else(|| PathBuf::from("/proc"), PathBuf::from),
            etc_dir: PathBuf::from("/etc"),
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Unix {
    config: UnixConfig,
    users: Names,
    groups: Names,
    digests: Digests,
}

impl Unix {
    pub fn new(config: UnixConfig) -> Self {
        let users = Names::users(config.etc_dir.join("passwd"));
        let groups = Names::groups(config.etc_dir.join("group"));
        Self { config, users, groups, digests: Digests::default() }
    }

    fn identity_selectors(&self, status: &Status) -> Vec<String> {
        let mut found = vec![format!("uid:{}", status.uid)];
        found.extend(self.users.find(status.uid).map(|user| format!("user:{user}")));
        found.push(format!("gid:{}", status.gid));
        found.extend(self.groups.find(status.gid).map(|group| format!("group:{group}")));
        for gid in &status.groups {
            found.push(format!("supplementary_gid:{gid}"));
            found.extend(self.groups.find(*gid).map(|group| format!("supplementary_group:{group}")));
        }
        found
    }

    /// The path and, unless switched off, the digest of one and the same executable, whatever the process calls exec on
    /// meanwhile.
    async fn executable_selectors(
        &self,
        process: &OwnedFd,
        pid: i32,
    ) -> Result<Vec<String>, WorkloadAttestError> {
        if self.config.workload_size_limit < 0 {
            let path = executable_path(process).map_err(|error| failed("path lookup", pid, error))?;
            return Ok(vec![path_selector(&path)?]);
        }
        let opened = open_executable(process).await;
        let Executable { file, metadata, path } =
            opened.map_err(|error| failed("SHA256 digest", pid, error))?;
        let path = path_selector(&path)?;
        let shown = self.config.proc_dir.join(pid.to_string()).join("exe");
        self.check_size(&metadata, &shown)?;
        Ok(vec![path, format!("sha256:{}", self.digest(file, pid).await?)])
    }

    async fn digest(&self, file: File, pid: i32) -> Result<String, WorkloadAttestError> {
        let hashed = self.digests.of(file).await;
        hashed.map_err(|error| failed("SHA256 digest", pid, error))
    }

    fn check_size(&self, file: &Metadata, shown: &Path) -> Result<(), WorkloadAttestError> {
        let (limit, size) = (self.config.workload_size_limit, file.len());
        if limit > 0 && size > limit.unsigned_abs() {
            // SPIRE's text.
            return Err(WorkloadAttestError::Other(format!(
                "SHA256 digest: workload {} exceeds size limit ({size} > {limit})",
                shown.display()
            )));
        }
        Ok(())
    }
}

#[async_trait]
impl WorkloadAttestor for Unix {
    fn name(&self) -> &'static str {
        "unix"
    }

    async fn attest(&self, caller: &dyn Caller) -> Result<Vec<String>, WorkloadAttestError> {
        let pid = caller.pid();
        let directory = self.config.proc_dir.join(pid.to_string());
        let mut found = self.identity_selectors(&read_status(&directory, pid)?);
        if self.config.discover_workload_path {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let process = rustix::fs::open(&directory, flags, Mode::empty());
            let process = process.map_err(|error| failed("failed to get process", pid, error.into()))?;
            found.extend(self.executable_selectors(&process, pid).await?);
        }
        Ok(found)
    }
}

fn failed(what: &str, pid: i32, source: io::Error) -> WorkloadAttestError {
    match source.raw_os_error() {
        Some(code) if code == libc::ESRCH => WorkloadAttestError::Gone { pid },
        _ => WorkloadAttestError::Io { what: what.to_owned(), source },
    }
}

/// Effective user and group, and supplementary groups in the kernel's order.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

fn read_status(directory: &Path, pid: i32) -> Result<Status, WorkloadAttestError> {
    let file = File::open(directory.join("status"));
    let mut file = file.map_err(|error| failed("failed to get process", pid, error))?;
    let lookup = |error| failed("UIDs lookup", pid, error);
    let mut text = vec![0; STATUS];
    let mut length = 0;
    // The kernel writes all of it at once: what does not fill the space is the whole.
    loop {
        let count = file.read(&mut text[length..]).map_err(lookup)?;
        length += count;
        if length < text.len() {
            break;
        }
        if length >= MAX_STATUS {
            return Err(lookup(io::Error::new(io::ErrorKind::InvalidData, "/proc status is too long")));
        }
        text.resize(length * 2, 0);
    }
    let status = parse_status(&text[..length]);
    status.ok_or_else(|| lookup(io::Error::new(io::ErrorKind::InvalidData, "no Uid or Gid in /proc status")))
}

/// Bytes: the program's name, in the first line, may be any. Read no further than the groups, a fifth of it.
fn parse_status(text: &[u8]) -> Option<Status> {
    let (mut uid, mut gid, mut groups) = (None, None, Vec::new());
    for line in text.split(|byte| *byte == b'\n') {
        // Real, effective, saved, file system.
        if let Some(ids) = line.strip_prefix(b"Uid:") {
            uid = Some(numbers(ids)?);
        } else if let Some(ids) = line.strip_prefix(b"Gid:") {
            gid = Some(numbers(ids)?);
        } else if let Some(listed) = line.strip_prefix(b"Groups:") {
            groups = numbers(listed)?;
            break;
        }
    }
    Some(Status { uid: *uid?.get(1)?, gid: *gid?.get(1)?, groups })
}

fn numbers(text: &[u8]) -> Option<Vec<u32>> {
    let numbers = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
    numbers.map(|number| number.parse().ok()).collect()
}

fn executable_path(process: &OwnedFd) -> io::Result<PathBuf> {
    Ok(path_of(readlinkat(process, "exe", Vec::new())?))
}

fn path_of(link: CString) -> PathBuf {
    PathBuf::from(OsString::from_vec(link.into_bytes()))
}

/// A lossy form could be the selector of another path.
fn path_selector(path: &Path) -> Result<String, WorkloadAttestError> {
    let not_text = || WorkloadAttestError::Other(format!("path lookup: {} is not UTF-8", path.display()));
    path.to_str().map(|path| format!("path:{path}")).ok_or_else(not_text)
}

/// The path is the open file's own.
struct Executable {
    file: File,
    metadata: Metadata,
    path: PathBuf,
}

/// It may lie on a file system that does not answer: off the async threads.
async fn open_executable(process: &OwnedFd) -> io::Result<Executable> {
    let process = process.try_clone()?;
    let open = move || {
        let file = File::from(openat(process, "exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        // What "exe" itself says may be another program's by now.
        let path = path_of(readlink(format!("/proc/self/fd/{}", file.as_raw_fd()), Vec::new())?);
        Ok(Executable { metadata: file.metadata()?, file, path })
    };
    tokio::task::spawn_blocking(open).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests;
