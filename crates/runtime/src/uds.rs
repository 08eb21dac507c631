//! Unix sockets whose callers are identified processes.

mod socket;

use std::{
    collections::HashMap,
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use rustix::{
    fs::OFlags,
    io::Errno,
    net::{SocketFlags, accept_with},
};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};
use tonic::transport::server::Connected;

use crate::{
    authority::AuthorityFilter,
    clock,
    peer::{Peer, PeerInfo},
    sys,
};
use socket::Socket;

/// How long to wait after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At most one log line about refused connections in this time.
const REFUSAL_LOG: Duration = Duration::from_secs(10);

/// How a socket is made.
#[derive(Debug, Clone, Copy)]
pub struct UdsOptions {
    /// Of the socket: 0o770 for SPIRE's server API and the agent's admin socket, 0o777 for the Workload API.
    pub mode: u32,
    /// Of missing parent directories; those that exist stay as they are.
    pub dir_mode: u32,
    /// Open connections one user may have; more are closed at once.
    pub max_per_uid: Option<usize>,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum UdsError {
    #[error("socket {path} is in use by another process; stop it or choose another path")]
    InUse { path: PathBuf },
    #[error("{path} exists and is not a socket; remove it or choose another path")]
    NotASocket { path: PathBuf },
    #[error("cannot {what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

/// Binds a socket. A live one at the path is refused, a stale one replaced; missing parent directories are made
/// with the mode of the socket (and x where it has r).
pub fn bind(path: impl AsRef<Path>, mode: u32) -> Result<UdsListener, UdsError> {
    let dir_mode = mode | ((mode & 0o444) >> 2);
    UdsListener::bind(path.as_ref(), UdsOptions { mode, dir_mode, max_per_uid: None })
}

/// Accepts identified callers: a stream of [`UdsStream`] for `serve_with_incoming`. It never ends by itself and never
/// yields an error that concerns one caller only. The socket's file is removed when it is dropped.
///
/// A caller is identified when it is accepted, but handed on only once it has sent something: until then it costs a
/// few hundred bytes, not the buffers of an HTTP/2 connection.
pub struct UdsListener {
    /// Removed before the listener is closed: nobody finds our file stale and replaces it in between.
    file: SocketFile,
    listener: AsyncFd<OwnedFd>,
    max_per_uid: Option<usize>,
    /// This process's connections are nobody's.
    uncounted: Option<u32>,
    open: Arc<OpenConnections>,
    silent: FuturesUnordered<BoxFuture<'static, UdsStream>>,
    /// Connections of one process share its pidfd: descriptors are what a process runs out of first.
    peers: HashMap<i32, Weak<Peer>>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    refusals: Refusals,
}

impl UdsListener {
    pub fn bind(path: &Path, options: UdsOptions) -> Result<Self, UdsError> {
        let error = |what| move |source| UdsError::Io { what, path: path.to_owned(), source };
        create_parents(path, options.dir_mode).map_err(error("create the directory of"))?;
        let _claim = Claim::on(path)?;
        remove_stale(path)?;
        let listener = listen(path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => UdsError::InUse { path: path.to_owned() },
            _ => UdsError::Io { what: "listen on", path: path.to_owned(), source },
        })?;
        let file = SocketFile::new(path);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(options.mode))
            .map_err(error("set the mode of"))?;
        Ok(Self {
            file,
            listener,
            max_per_uid: options.max_per_uid,
            uncounted: None,
            open: Arc::default(),
            silent: FuturesUnordered::new(),
            peers: HashMap::new(),
            pause: None,
            refusals: Refusals::default(),
        })
    }

    /// Limits how many connections one user may have open.
    #[must_use]
    pub fn with_connection_limit(mut self, max_per_uid: usize) -> Self {
        self.max_per_uid = Some(max_per_uid);
        self
    }

    /// Connections of this process neither count nor are refused: a program that asks itself whether it serves must not
    /// be kept out by others of its user.
    #[must_use]
    pub fn without_limit_for(mut self, pid: u32) -> Self {
        self.uncounted = Some(pid);
        self
    }

    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        self.open.total()
    }

    /// Identifies the caller and counts it; `None` closes the connection.
    fn admit(&mut self, socket: Socket) -> Option<UdsStream> {
        let peer = match Peer::of_socket(socket.as_fd()) {
            Ok(peer) => peer,
            Err(error) => {
                self.refusals.note(|held_back| {
                    tracing::warn!(error = %error, socket = %self.file.path.display(), held_back, "Connection refused: the caller could not be identified");
                });
                return None;
            }
        };
        let counted = self.uncounted.is_none() || self.uncounted != u32::try_from(peer.pid).ok();
        let permit = counted.then(|| OpenConnections::enter(&self.open, peer.uid, self.max_per_uid));
        if let Some(None) = permit {
            self.refusals.note(|held_back| {
                tracing::warn!(
                    uid = peer.uid,
                    pid = peer.pid,
                    limit = self.max_per_uid,
                    held_back,
                    socket = %self.file.path.display(),
                    "Connection refused: the user has too many open"
                );
            });
            return None;
        }
        let info = PeerInfo { peer: self.shared(peer), hangup: Arc::default() };
        Some(UdsStream { io: AuthorityFilter::new(socket), info, _permit: permit.flatten() })
    }

    /// The same process's earlier [`Peer`], if a connection of it is open. That one had the number before `peer` was
    /// seen alive with it, and has it still: they are one process.
    fn shared(&mut self, peer: Peer) -> Arc<Peer> {
        if let Some(known) = self.peers.get(&peer.pid).and_then(Weak::upgrade)
            && (known.uid, known.gid) == (peer.uid, peer.gid)
            && known.still_here().is_ok()
        {
            return known;
        }
        // Now and then those of closed connections are thrown out: at the latest when half the map is dead.
        if self.peers.len() == self.peers.capacity() {
            self.peers.retain(|_, peer| peer.strong_count() > 0);
        }
        let peer = Arc::new(peer);
        self.peers.insert(peer.pid, Arc::downgrade(&peer));
        peer
    }

    fn accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Socket>> {
        loop {
            let mut ready = ready!(self.listener.poll_read_ready(cx))?;
            match accept_with(self.listener.get_ref(), SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(accepted) => return Poll::Ready(Socket::new(accepted)),
                Err(Errno::AGAIN) => ready.clear_ready(),
                // The client was gone before it was accepted.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(cx).is_pending() {
                    return;
                }
                self.pause = None;
            }
            match self.accept(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(socket)) => {
                    if let Some(stream) = self.admit(socket) {
                        self.silent.push(Box::pin(stream.once_heard()));
                    }
                }
                Poll::Ready(Err(error)) => {
                    let socket = self.file.path.display();
                    self.refusals.note(|held_back| {
                        tracing::error!(error = %error, %socket, held_back, "Cannot accept connections");
                    });
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl Stream for UdsListener {
    type Item = io::Result<UdsStream>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.poll_accept(cx);
        match this.silent.poll_next_unpin(cx) {
            Poll::Ready(Some(stream)) => Poll::Ready(Some(Ok(stream))),
            // None: nobody is silent; the listener has the waker.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl fmt::Debug for UdsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdsListener").field("path", &self.file.path).finish_non_exhaustive()
    }
}

/// A connection and the process that made it.
#[derive(Debug)]
pub struct UdsStream {
    io: AuthorityFilter<Socket>,
    info: PeerInfo,
    _permit: Option<Permit>,
}

impl UdsStream {
    pub fn peer(&self) -> &Arc<Peer> {
        &self.info.peer
    }

    /// Waits for the first byte, or the end.
    async fn once_heard(self) -> Self {
        self.io.get_ref().heard().await;
        self
    }
}

impl Connected for UdsStream {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.info.clone()
    }
}

impl AsyncRead for UdsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.info.hangup.is_closed(cx) {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the client does not read",
            )));
        }
        Pin::new(&mut this.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for UdsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().io.get_mut()).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().io.get_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.get_ref().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().io.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().io.get_mut()).poll_shutdown(cx)
    }
}

/// Makes the directories that are missing, with exactly this mode: the umask is for what we write into files, and would
/// keep other users' workloads from the Workload API's socket.
fn create_parents(path: &Path, mode: u32) -> io::Result<()> {
    let parents: Vec<_> = path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()).collect();
    for parent in parents.iter().rev().filter(|parent| !parent.exists()) {
        match std::fs::DirBuilder::new().mode(mode).create(parent) {
            Ok(()) => std::fs::set_permissions(parent, std::fs::Permissions::from_mode(mode))?,
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// A socket with somebody listening answers a connect; a stale one refuses.
fn remove_stale(path: &Path) -> Result<(), UdsError> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(UdsError::Io { what: "look at", path: path.to_owned(), source }),
    };
    if !metadata.file_type().is_socket() {
        return Err(UdsError::NotASocket { path: path.to_owned() });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|source| UdsError::Io {
                what: "remove the stale socket",
                path: path.to_owned(),
                source,
            })
        }
        // A full backlog (WouldBlock) or a socket we may not use is somebody's too.
        Ok(_) | Err(_) => Err(UdsError::InUse { path: path.to_owned() }),
    }
}

/// The right to replace a stale socket: an flock on `<path>.lock`, for as long as binding takes. Of two that start at
/// once the second could otherwise remove the socket that the first has just bound, still taking it for the stale one.
struct Claim {
    lock: PathBuf,
    _file: File,
}

impl Claim {
    /// Refused at once while another holds it: that one is about to listen here.
    fn on(path: &Path) -> Result<Self, UdsError> {
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        loop {
            let error = |source| UdsError::Io { what: "lock", path: lock.clone(), source };
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(&lock)
                .map_err(error)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(UdsError::InUse { path: path.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(error(source)),
            }
            // Else another has removed the file between our opening and our locking it: what we hold is nobody's lock.
            let held = file.metadata().map_err(error)?;
            if inode(&lock) == Some((held.dev(), held.ino())) {
                return Ok(Self { lock, _file: file });
            }
        }
    }
}

impl Drop for Claim {
    /// Removed while it is held: whoever has it open sees that it is gone.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.lock);
    }
}

/// Removes the socket's file, unless another program has put its own there since.
struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), inode: inode(path) }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn listen(path: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    sys::watch(listener.into(), Interest::READABLE)
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Open connections of each user.
#[derive(Debug, Default)]
struct OpenConnections(Mutex<HashMap<u32, usize>>);

impl OpenConnections {
    fn enter(this: &Arc<Self>, uid: u32, max: Option<usize>) -> Option<Permit> {
        let mut open = this.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(uid).or_default();
        if max.is_some_and(|max| *count >= max) {
            return None;
        }
        *count += 1;
        Some(Permit { open: this.clone(), uid })
    }

    fn total(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

#[derive(Debug)]
struct Permit {
    open: Arc<OpenConnections>,
    uid: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.open.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

/// Logs the first refusal and then one in ten seconds, with the number held back: a flood must not fill the disk.
#[derive(Debug, Default)]
struct Refusals {
    logged: Option<Duration>,
    held_back: u64,
}

impl Refusals {
    fn note(&mut self, log: impl FnOnce(u64)) {
        let now = clock::monotonic();
        if self.logged.is_some_and(|logged| now.saturating_sub(logged) < REFUSAL_LOG) {
            self.held_back += 1;
            return;
        }
        log(std::mem::take(&mut self.held_back));
        self.logged = Some(now);
    }
}

#[cfg(test)]
mod tests;
