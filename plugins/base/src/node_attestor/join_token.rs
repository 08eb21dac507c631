//! `join_token`.

use async_trait::async_trait;
use steeple_plugin::{AgentNodeAttestor, AttestError, Attestation};
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

    async fn begin(&self) -> Result<Box<dyn Attestation>, AttestError> {
        if self.token.is_empty() {
            // SPIRE's text.
            return Err(AttestError::InvalidArgument("join token was not provided".to_owned()));
        }
        Ok(Box::new(Begun(self.token.clone())))
    }
}

struct Begun(Zeroizing<String>);

#[async_trait]
impl Attestation for Begun {
    fn payload(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }

    async fn respond(&mut self, _challenge: Vec<u8>) -> Result<Vec<u8>, AttestError> {
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
        let mut begun = attestor.begin().await.unwrap();
        assert_eq!(begun.payload(), b"secret");
        assert!(begun.respond(Vec::new()).await.is_err());
        assert!(!format!("{attestor:?}").contains("secret"));
        let missing = JoinToken::new(String::new()).begin().await.err().map(|error| error.to_string());
        assert_eq!(missing.as_deref(), Some("join token was not provided"));
    }
}
