//! Certificate authorities above ours.

mod disk;

pub use disk::{DiskConfig, DiskUpstreamAuthority};
