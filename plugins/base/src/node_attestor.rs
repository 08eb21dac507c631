//! How an agent proves which node it is.

use async_trait::async_trait;
use steeple_plugin::{AgentNodeAttestor, AttestError};
use zeroize::Zeroizing;

/// Agent side of `join_token`: the payload is the token, and there is no challenge. The server's side is in its
/// Agent service, which takes the token out of the datastore.
pub struct JoinToken {
    token: Zeroizing<String>,
}

impl JoinToken {
    pub fn new(token: String) -> Self {
        Self { token: Zeroizing::new(token) }
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JoinToken({} bytes, redacted)", self.token.len())
    }
}

#[async_trait]
impl AgentNodeAttestor for JoinToken {
    fn name(&self) -> &'static str {
        "join_token"
    }

    async fn payload(&self) -> Result<Vec<u8>, AttestError> {
        if self.token.is_empty() {
            // SPIRE's text.
            return Err(AttestError::InvalidArgument("join token was not provided".to_owned()));
        }
        Ok(self.token.as_bytes().to_vec())
    }

    async fn respond(&self, _challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
        Err(AttestError::InvalidArgument("join_token has no challenge to respond to".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_payload_is_the_token() {
        let attestor = JoinToken::new("secret".to_owned());
        assert_eq!(attestor.name(), "join_token");
        assert_eq!(attestor.payload().await.unwrap(), b"secret");
        assert!(attestor.respond(Vec::new()).await.is_err());
        assert!(!format!("{attestor:?}").contains("secret"));
        let missing = JoinToken::new(String::new()).payload().await.unwrap_err();
        assert_eq!(missing.to_string(), "join token was not provided");
    }
}
