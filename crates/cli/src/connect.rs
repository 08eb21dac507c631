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
#[error("Error while dialing: dial unix {shown}: connect: {}", go::io_error(.source))]
pub struct DialError {
    shown: String,
    source: io::Error,
}

/// A channel to the Unix socket at `path`; `shown` is how messages name it. Needs a tokio runtime.
pub fn connect_unix(path: &str, shown: &str) -> Result<Channel, Failure> {
    let (path, shown) = (PathBuf::from(path), shown.to_owned());
    // The URI only names the service; grpc-go sends this authority on a Unix socket, too.
    let endpoint = Endpoint::try_from("http://localhost")?;
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_| {
        let (path, shown) = (path.clone(), shown.clone());
        async move {
            match UnixStream::connect(path).await {
                Ok(stream) => Ok(TokioIo::new(stream)),
                Err(source) => Err(DialError { shown, source }),
            }
        }
    })))
}
