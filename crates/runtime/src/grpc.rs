//! Settings every gRPC endpoint shares.

use std::time::Duration;

use tonic::transport::{Server, server::Router};

/// Go's default for one received message. tonic sets it for each service: `max_decoding_message_size`.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// SPIRE closes a TCP connection this old, so that agents spread over new servers and new certificates are seen.
pub const MAX_CONNECTION_AGE: Duration = Duration::from_mins(3);
const KEEPALIVE_INTERVAL: Duration = Duration::from_mins(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Small windows: an idle or stalled stream must not hold much memory. Requests here are small.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
const MAX_STREAMS: u32 = 1_000;
const MAX_HEADERS: u32 = 16 * 1024;

/// A server over TCP: connections are closed when they are [`MAX_CONNECTION_AGE`] old.
pub fn tcp_server() -> Server {
    server_builder().max_connection_age(MAX_CONNECTION_AGE)
}

/// A server over a Unix socket: connections live as long as their callers.
pub fn server_builder() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_header_list_size(MAX_HEADERS)
}

/// The name Go gives a status code: the `status` label of call counters, the audit log, the commands' messages.
pub fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// How Go prints a status as an error: `rpc error: code = NotFound desc = agent not found`.
pub fn status_text(status: &tonic::Status) -> String {
    format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message())
}

/// A tonic router, named so that wiring code need not spell its type.
pub type Services = Router;
