//! Black box: a server and an agent as processes, driven through their commands and sockets.
//!
//! `STEEPLE_BIN_DIR` names the folder with `spire-server` and `spire-agent` under test. It may hold SPIRE's own: a test
//! that SPIRE fails is wrong, or a line in docs/differences.md. [`Subject`] tells the two apart where they differ by design.

#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]

mod daemon;
mod deployment;
pub mod secrets;
mod workload;

pub use daemon::Daemon;
pub use deployment::{Deployment, DeploymentBuilder, NODE, Ran, Subject, TRUST_DOMAIN, chosen_engine, uid};
pub use steeple_databases::{Database, Engine, free_port};
pub use workload::{Workload, connect_uds};
