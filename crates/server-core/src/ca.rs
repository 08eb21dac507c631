//! The authorities of a server: which key signs, which one is next, and when they change (spire.md §1.9).
//!
//! Each kind of authority has two slots, A and B. While the one in use grows old the other one gets a new key,
//! is published in the trust bundle, and takes over later, when every verifier has had time to learn it.
//!
//! * [`state`] decides: a pure `step(event, now) -> effects`.
//! * [`journal`] is what outlives a restart, in SPIRE's format.
//! * [`CaManager`] carries the effects out and signs.
//! * [`local`] is what operators may ask for: prepare, activate, taint, revoke.
//!
//! With an upstream authority the X.509 CA is signed by it, and its roots are in the bundle instead of ours.

mod issue;
pub mod journal;
pub mod local;
mod manager;
mod sign;
pub mod state;
mod upstream;

use std::sync::Arc;

use steeple_plugin::{
    ComposeError, CredentialComposer, KeyManager, KeyManagerError, UpstreamAuthority, UpstreamAuthorityError,
};
use steeple_spiffe::jwt::{JwtError, WitError};
use steeple_spiffe::x509::{DistinguishedName, X509Error};
use steeple_spiffe::{KeyError, KeyType, TrustDomain};

pub use manager::CaManager;
pub use sign::{
    AgentX509Params, BACKDATE, DownstreamCaParams, JwtParams, SignedJwt, SignedX509, WitParams,
    WorkloadX509Params,
};

/// What the operator decided about authorities and SVIDs (spire.md §1.2). Times are seconds.
#[derive(Clone, Debug)]
pub struct CaConfig {
    pub trust_domain: TrustDomain,
    pub ca_key_type: KeyType,
    pub jwt_key_type: KeyType,
    /// Lifetime of X.509 CA certificates and of JWT keys.
    pub ca_ttl: i64,
    pub ca_subject: DistinguishedName,
    pub default_x509_svid_ttl: i64,
    pub default_jwt_svid_ttl: i64,
    pub agent_ttl: i64,
    /// No JWT key is made and none signs.
    pub disable_jwt_svids: bool,
    /// The `iss` claim; empty leaves it out.
    pub jwt_issuer: String,
    /// SPIRE's feature flag `wit-svid`; `None` makes no WIT key.
    pub wit: Option<WitConfig>,
}

/// `experimental { wit_key_type, wit_issuer }`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitConfig {
    pub key_type: KeyType,
    /// The `iss` claim; empty leaves it out.
    pub issuer: String,
    /// Seconds.
    pub default_ttl: i64,
}

impl WitConfig {
    /// SPIRE's defaults; its WIT-SVIDs live an hour.
    pub fn new(key_type: KeyType) -> Self {
        Self { key_type, issuer: String::new(), default_ttl: 3600 }
    }
}

/// What a CA works with.
#[derive(Clone)]
pub struct CaPlugins {
    pub keys: Arc<dyn KeyManager>,
    pub upstream: Option<Arc<dyn UpstreamAuthority>>,
    /// Asked in this order.
    pub composers: Vec<Arc<dyn CredentialComposer>>,
}

impl CaPlugins {
    /// A CA that is its own root.
    pub fn new(keys: Arc<dyn KeyManager>) -> Self {
        Self { keys, upstream: None, composers: Vec::new() }
    }
}

impl CaConfig {
    /// SPIRE's defaults.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            ca_key_type: KeyType::EcP256,
            jwt_key_type: KeyType::EcP256,
            ca_ttl: 24 * 3600,
            ca_subject: DistinguishedName::default_ca(),
            default_x509_svid_ttl: 3600,
            default_jwt_svid_ttl: 300,
            agent_ttl: 3600,
            disable_jwt_svids: false,
            jwt_issuer: String::new(),
            wit: None,
        }
    }

    /// The longest SVID lifetime that a scheduled rotation never cuts short (spire.md §1.2, "TTL sanity").
    pub fn longest_fitting_svid_ttl(&self) -> i64 {
        state::activation_threshold(self.ca_ttl)
    }
}

/// Why an authority could not be made, loaded or used. Texts that reach clients are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("X509 CA is not available for signing")]
    X509NotReady,
    #[error("JWT key is not available for signing")]
    JwtNotReady,
    #[error("WIT key is not available for signing")]
    WitNotReady,
    #[error("JWT functionality is disabled")]
    JwtDisabled,
    #[error("WIT functionality is disabled")]
    WitDisabled,
    #[error("invalid X509-SVID ID: {0}")]
    InvalidX509Id(String),
    #[error("invalid JWT-SVID ID: {0}")]
    InvalidJwtId(String),
    #[error("invalid WIT-SVID ID: {0}")]
    InvalidWitId(String),
    #[error("invalid JWT-SVID audience: cannot be empty")]
    EmptyAudience,
    #[error("ca_ttl must be at least one second, not {0}")]
    BadTtl(i64),
    /// A signature with the key of this slot is still being made, so the key is not replaced yet.
    #[error("key {0:?} is still signing; it will be replaced at the next rotation")]
    KeyInUse(String),
    #[error("CA journal {row} cannot be read: {reason}")]
    Journal { row: u64, reason: String },
    #[error(transparent)]
    Upstream(#[from] UpstreamAuthorityError),
    #[error("upstream authority did not answer within {0} seconds")]
    UpstreamSlow(u64),
    #[error("X509 CA minted by upstream authority is invalid: {0}")]
    BadMint(String),
    /// It would have to be replaced at once, and so would the next one.
    #[error(
        "upstream authority signs under the tainted X.509 authority {0}; configure it with another one, \
         the present X509 CA goes on meanwhile"
    )]
    TaintedUpstream(String),
    #[error(transparent)]
    Compose(#[from] ComposeError),
    #[error(transparent)]
    KeyManager(#[from] KeyManagerError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Store(#[from] steeple_datastore::Error),
    #[error(transparent)]
    X509(#[from] X509Error),
    #[error(transparent)]
    Jwt(#[from] JwtError),
    #[error(transparent)]
    Wit(#[from] WitError),
}
