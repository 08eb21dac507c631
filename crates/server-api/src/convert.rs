//! Wire types to the model and back. Each error names its field; texts equal SPIRE's.

mod agent;
mod bundle;
mod encode;
mod entry;
mod id;
mod selector;

pub use agent::{agent_to_proto, apply_agent_mask};
pub use bundle::{
    apply_bundle_mask, bundle_from_proto, bundle_mask_from_proto, bundle_to_proto,
    jwt_authorities_from_proto, jwt_authorities_to_proto, x509_authorities_from_proto,
};
pub use encode::EntryEncoder;
pub use entry::{
    entry_from_proto, entry_into_proto_masked, entry_mask_from_proto, entry_to_proto, entry_to_proto_masked,
};
pub use id::{
    agent_id_from_proto, check_agent_id_for_attestor, check_workload_id, id_from_proto, id_to_proto,
    is_reserved_path, member_id_from_proto, workload_id_from_proto,
};
pub use selector::{match_from_proto, selectors_from_proto, selectors_text, selectors_to_proto};

use steeple_spiffe::{IdError, SpiffeId, TrustDomain};

/// Longest hint an entry may carry, in bytes (SPIRE).
pub const MAX_HINT_LEN: usize = 1024;

/// What is wrong with a message a client sent. Texts are SPIRE's: they reach users inside API errors.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("request must specify SPIFFE ID")]
    MissingId,
    #[error(transparent)]
    Id(#[from] IdError),
    #[error("\"{id}\" is not a member of trust domain \"{trust_domain}\"")]
    OtherTrustDomain { id: SpiffeId, trust_domain: TrustDomain },
    #[error("\"{id}\" is not {what} trust domain \"{trust_domain}\"; path is empty")]
    EmptyPath { id: SpiffeId, what: &'static str, trust_domain: TrustDomain },
    #[error(
        "\"{id}\" is not an agent in trust domain \"{trust_domain}\"; path is not in the agent namespace"
    )]
    NotAnAgent { id: SpiffeId, trust_domain: TrustDomain },
    #[error("\"{id}\" is not in the agent namespace for attestor \"{attestor}\"")]
    NotOfAttestor { id: SpiffeId, attestor: String },
    #[error(
        "\"{id}\" is not a workload in trust domain \"{trust_domain}\"; path is in the reserved namespace"
    )]
    Reserved { id: SpiffeId, trust_domain: TrustDomain },
    #[error("missing entry")]
    MissingEntry,
    #[error("invalid parent ID: {0}")]
    ParentId(Box<ConvertError>),
    #[error("invalid spiffe ID: {0}")]
    EntryId(Box<ConvertError>),
    #[error("invalid DNS name: {0}")]
    DnsName(String),
    #[error("invalid federated trust domain: {0}")]
    FederatesWith(IdError),
    #[error("selector list is empty")]
    NoSelectors,
    #[error("missing selector type")]
    SelectorType,
    #[error("selector type contains ':'")]
    SelectorTypeColon,
    #[error("missing selector value")]
    SelectorValue,
    #[error("hint is too long, max length is {MAX_HINT_LEN} characters")]
    Hint,
    #[error("no bundle provided")]
    MissingBundle,
    #[error("invalid trust domain: {0}")]
    BundleTrustDomain(IdError),
    #[error("unable to parse X.509 authority: {0}")]
    BundleX509Authority(Box<ConvertError>),
    #[error("unable to parse JWT authority: {0}")]
    BundleJwtAuthority(Box<ConvertError>),
    #[error("{0}")]
    X509Authority(String),
    #[error("{0}")]
    JwtAuthority(String),
    #[error("missing key ID")]
    MissingKeyId,
    #[error("{0}")]
    Other(String),
}

#[cfg(test)]
mod tests;
