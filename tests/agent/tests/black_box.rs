//! One program for all of an agent's black-box tests; one module for each subject.

#![allow(clippy::disallowed_methods, reason = "a black box looks at the real clock")]
#![allow(clippy::print_stdout, reason = "figures are told")]

#[path = "black_box/bad_input.rs"]
mod bad_input;
#[path = "black_box/cilium.rs"]
mod cilium;
#[path = "black_box/cilium_agent.rs"]
mod cilium_agent;
#[path = "black_box/cilium_operator.rs"]
mod cilium_operator;
#[path = "black_box/containers.rs"]
mod containers;
#[path = "black_box/envoy.rs"]
mod envoy;
#[path = "black_box/envoys.rs"]
mod envoys;
#[path = "black_box/explain.rs"]
mod explain;
#[path = "black_box/herd.rs"]
mod herd;
#[path = "black_box/memory.rs"]
mod memory;
#[path = "black_box/no_keys.rs"]
mod no_keys;
#[path = "black_box/node_proxy.rs"]
mod node_proxy;
#[path = "black_box/pid_reuse.rs"]
mod pid_reuse;
#[path = "black_box/raw.rs"]
mod raw;
#[path = "black_box/recovery.rs"]
mod recovery;
#[path = "black_box/sds.rs"]
mod sds;
#[path = "black_box/sealed.rs"]
mod sealed;
#[path = "black_box/slow_readers.rs"]
mod slow_readers;
#[path = "black_box/systemd.rs"]
mod systemd;
