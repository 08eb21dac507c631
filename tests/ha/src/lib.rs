//! Several servers on one database, killed at random, with writers on all of them: what was acknowledged stays, each server tells each
//! agent what the database holds, and no workload sees an identity come or go that nobody wrote.
//!
//! `cargo test -p steeple-ha --test chaos -- --minutes 10` (`scripts/test ha`). This library holds what needs no server.

mod ledger;

pub use ledger::Ledger;
