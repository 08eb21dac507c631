//! Built-in plugins that need no SDK: key managers disk and memory, join_token, the unix workload attestor.
