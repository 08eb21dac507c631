//! Lets gRPC stacks that send the socket's path as `:authority` talk to us.
//!
//! C-core (Python, C++, …) sends `%2Ftmp%2Fx.sock`, grpc-java and Swift send `/tmp/x.sock`. Neither is an authority by
//! RFC 3986, and h2 answers RST_STREAM PROTOCOL_ERROR before any of our code runs (hyperium/h2#487). On a Unix socket
//! the authority means nothing, so [`AuthorityFilter`] reads the client's bytes on their way to h2 and replaces, in
//! place, each byte of an `:authority` that may not be there by one that may. Lengths stay as they are, so frames and
//! the sizes of both HPACK tables do too.
//!
//! Everything else passes untouched and uncopied. What is not HTTP/2, or malformed, is left for h2 to judge. A name
//! given by an index into the dynamic table is not followed: an encoder has no reason to, `:authority` is in the
//! static one.

mod frames;
mod hpack;
mod huffman;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use self::frames::Frames;

/// A byte that completes a held-back one comes within this many; more than that at once is not read.
const SMALL_READ: usize = 256;

/// Filters what is read from `S`; see the module.
#[derive(Debug)]
pub struct AuthorityFilter<S> {
    io: S,
    frames: Frames,
    /// Read, but not passed on: the beginning of a Huffman symbol whose rest has not come. A few bytes, rarely.
    held: Vec<u8>,
    /// Ready to be passed on, after something was held.
    released: Vec<u8>,
}

impl<S> AuthorityFilter<S> {
    pub fn new(io: S) -> Self {
        Self { io, frames: Frames::default(), held: Vec::new(), released: Vec::new() }
    }

    pub fn get_ref(&self) -> &S {
        &self.io
    }

    /// For writing, which passes by the filter. What is read directly is missed by it.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// Passes on what was released earlier.
    fn drain(&mut self, buf: &mut ReadBuf<'_>) {
        let count = buf.remaining().min(self.released.len());
        buf.put_slice(&self.released[..count]);
        self.released.drain(..count);
        if self.released.is_empty() {
            self.released = Vec::new();
        }
    }
}

impl<S: AsyncRead + Unpin> AuthorityFilter<S> {
    /// The usual case: the caller's buffer is read into and looked at in place. `true` if anything can be passed on.
    fn poll_direct(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        let new = &mut buf.filled_mut()[before..];
        if new.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let passed = self.frames.process(new, 0);
        if passed < new.len() {
            self.held = new[passed..].to_vec();
            buf.set_filled(before + passed);
        }
        Poll::Ready(Ok(passed > 0))
    }

    /// While something is held: a little more is read behind it.
    fn poll_behind_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = [0; SMALL_READ];
        let mut more = ReadBuf::new(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut more))?;
        if more.filled().is_empty() {
            // The stream ends in the middle of a symbol: as it is, then.
            self.released = std::mem::take(&mut self.held);
            return Poll::Ready(Ok(()));
        }
        let seen = self.held.len();
        self.held.extend_from_slice(more.filled());
        let passed = self.frames.process(&mut self.held, seen);
        let still_held = self.held.split_off(passed);
        self.released = std::mem::replace(&mut self.held, still_held);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for AuthorityFilter<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if !this.released.is_empty() {
                this.drain(buf);
                return Poll::Ready(Ok(()));
            }
            if this.held.is_empty() {
                if ready!(this.poll_direct(cx, buf))? {
                    return Poll::Ready(Ok(()));
                }
            } else {
                ready!(this.poll_behind_held(cx))?;
            }
        }
    }
}

#[cfg(test)]
mod tests;
