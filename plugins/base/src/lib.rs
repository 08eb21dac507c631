//! Built-in plugins that need no SDK: key managers disk and memory, join_token, the unix workload attestor.

pub mod key_manager;
pub mod node_attestor;
pub mod workload_attestor;
