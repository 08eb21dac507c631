//! How the agent finds out what a calling process is.

mod unix;

pub use unix::{Unix, UnixConfig};
