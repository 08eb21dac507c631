//! How the agent finds out what a calling process is.

use std::fmt::Debug;

use async_trait::async_trait;

/// A process, held so that its number cannot pass to another (DESIGN §3.9).
pub trait Caller: Send + Sync + Debug {
    fn pid(&self) -> i32;
    fn uid(&self) -> u32;
    fn gid(&self) -> u32;
    /// Errors once the process has gone or is not the one that connected. It is asked when all attestors have answered,
    /// which vouches for all that they read of it before; an attestor asks for itself before it tells others of what it read.
    fn still_here(&self) -> std::io::Result<()>;
}

/// Finds selectors of a process. "Not mine" is an empty list.
#[async_trait]
pub trait WorkloadAttestor: Send + Sync + 'static {
    /// The selector type.
    fn name(&self) -> &str;
    /// Selector values, without the type.
    async fn attest(&self, caller: &dyn Caller) -> Result<Vec<String>, WorkloadAttestError>;
}

/// Why an attestor found nothing.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadAttestError {
    #[error("the calling process {pid} has gone")]
    Gone { pid: i32 },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    /// What the attestor asks has not answered for a while, and another caller is finding out whether it does again.
    /// Said now and then in the log, not at each call.
    #[error("{0}")]
    StillSilent(String),
    #[error("{0}")]
    Other(String),
}
