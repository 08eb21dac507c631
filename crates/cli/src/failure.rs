//! The error of a command is what it prints: text, built like Go builds it (`context: cause`).

use std::error::Error;
use std::fmt;

use crate::connect::DialError;
use crate::go;

/// Why a command ends with exit code 1. Holds the line that is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Statuses and system errors are worded as Go words them; every other error says what it says.
/// (`Failure` itself is no `Error`, which keeps this conversion unambiguous.)
impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        if let Some(status) = error.downcast_ref::<tonic::Status>() {
            Self(status_text(status))
        } else if let Some(io) = error.downcast_ref::<std::io::Error>() {
            Self(go::io_error(io))
        } else {
            Self(error.to_string())
        }
    }
}

/// Puts a context before a failure: `unable to mint SVID: rpc error: …`.
pub trait Context<T> {
    fn context(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{what}: {}", error.into())))
    }
}

/// grpc-go: `rpc error: code = NotFound desc = …`; a call on a channel that could not dial is Unavailable.
fn status_text(status: &tonic::Status) -> String {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return format!(
                "rpc error: code = Unavailable desc = connection error: desc = \"transport: {dial}\""
            );
        }
        cause = error.source();
    }
    steeple_runtime::grpc::status_text(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_like_grpc_go() {
        let failure = Failure::from(tonic::Status::not_found("agent not found"));
        assert_eq!(failure.to_string(), "rpc error: code = NotFound desc = agent not found");
        let failure = Failure::from(tonic::Status::cancelled("x"));
        assert_eq!(failure.to_string(), "rpc error: code = Canceled desc = x");
    }

    #[test]
    fn a_context_comes_first() {
        let inner: Result<(), _> = Err(tonic::Status::internal("oh no"));
        let failure = inner.context("failed to set log level").err();
        assert_eq!(
            failure.map(|f| f.to_string()).as_deref(),
            Some("failed to set log level: rpc error: code = Internal desc = oh no")
        );
    }
}
