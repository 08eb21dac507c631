//! A caller is a process, not a number (DESIGN §3.9).

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use crate::{slow_reader::Hangup, sys};

/// The process at the other end of a Unix socket, held by a pidfd for as long as this lives: its number may be
/// reused, this cannot be mistaken for the other process.
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
    pidfd: OwnedFd,
    /// When it started, if the pidfd was opened by number: `None` where the kernel gave it with the socket.
    started: Option<u64>,
}

/// What tonic hands to a handler: `request.extensions().get::<PeerInfo>()`.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    pub peer: Arc<Peer>,
    /// Closes the connection that the request came over.
    pub hangup: Arc<Hangup>,
}

/// Why a caller cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("cannot tell who connected: {0}")]
    Credentials(#[source] io::Error),
    #[error("the caller is in another PID namespace; run the agent in the host's")]
    OtherNamespace,
    #[error("the calling process {pid} has gone")]
    Gone { pid: i32 },
    #[error("the calling process {pid} was replaced by another")]
    Replaced { pid: i32 },
    #[error("the calling process {pid} has another user or group than when it connected")]
    OwnerChanged { pid: i32 },
    #[error("cannot look at the calling process {pid}: {source}")]
    Proc { pid: i32, source: io::Error },
}

impl Peer {
    /// Identifies who connected: SO_PEERCRED with SO_PEERPIDFD (Linux 6.5), else with pidfd_open.
    pub fn of_socket(socket: BorrowedFd<'_>) -> Result<Self, PeerError> {
        let credentials = sys::peer_credentials(socket).map_err(PeerError::Credentials)?;
        match sys::peer_pidfd(socket) {
            Ok(pidfd) => Self::held(credentials, pidfd, false),
            Err(err) if err.raw_os_error() == Some(libc::ENOPROTOOPT) => Self::by_number(credentials),
            // The kernel answers these when the process had ended before we asked.
            Err(err) if matches!(err.raw_os_error(), Some(libc::ESRCH | libc::EINVAL | libc::ENODATA)) => {
                Err(PeerError::Gone { pid: credentials.pid })
            }
            Err(err) => Err(PeerError::Credentials(err)),
        }
    }

    /// Holds the process that has this number now, for a trusted caller who names it.
    pub fn of_process(pid: i32) -> Result<Self, PeerError> {
        // `from_raw` takes no negative number.
        let number = (pid > 0).then(|| Pid::from_raw(pid)).flatten().ok_or(PeerError::Gone { pid })?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).map_err(|err| gone_or(pid, err.into()))?;
        let status = Path::new("/proc").join(pid.to_string()).join("status");
        let status = read_at_once(&status).map_err(|err| gone_or(pid, err))?;
        let (uid, gid) = (effective_id(&status, "Uid:"), effective_id(&status, "Gid:"));
        Self::held(sys::Credentials { pid, uid, gid }, pidfd, true)
    }

    /// For kernels without SO_PEERPIDFD. Between connect and pidfd_open the number may pass to another process; one
    /// that runs under another user or group is noticed here, a later change at [`still_here`](Self::still_here).
    fn by_number(credentials: sys::Credentials) -> Result<Self, PeerError> {
        let pid = Pid::from_raw(credentials.pid).ok_or(PeerError::OtherNamespace)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|err| match err {
            rustix::io::Errno::SRCH => PeerError::Gone { pid: credentials.pid },
            err => PeerError::Credentials(err.into()),
        })?;
        Self::held(credentials, pidfd, true)
    }

    fn held(credentials: sys::Credentials, pidfd: OwnedFd, by_number: bool) -> Result<Self, PeerError> {
        let sys::Credentials { pid, uid, gid } = credentials;
        if pid == 0 {
            return Err(PeerError::OtherNamespace);
        }
        let started =
            by_number.then(|| start_time(pid)).transpose().map_err(|source| gone_or(pid, source))?;
        let peer = Self { pid, uid, gid, pidfd, started };
        peer.still_here()?;
        Ok(peer)
    }

    /// Errors once the process has ended, or is not the one that connected. Call it after each look at
    /// [`proc_dir`](Self::proc_dir): what was read then belongs to the caller.
    ///
    /// The number cannot pass to another process before this one has ended, and that is looked at last: it holds for
    /// all that was read before. Two system calls: every call of the Workload API asks several times.
    pub fn still_here(&self) -> Result<(), PeerError> {
        let looked = self.same_owner().and_then(|()| self.same_start());
        self.not_ended()?;
        looked
    }

    /// Errors once the process has ended: one system call, for when [`still_here`](Self::still_here) follows.
    pub fn not_ended(&self) -> Result<(), PeerError> {
        match self.has_exited() {
            Ok(false) => Ok(()),
            Ok(true) => Err(PeerError::Gone { pid: self.pid }),
            Err(source) => Err(PeerError::Proc { pid: self.pid, source }),
        }
    }

    fn same_start(&self) -> Result<(), PeerError> {
        let Some(started) = self.started else { return Ok(()) };
        let now = start_time(self.pid).map_err(|source| gone_or(self.pid, source))?;
        if now == started { Ok(()) } else { Err(PeerError::Replaced { pid: self.pid }) }
    }

    fn same_owner(&self) -> Result<(), PeerError> {
        let dir = std::fs::metadata(self.proc_dir()).map_err(|source| gone_or(self.pid, source))?;
        // A process that is not dumpable has its files in /proc owned by root; its status tells the truth.
        let owned = (dir.uid(), dir.gid()) == (self.uid, self.gid);
        if !owned && self.effective_ids()? != (self.uid, self.gid) {
            return Err(PeerError::OwnerChanged { pid: self.pid });
        }
        Ok(())
    }

    /// Returns once the process has ended. For tasks of a tokio runtime with I/O.
    pub async fn ended(&self) -> io::Result<()> {
        sys::readable(self.pidfd.try_clone()?).await
    }

    /// `/proc/<pid>`.
    pub fn proc_dir(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.pid))
    }

    /// Where the program's file is, as the process itself sees it.
    pub fn exe(&self) -> Result<PathBuf, PeerError> {
        let exe =
            std::fs::read_link(self.proc_dir().join("exe")).map_err(|source| gone_or(self.pid, source))?;
        self.still_here()?;
        Ok(exe)
    }

    /// `/proc/<pid>/status`.
    pub fn status(&self) -> Result<String, PeerError> {
        let status = self.read("status")?;
        self.still_here()?;
        Ok(status)
    }

    /// Whether it is root in the agent's own PID namespace: root of a container is not, unless it shares the host's.
    pub fn is_root_here(&self) -> bool {
        // "NSpid:" names the process in each namespace from that of the reader on down.
        let alone = |status: String| {
            let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            line.is_some_and(|numbers| numbers.split_whitespace().count() == 1)
        };
        self.uid == 0 && self.status().is_ok_and(alone)
    }

    /// A pidfd of the process, for waiting on its end or sending signals.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn effective_ids(&self) -> Result<(u32, u32), PeerError> {
        let status = self.read("status")?;
        Ok((effective_id(&status, "Uid:"), effective_id(&status, "Gid:")))
    }

    fn read(&self, file: &str) -> Result<String, PeerError> {
        read_at_once(&self.proc_dir().join(file)).map_err(|source| gone_or(self.pid, source))
    }

    /// A pidfd becomes readable when its process ends.
    fn has_exited(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(poll(&mut fds, Some(&now))? > 0)
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("pid", &self.pid)
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish_non_exhaustive()
    }
}

fn gone_or(pid: i32, source: io::Error) -> PeerError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ESRCH) => PeerError::Gone { pid },
        _ => PeerError::Proc { pid, source },
    }
}

fn effective_id(status: &str, key: &str) -> u32 {
    // "Uid:\treal\teffective\tsaved\tfilesystem"
    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|id| id.parse().ok()).unwrap_or(u32::MAX)
}

/// Files of /proc tell no size, and `read_to_string` begins with 32 bytes then: half a dozen system calls.
fn read_at_once(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::with_capacity(PROC_FILE);
    File::open(path)?.read_to_end(&mut bytes)?;
    // The program's name may be any bytes.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Longer than `status` and `stat` of most processes.
const PROC_FILE: usize = 4096;

/// Field 22 of /proc/<pid>/stat: ticks from boot to the start of the process.
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = read_at_once(&Path::new("/proc").join(pid.to_string()).join("stat"))?;
    parse_start_time(&stat).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is not understood"))
    })
}

fn parse_start_time(stat: &str) -> Option<u64> {
    // The name, in parentheses, may hold anything, parentheses too: count from its last.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests;
