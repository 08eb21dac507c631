//! Plugin ports: one small async trait for each of SPIRE's plugin types that Steeple serves.
//!
//! Built-ins live in `plugins/`; the binaries list them in one table. Implementations are built configured.

mod credential_composer;
mod key_manager;
mod node_attestor;
mod upstream_authority;
mod workload_attestor;

pub mod conformance;

pub use credential_composer::{ComposeError, CredentialComposer, X509SvidAttributes};
pub use key_manager::{KeyManager, KeyManagerError};
pub use node_attestor::{
    AgentAttributes, AgentNodeAttestor, AttestError, Attestation, AttestorHost, Challenged, Evidence,
    ServerNodeAttestor,
};
pub use upstream_authority::{MintedX509Ca, UpstreamAuthority, UpstreamAuthorityError};
pub use workload_attestor::{Caller, WorkloadAttestError, WorkloadAttestor};
