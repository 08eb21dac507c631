//! Clock, tasks, shutdown, logs, metrics, health, Unix-socket peers, mTLS: what every program here stands on.
//!
//! | module | what it is |
//! |---|---|
//! | [`clock`] | the only place that reads the time; engines take `now` |
//! | [`shutdown`], [`signals`], [`tasks`] | two-level stop, and who asks for it; named tasks whose end means something |
//! | [`logs`] | logrus' text and JSON layouts over `tracing`, level changed at run time |
//! | [`metrics`] | SPIRE's metric names over the `metrics` facade; Prometheus listener |
//! | [`health`] | `/live` and `/ready` |
//! | [`uds`], [`authority`], [`peer`] | Unix sockets whose callers are processes, served to every gRPC stack |
//! | [`container`] | which container a process is in, by /proc |
//! | [`gate`] | calls to what may stop answering, bounded |
//! | [`tls`] | mutual TLS from a live SVID and live bundles |
//! | [`grpc`] | tonic server settings shared by all endpoints |
//! | [`reason`] | codes of what is refused or goes wrong |
//! | [`keyring`] | secrets that the kernel keeps |
//! | [`ratelimit`], [`backoff`] | waiting, politely |
//! | [`slow_reader`] | clients that do not read |

pub mod authority;
pub mod backoff;
pub mod bundle_endpoint;
pub mod clock;
pub mod container;
pub mod gate;
pub mod grpc;
pub mod health;
pub mod http;
pub mod keyring;
pub mod logs;
pub mod metrics;
pub mod peer;
pub mod ratelimit;
pub mod reason;
pub mod shutdown;
pub mod signals;
pub mod slow_reader;
mod sys;
pub mod tasks;
pub mod tls;
pub mod uds;

/// Makes aws-lc-rs the process's TLS provider, hybrid post-quantum key exchange first (DESIGN §3.14). Every binary
/// calls it first; calling it again does nothing.
pub fn install_crypto_provider() {
    // An error only says that a provider is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Allows the process as many open files as the system lets it have, as Go does at start: each connection of the
/// Workload API takes one, and each process connected one more. Answers the limit.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    // None is no limit.
    now.unwrap_or(u64::MAX)
}

/// Keeps what the allocator reserves from becoming resident 2 MiB at a time: an idle server has 8.1 MB of memory of its
/// own instead of 16 MB. Call it first in `main`. A kernel without the switch changes nothing.
pub fn keep_memory_small() {
    let _ = sys::refuse_huge_pages();
}

/// Keeps the process's memory, in which private keys are, out of core files and away from debuggers of the same user.
/// Root can still attach. Its files in `/proc` are root's from then on.
pub fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    // Where the kernel refuses one of the two, the other holds.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Gives back the memory that only the start needed: pages of the program's code, which come back when they are used.
/// An idle daemon is up to a quarter smaller by it. Call it once everything serves.
pub fn settle_memory() {
    // It is a saving, no more.
    let _ = sys::forget_code();
}

/// Sets the process's umask and answers the one it had.
pub fn set_umask(mask: u32) -> u32 {
    rustix::process::umask(rustix::fs::Mode::from_bits_truncate(mask)).bits()
}

/// Tightens the umask to at least 0027, as SPIRE does at start, with its warning.
pub fn tighten_umask() {
    const WANTED: u32 = 0o027;
    let had = set_umask(WANTED);
    if had & WANTED == WANTED {
        set_umask(had);
    } else {
        let now = had | WANTED;
        set_umask(now);
        tracing::warn!("Current umask {had:04o} is too permissive; setting umask {now:04o}");
    }
}
