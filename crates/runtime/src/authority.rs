//! Placeholder while the API settles.
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, ReadBuf};
#[derive(Debug)]
pub struct AuthorityFilter<S>(S);
impl<S> AuthorityFilter<S> {
    pub fn new(s: S) -> Self {
        Self(s)
    }
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.0
    }
}
impl<S: AsyncRead + Unpin> AsyncRead for AuthorityFilter<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}
