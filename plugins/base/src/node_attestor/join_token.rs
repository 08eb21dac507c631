//! `join_token`.

use std::path::PathBuf;

use async_trait::async_trait;
use steeple_plugin::{AgentNodeAttestor, AttestError, Attestation};
use zeroize::Zeroizing;

/// Agent side of `join_token`: the payload is the token, and there is no challenge. The server's side is in its
/// Agent service, which takes the token out of the datastore.
pub struct JoinToken {
    source: Source,
}

enum Source {
    Given(Zeroizing<String>),
    /// Read at each attestation: an operator may have written a new token.
    File(PathBuf),
}

impl JoinToken {
    pub fn new(token: String) -> Self {
        Self { source: Source::Given(Zeroizing::new(token)) }
    }

    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { source: Source::File(path.into()) }
    }

    async fn token(&self) -> Result<Zeroizing<String>, AttestError> {
        match &self.source {
            Source::Given(token) => Ok(token.clone()),
            Source::File(path) => {
                let text = tokio::fs::read_to_string(path).await.map(Zeroizing::new);
                let text = text.map_err(|error| {
                    AttestError::Unavailable(format!(
                        "unable to read join token file {}: {error}",
                        path.display()
                    ))
                })?;
                Ok(Zeroizing::new(text.trim().to_owned()))
            }
        }
    }
}

impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.source {
            Source::Given(token) => write!(f, "JoinToken({} bytes, redacted)", token.len()),
            Source::File(path) => write!(f, "JoinToken(from {path:?})"),
        }
    }
}

#[async_trait]
impl AgentNodeAttestor for JoinToken {
    fn name(&self) -> &'static str {
        "join_token"
    }

    async fn begin(&self) -> Result<Box<dyn Attestation>, AttestError> {
        let token = self.token().await?;
        if token.is_empty() {
            // SPIRE's text.
            return Err(AttestError::InvalidArgument("join token was not provided".to_owned()));
        }
        Ok(Box::new(Begun(token)))
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

    #[tokio::test]
    async fn a_file_is_read_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let attestor = JoinToken::from_file(&path);
        assert!(matches!(attestor.begin().await, Err(AttestError::Unavailable(_))));
        std::fs::write(&path, "one\n").unwrap();
        assert_eq!(attestor.begin().await.unwrap().payload(), b"one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(attestor.begin().await.unwrap().payload(), b"two");
        std::fs::write(&path, " \n").unwrap();
        assert!(matches!(attestor.begin().await, Err(AttestError::InvalidArgument(_))));
    }
}
