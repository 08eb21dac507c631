//! SPIRE's `unix` attestor (spire.md §3.9): users, groups, and on request the executable.
//!
//! Everything is read through one open handle on the process's directory in /proc, taken while the caller is known
//! to be the one that connected: once that process ends, reads through the handle fail, so a reused number cannot
//! answer for it.

mod digest;
mod names;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::{Mode, OFlags, openat, readlinkat};
use steeple_plugin::{Caller, WorkloadAttestError, WorkloadAttestor};

use digest::Digests;
use names::Names;

/// /proc/PID/status is a few kilobytes.
const MAX_STATUS: u64 = 1024 * 1024;

/// A process may call exec while it is looked at; so many times we look again.
const EXEC_RETRIES: usize = 3;

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

    /// The path and, unless switched off, the digest of one and the same executable.
    async fn executable_selectors(
        &self,
        process: &OwnedFd,
        pid: i32,
    ) -> Result<Vec<String>, WorkloadAttestError> {
        for _ in 0..EXEC_RETRIES {
            let path = executable_path(process).map_err(|error| failed("path lookup", pid, error))?;
            // A lossy form could be the selector of another path.
            let Some(text) = path.to_str() else {
                return Err(WorkloadAttestError::Other(format!(
                    "path lookup: {} is not UTF-8",
                    path.display()
                )));
            };
            let mut found = vec![format!("path:{text}")];
            if self.config.workload_size_limit < 0 {
                return Ok(found);
            }
            let shown = self.config.proc_dir.join(pid.to_string()).join("exe");
            let file = open_executable(process).map_err(|error| failed("SHA256 digest", pid, error))?;
            self.check_size(&file, &shown, pid)?;
            let opened = file.metadata().map_err(|error| failed("SHA256 digest", pid, error))?;
            found.push(format!("sha256:{}", self.digest(file, pid).await?));
            let now = open_executable(process).and_then(|file| file.metadata());
            let now = now.map_err(|error| failed("SHA256 digest", pid, error))?;
            let same = (opened.dev(), opened.ino()) == (now.dev(), now.ino());
            if same && executable_path(process).is_ok_and(|now| now == path) {
                return Ok(found);
            }
        }
        Err(WorkloadAttestError::Other(format!("process {pid} keeps changing its executable")))
    }

    async fn digest(&self, file: File, pid: i32) -> Result<String, WorkloadAttestError> {
        let hashed = self.digests.of(file).await;
        hashed.map_err(|error| failed("SHA256 digest", pid, error))
    }

    fn check_size(&self, file: &File, shown: &Path, pid: i32) -> Result<(), WorkloadAttestError> {
        let limit = self.config.workload_size_limit;
        let size = file.metadata().map_err(|error| failed("SHA256 digest", pid, error))?.len();
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
        let gone = |_| WorkloadAttestError::Gone { pid };
        let directory = self.config.proc_dir.join(pid.to_string());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = rustix::fs::open(&directory, flags, Mode::empty());
        // Still the caller after the handle was taken: the handle is the caller's.
        caller.still_here().map_err(gone)?;
        let process = process.map_err(|error| failed("failed to get process", pid, error.into()))?;
        let status = read_status(&process).map_err(|error| failed("UIDs lookup", pid, error))?;
        let mut found = self.identity_selectors(&status);
        if self.config.discover_workload_path {
            found.extend(self.executable_selectors(&process, pid).await?);
        }
        caller.still_here().map_err(gone)?;
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

fn read_status(process: &OwnedFd) -> io::Result<Status> {
    let file = openat(process, "status", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::new();
    File::from(file).take(MAX_STATUS).read_to_string(&mut text)?;
    parse_status(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no Uid or Gid in /proc status"))
}

fn parse_status(text: &str) -> Option<Status> {
    let numbers = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_ascii_whitespace().map(|number| number.parse().ok()).collect::<Option<Vec<u32>>>()
    };
    // Real, effective, saved, file system.
    let effective = |name| numbers(name)?.get(1).copied();
    Some(Status {
        uid: effective("Uid")?,
        gid: effective("Gid")?,
        groups: numbers("Groups").unwrap_or_default(),
    })
}

fn executable_path(process: &OwnedFd) -> io::Result<PathBuf> {
    let path = readlinkat(process, "exe", Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

fn open_executable(process: &OwnedFd) -> io::Result<File> {
    Ok(File::from(openat(process, "exe", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
}

#[cfg(test)]
mod tests;
