//! Real database servers for tests, on loopback, in folders of their own, gone with the test process however it ends.
//!
//! [`Database::new`] gives a test an empty database on a server that its process shares; [`Database::alone`] one on a server of
//! its own, which it may stop, kill and start. Programs that are missing are an error that names `scripts/setup test`: no test
//! is skipped.
#![allow(clippy::disallowed_methods, reason = "a harness waits by the real clock")]

mod database;
mod engine;
mod keeper;
mod mysql;
mod postgres;
mod server;
mod tls;

pub use database::Database;
pub use engine::Engine;
pub use server::{Server, free_port};
pub use tls::Certificates;
