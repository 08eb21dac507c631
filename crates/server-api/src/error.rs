//! How a service's refusal becomes a gRPC status, a per-item status and a log line.

use std::fmt;

use prost::Message;
use steeple_proto::spire::api::types;
use steeple_proto::spire::api::types::permission_denied_details::Reason;
use tonic::{Code, Status};

/// A service's error: `Display` is what the client reads, `source` what went wrong underneath.
pub trait ApiError: std::error::Error {
    fn code(&self) -> Code;
    /// Attached to the status as `PermissionDeniedDetails`.
    fn reason(&self) -> Option<Reason> {
        None
    }
}

/// The status a client receives.
pub fn to_status(error: &impl ApiError) -> Status {
    match error.reason() {
        None => Status::new(error.code(), error.to_string()),
        Some(reason) => denied(error.code(), error.to_string(), reason),
    }
}

/// The status of one item of a batch.
pub fn to_item_status(error: &impl ApiError) -> types::Status {
    types::Status { code: error.code() as i32, message: error.to_string() }
}

/// SPIRE fills the status of items that went well.
pub fn item_ok() -> types::Status {
    types::Status { code: 0, message: "OK".to_owned() }
}

/// A status with the reason an agent acts on (spire.md §6.1).
pub fn denied(code: Code, message: String, reason: Reason) -> Status {
    let details = types::PermissionDeniedDetails { reason: reason as i32 };
    let any = prost_types::Any {
        type_url: "type.googleapis.com/spire.api.types.PermissionDeniedDetails".to_owned(),
        value: details.encode_to_vec(),
    };
    let rpc_status = RpcStatus { code: code as i32, message: message.clone(), details: vec![any] };
    Status::with_details(code, message, rpc_status.encode_to_vec().into())
}

/// The reason inside a status' details.
pub fn denied_reason(status: &Status) -> Option<Reason> {
    let rpc_status = RpcStatus::decode(status.details()).ok()?;
    rpc_status
        .details
        .iter()
        .find(|any| any.type_url.ends_with("/spire.api.types.PermissionDeniedDetails"))
        .and_then(|any| types::PermissionDeniedDetails::decode(any.value.as_slice()).ok())
        .map(|details| details.reason())
}

/// `google.rpc.Status`, the form of `grpc-status-details-bin`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// What SPIRE would log for a refusal: the situation without its cause, in the form of its level of detail.
pub(crate) fn log_text(error: &impl ApiError) -> (String, Option<String>) {
    let full = error.to_string();
    let cause = error.source().map(ToString::to_string);
    let short = match &cause {
        Some(cause) => full.strip_suffix(cause.as_str()).and_then(|s| s.strip_suffix(": ")).unwrap_or(&full),
        None => &full,
    };
    let text = if error.code() == Code::InvalidArgument {
        format!("Invalid argument: {short}")
    } else {
        capitalized(short)
    };
    (text, cause)
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// The cause of a refusal that an engine or the store gave, kept as text: the typed error has been judged already.
#[derive(Debug)]
pub struct Cause(pub String);

impl Cause {
    pub fn of(error: impl fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

/// What the store's refusal means to a client (SPIRE's codes).
pub fn store_code(error: &steeple_datastore::Error) -> Code {
    use steeple_datastore::Error;
    match error {
        Error::Invalid(_) | Error::BadPageToken(_) | Error::Authority(_) => Code::InvalidArgument,
        Error::AlreadyExists(_) => Code::AlreadyExists,
        Error::NotFound(_) => Code::NotFound,
        Error::FailedPrecondition(_) => Code::FailedPrecondition,
        Error::AgentBanned => Code::PermissionDenied,
        Error::Unavailable(_) => Code::Unavailable,
        Error::UnknownFederatedBundle(_) | Error::LogTruncated(_) | Error::Internal(_) => Code::Internal,
    }
}

#[cfg(test)]
mod tests;
