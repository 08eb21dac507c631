//! How the agent finds out what a calling process is.

pub mod systemd;
mod unix;

pub use systemd::{Systemd, SystemdConfig};
pub use unix::{Unix, UnixConfig};
