//! The one module with `unsafe` (DESIGN §3.14): system calls that no crate of ours wraps.
#![allow(
    unsafe_code,
    reason = "getsockopt(SO_PEERCRED), getsockopt(SO_PEERPIDFD) have no safe wrapper in rustix; for prctl(PR_SET_THP_DISABLE) another of its features would be needed; tokio's AsyncFd asks for a promise about the descriptor"
)]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// Linux 6.5; libc has it for some targets only.
const SO_PEERPIDFD: libc::c_int = 77;

/// Who connected to a Unix socket, as the kernel noted at connect time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// PR_SET_THP_DISABLE: the kernel backs no more of this process's memory with huge pages. Children inherit it.
pub fn refuse_huge_pages() -> io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: the call reads five integers and touches no memory of ours.
    match unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, on, unused, unused, unused) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns once the descriptor can be read; a pidfd can when its process has ended.
pub async fn readable(fd: OwnedFd) -> io::Result<()> {
    // SAFETY: an `OwnedFd` is open, the same, and owned by the `AsyncFd` until that is dropped here.
    let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE)? };
    fd.readable().await.map(drop)
}

/// SO_PEERCRED.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<Credentials> {
    // SAFETY: `ucred` is three integers, valid for any bytes the kernel writes.
    let cred: libc::ucred = unsafe { socket_option(socket, libc::SO_PEERCRED)? };
    Ok(Credentials { pid: cred.pid, uid: cred.uid, gid: cred.gid })
}

/// SO_PEERPIDFD: a descriptor of the process that connected, with no number in between that could be reused.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the option's value is one descriptor number.
    let fd: RawFd = unsafe { socket_option(socket, SO_PEERPIDFD)? };
    if fd < 0 {
        return Err(io::Error::other("the kernel gave no descriptor for the peer's process"));
    }
    // SAFETY: the kernel has just opened this descriptor for us; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// # Safety
/// Every bit pattern of `T` must be valid, and the option's value must be a `T`.
unsafe fn socket_option<T>(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`, which outlives the call; the kernel writes at most `length`.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    if length as usize != size_of::<T>() {
        return Err(io::Error::other("the kernel answered a socket option of another size"));
    }
    // SAFETY: zeroed, then filled by the kernel; the caller vouches for every bit pattern.
    Ok(unsafe { value.assume_init() })
}
