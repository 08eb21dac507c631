//! A certificate authority above ours: it signs our X.509 CA, and its roots are what the trust domain trusts.

use async_trait::async_trait;
use steeple_spiffe::Certificate;

/// What an upstream authority signed.
#[derive(Clone, Debug)]
pub struct MintedX509Ca {
    /// Our CA first, then what leads to a root, without the root.
    pub chain: Vec<Certificate>,
    pub roots: Vec<Certificate>,
}

/// See the [module](self). Times are Unix seconds.
#[async_trait]
pub trait UpstreamAuthority: Send + Sync + 'static {
    fn name(&self) -> &str;

    /// Signs a CA certificate for the key, subject and URI SAN of a request in DER. It lives `preferred_ttl` seconds or
    /// less.
    async fn mint_x509_ca(
        &self,
        csr: &[u8],
        preferred_ttl: i64,
        now: i64,
    ) -> Result<MintedX509Ca, UpstreamAuthorityError>;

    /// The roots that it has now, if it can tell without signing anything. What is new in them joins the bundle.
    async fn roots(&self, _now: i64) -> Result<Option<Vec<Certificate>>, UpstreamAuthorityError> {
        Ok(None)
    }
}

/// Why the upstream authority did not sign.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamAuthorityError {
    /// Its own configuration or material cannot be used: what, where and why.
    #[error("unable to load upstream CA {what}{}: {reason}", place(.path))]
    Load { what: &'static str, path: String, reason: String },
    /// The request is not one it signs.
    #[error("unable to sign CSR: {0}")]
    Request(String),
    #[error("unable to sign CSR: {0}")]
    Sign(String),
    #[error("upstream authority did not answer: {0}")]
    Unavailable(String),
}

fn place(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!(" from {path}") }
}
