//! The one module with `unsafe` (DESIGN §3.14): system calls that no crate of ours wraps.
#![allow(
    unsafe_code,
    reason = "getsockopt(SO_PEERCRED), getsockopt(SO_PEERPIDFD) have no safe wrapper in rustix; for prctl(PR_SET_THP_DISABLE) another of its features would be needed; tokio's AsyncFd asks for a promise about the descriptor, its ReadBuf for one about what was read"
)]

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use rustix::{io::Errno, net::RecvFlags};
use tokio::io::{Interest, ReadBuf, unix::AsyncFd};

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

/// MADV_DONTNEED of the program's code: what only the start needed stops being resident; what is used again is mapped
/// again from the page cache.
pub fn forget_code() -> io::Result<()> {
    for (start, end) in std::fs::read_to_string("/proc/self/maps")?.lines().filter_map(code) {
        // SAFETY: the mapping is of a file, executable and not writable: no page of it was changed, each comes back from
        // the file when it is touched.
        if unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Where a line of /proc/self/maps is code of a file: `start-end r-xp offset device inode path`.
fn code(line: &str) -> Option<(usize, usize)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [range, "r-xp", _, _, inode, ..] = fields[..] else { return None };
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    if inode == "0" { None } else { Some((address(start)?, address(end)?)) }
}

/// Returns once the descriptor can be read; a pidfd can when its process has ended.
pub async fn readable(fd: OwnedFd) -> io::Result<()> {
    watch(fd, Interest::READABLE)?.readable().await.map(drop)
}

/// Wakes tasks for what can be done with the descriptor.
pub fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, always the same, and owned by the `AsyncFd` until that is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest)? })
}

/// Reads what has come into a socket that does not block, behind what `buf` holds. No byte of it is touched but those that
/// came: a connection's buffer is mostly empty, and pages that nobody wrote to cost nothing.
pub fn receive(socket: BorrowedFd<'_>, buf: &mut ReadBuf<'_>) -> Result<usize, Errno> {
    // SAFETY: nothing is made uninitialized: the bytes are only written to.
    let space = unsafe { buf.unfilled_mut() };
    let ((received, _), _) = rustix::net::recv(socket, space, RecvFlags::empty())?;
    let count = received.len();
    // SAFETY: the kernel has written them, from the beginning of the space on.
    unsafe { buf.assume_init(count) };
    buf.advance(count);
    Ok(count)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_goes_on_without_the_pages_of_its_code() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap().trim();
            line.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        // Other tests run meanwhile, and their code comes back.
        let shrinks = |_| {
            let before = resident();
            forget_code().unwrap();
            resident() < before
        };
        assert!((0..20).any(shrinks));
    }

    #[test]
    fn code_is_what_is_executable_and_of_a_file() {
        let of = |mode, inode| code(&format!("7f00-8000 {mode} 000b3000 08:01 {inode} /usr/bin/spire-agent"));
        assert_eq!(of("r-xp", 7), Some((0x7f00, 0x8000)));
        // Relocated read-only data was written to before it became read-only.
        for (mode, inode) in [("r--p", 7), ("rw-p", 7), ("rwxp", 7), ("r-xs", 7), ("r-xp", 0)] {
            assert_eq!(of(mode, inode), None, "{mode}");
        }
        assert_eq!(code(""), None);
    }
}
