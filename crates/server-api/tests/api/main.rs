//! The services over a real Unix socket and real mutual TLS, on SQLite in a scratch directory.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::unnecessary_wraps,
    clippy::default_trait_access,
    clippy::unnecessary_literal_bound,
    reason = "test code; helpers are no #[test] functions, which the lints would let pass"
)]

mod agents;
mod attest;
mod audit;
mod authorities;
mod bundles;
mod entries;
mod explain;
mod harness;
mod limits;
mod matrix;
mod others;
mod push;
mod recorded;
mod rotation;
mod svids;
mod sync;
mod trust_domains;
mod wit;
