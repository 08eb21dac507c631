//! The agent's sockets and its way to the server.
//!
//! | module | what it is |
//! |---|---|
//! | [`workload`] | the SPIFFE Workload API |
//! | [`sds`] | Envoy's secret discovery, on the same socket |
//! | [`admin`] | Debug and Logger on the admin socket |
//! | [`delegated`] | the Delegated Identity API, there too |
//! | [`explain`] | why a workload has an identity or not |
//! | [`health`] | gRPC health and the HTTP check `agent` |
//! | [`attest`] | a caller's selectors |
//! | [`identity`] | the agent's own SVID: attest, store, renew |
//! | [`link`] | mTLS channel to the server, renewed with the SVID |
//! | [`sync`] | entries and bundles, pushed or polled |
//! | [`signing`] | X.509-SVIDs and JWT-SVIDs from the server |
//! | [`sealed`] | what a restart goes on with while the server is away |
//! | [`expiry`] | takes away what has ended |
//! | [`state`] | what they all share |

pub mod admin;
pub mod attest;
mod connection;
mod convert;
pub mod delegated;
pub mod expiry;
pub mod explain;
pub mod failure;
pub mod health;
pub mod identity;
pub mod link;
mod noted;
mod refusal;
mod report;
pub mod sds;
pub mod sealed;
pub mod signing;
pub mod state;
pub mod storage;
pub mod sync;
mod wit;
pub mod workload;

pub use attest::WorkloadAttestation;
pub use convert::ConvertError;
pub use failure::ServerError;
pub use identity::{AgentIdentity, Attempt, IdentityConfig, IdentityError, TrustError, TrustSource};
pub use link::ServerLink;
pub use state::AgentState;
pub use workload::{WorkloadApi, WorkloadConfig};
