//! The requirements of the SPIFFE standards that a library can be held to. Each test carries the id of its
//! requirement (`docs/conformance.md`); certificates that our own writer refuses to make are made with rcgen.

#![allow(clippy::unwrap_used, reason = "tests: a helper that cannot go on fails the test")]

mod bundle;
mod id;
mod jwt;
mod support;
mod workload_api;
mod x509;
