//! Settings every gRPC endpoint shares.

use std::time::Duration;

use tonic::transport::{Server, server::Router};

/// Go's default for one received message. tonic sets it for each service: `max_decoding_message_size`.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// SPIRE closes a TCP connection this old, so that agents spread over new servers and new certificates are seen.
pub const MAX_CONNECTION_AGE: Duration = Duration::from_mins(3);
/// Metadata key of our agents' BatchNewX509SVID calls: what the batch is for, `waiting`, `expiring` or `prefetch`, in
/// the order in which a busy server signs. Absent or anything else = `waiting`. SPIRE's servers ignore it.
pub const PRIORITY_KEY: &str = "steeple-priority";
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

/// How long the caller waits for an answer: `grpc-timeout`, digits and a unit (gRPC over HTTP/2).
pub fn timeout(headers: &http::HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => count.checked_mul(3600).map(Duration::from_secs),
        "M" => count.checked_mul(60).map(Duration::from_secs),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// A tonic router, named so that wiring code need not spell its type.
pub type Services = Router;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_units() {
        let read = |value: &'static str| {
            timeout(&http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-timeout"),
                http::HeaderValue::from_static(value),
            )]))
        };
        assert_eq!(read("1H"), Some(Duration::from_hours(1)));
        assert_eq!(read("2M"), Some(Duration::from_mins(2)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("4m"), Some(Duration::from_millis(4)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("6n"), Some(Duration::from_nanos(6)));
        for bad in ["", "S", "1", "1d", "-1S", "99999999999999999999S", "18446744073709551615H"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(timeout(&http::HeaderMap::new()), None);
    }
}
