//! A connection that is woken for what comes in, and for room to write only while it waits for some.
//!
//! tokio's `UnixStream` hears of both: each time a client reads, its server would be woken for nothing.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
};

use rustix::{io::Errno, net::Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd};

use crate::sys;

/// See the module.
#[derive(Debug)]
pub struct Socket {
    incoming: AsyncFd<OwnedFd>,
    /// Another descriptor of the same socket, while a write waits.
    room: Option<AsyncFd<OwnedFd>>,
    written: bool,
}

impl Socket {
    /// `fd` is a stream socket that does not block.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { incoming: sys::watch(fd, Interest::READABLE)?, room: None, written: false })
    }

    /// Returns once there is something to read, or the end, or an error that reading will show.
    pub async fn heard(&self) {
        if let Ok(mut ready) = self.incoming.readable().await {
            ready.retain_ready();
        }
    }

    /// Writes what there is room for.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl Fn(BorrowedFd<'_>) -> Result<usize, Errno>,
    ) -> Poll<io::Result<usize>> {
        self.written = true;
        loop {
            match send(self.incoming.as_fd()) {
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                sent => {
                    self.room = None;
                    return Poll::Ready(sent.map_err(io::Error::from));
                }
            }
            if self.room.is_none() {
                let same = self.incoming.get_ref().try_clone()?;
                self.room = Some(sys::watch(same, Interest::WRITABLE)?);
            }
            if let Some(room) = &self.room {
                ready!(room.poll_write_ready(cx))?.clear_ready();
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.incoming.as_fd()
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.incoming.poll_read_ready(cx))?;
            let asked = buf.remaining();
            match sys::receive(self.incoming.as_fd(), buf) {
                Ok(count) => {
                    // Less than there is room for: that was all, the next time it is told anew (epoll's edge). Not at
                    // the end, which is told once.
                    if count > 0 && count < asked {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, |fd| rustix::io::write(fd, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, |fd| rustix::io::writev(fd, bufs))
    }

    /// Asked before the first write, h2 decides by it up to what size it copies a message behind its header, so that the
    /// trailers go with it: 1 KiB instead of 256 bytes (as in `tls::server`).
    fn is_write_vectored(&self) -> bool {
        self.written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match rustix::net::shutdown(self.incoming.get_ref(), Shutdown::Write) {
            // The other side was faster.
            Err(Errno::NOTCONN) => Ok(()),
            ended => ended.map_err(io::Error::from),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as Std;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    fn pair() -> (Socket, UnixStream) {
        let (ours, theirs) = Std::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Socket::new(ours.into()).unwrap(), UnixStream::from_std(theirs).unwrap())
    }

    #[tokio::test]
    async fn a_write_waits_for_room_and_goes_on() {
        let (mut ours, mut theirs) = pair();
        let sent: Vec<u8> = (0..2_000_000_u32).map(|n| n as u8).collect();
        let writing = async {
            ours.write_all(&sent).await.unwrap();
            assert!(ours.room.is_none(), "nobody waits for room any more");
            ours.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let ((), read) = tokio::join!(writing, theirs.read_to_end(&mut received));
        assert_eq!(read.unwrap(), sent.len());
        assert!(received == sent);
        theirs.write_all(b"and back").await.unwrap();
        drop(theirs);
        let mut back = Vec::new();
        ours.read_to_end(&mut back).await.unwrap();
        assert_eq!(back, b"and back");
    }

    #[tokio::test]
    async fn what_comes_in_pieces_is_read_in_pieces() {
        let (mut ours, mut theirs) = pair();
        for round in 0..100_u8 {
            let mut piece = [0; 3];
            let reading = async {
                ours.heard().await;
                ours.read_exact(&mut piece).await.unwrap();
            };
            let writing = async {
                theirs.write_all(&[round, 1]).await.unwrap();
                tokio::task::yield_now().await;
                theirs.write_all(&[2]).await.unwrap();
            };
            tokio::join!(reading, writing);
            assert_eq!(piece, [round, 1, 2]);
        }
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_an_error() {
        let (mut ours, theirs) = pair();
        drop(theirs);
        assert_eq!(ours.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(ours.read(&mut [0; 8]).await.unwrap(), 0);
        ours.shutdown().await.unwrap();
    }
}
