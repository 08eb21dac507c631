//! SPIRE's `docker` workload attestor (spire.md §3.9): labels, environment and image of the caller's container, as
//! Docker or Podman tells.
//!
//! | module | what it is |
//! |---|---|
//! | [`config`] | SPIRE's options |
//! | [`attestor`] | caller → container → engine → selectors, and the proof that the caller is in that container |
//! | [`engine`] | one GET on an engine's socket, bounded in time and size |
//! | [`matchers`] | SPIRE's legacy patterns for container IDs |

pub mod attestor;
pub mod config;
pub mod engine;
pub mod matchers;

pub use attestor::Docker;
pub use config::{DockerConfig, DockerConfigError, DockerOptions};
