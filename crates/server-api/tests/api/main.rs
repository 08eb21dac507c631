//! The services over a real Unix socket and real mutual TLS, on SQLite in a scratch directory.

mod agents;
mod attest;
mod audit;
mod bundles;
mod entries;
mod harness;
mod limits;
mod matrix;
mod others;
mod push;
mod svids;
mod sync;
