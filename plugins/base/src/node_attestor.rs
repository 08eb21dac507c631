//! How an agent proves which node it is.

mod bytes;
mod ecdsa;
pub mod http_challenge;
mod join_token;
mod nonce;
pub mod sshpop;
pub mod x509pop;

pub use join_token::JoinToken;

/// Why a plugin's configuration is no good; says which option.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    fn of<T>(text: impl Into<String>) -> Result<T, Self> {
        Err(Self(text.into()))
    }
}
