//! A gRPC channel over a Unix socket, dialled at the first call as grpc-go does.

use std::io;
use std::path::PathBuf;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{Failure, go};

/// Why the socket could not be dialled, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("Error while dialing: dial unix{}", self.why())]
pub struct DialError {
    shown: String,
    source: io::Error,
}

impl DialError {
    fn why(&self) -> String {
        let shown = &self.shown;
        match self.source.kind() {
            io::ErrorKind::InvalidInput if shown.is_empty() => ": missing address".to_owned(),
            // Longer than a socket's address can be: Rust refuses it before the kernel does.
            io::ErrorKind::InvalidInput => format!(" {shown}: connect: invalid argument"),
            _ => format!(" {shown}: connect: {}", go::io_error(&self.source)),
        }
    }
}

/// A channel to the Unix socket at `path`; `shown` is how messages name it. Needs a tokio runtime.
pub fn connect_unix(path: &str, shown: &str) -> Result<Channel, Failure> {
    let (path, shown) = (PathBuf::from(path), shown.to_owned());
    // The URI only names the service; grpc-go sends this authority on a Unix socket, too.
    let endpoint = Endpoint::try_from("http://localhost")?;
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_| {
        let (path, shown) = (path.clone(), shown.clone());
        async move {
            // An empty address would be an abstract socket's.
            let connected = if path.as_os_str().is_empty() {
                Err(io::ErrorKind::InvalidInput.into())
            } else {
                UnixStream::connect(path).await
            };
            match connected {
                Ok(stream) => Ok(TokioIo::new(stream)),
                Err(source) => Err(DialError { shown, source }),
            }
        }
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dial_errors_read_like_gos() {
        let error = |shown: &str, source: io::Error| DialError { shown: shown.into(), source }.to_string();
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(
            error("/x", missing),
            "Error while dialing: dial unix /x: connect: no such file or directory"
        );
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        assert_eq!(error("/x", invalid()), "Error while dialing: dial unix /x: connect: invalid argument");
        assert_eq!(error("", invalid()), "Error while dialing: dial unix: missing address");
    }
}
