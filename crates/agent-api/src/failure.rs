//! What went wrong between agent and server, in words that say what to do.

use std::error::Error;
use std::fmt;

use prost::Message;
use steeple_agent_core::node::Denial;
use steeple_plugin::AttestError;
use steeple_proto::spire::api::types::{PermissionDeniedDetails, permission_denied_details::Reason};
use tonic::{Code, Status};

/// A call to the server that failed.
#[derive(Debug)]
pub struct ServerError {
    pub code: Code,
    /// Why this agent is refused, where the server says so.
    pub denial: Option<Denial>,
    text: String,
}

impl ServerError {
    pub(crate) fn new(what: &str, status: &Status) -> Self {
        let text = advised(format!("{what}: {}", chain(status)));
        Self { code: status.code(), denial: denial(status), text }
    }

    pub(crate) fn other(text: impl Into<String>) -> Self {
        Self { code: Code::Unknown, denial: None, text: text.into() }
    }

    /// The node attestor cannot do its part.
    pub(crate) fn attestor(name: &str, error: &AttestError) -> Self {
        let code = match error {
            AttestError::InvalidArgument(_) => Code::InvalidArgument,
            AttestError::PermissionDenied(_) => Code::PermissionDenied,
            AttestError::Unavailable(_) => Code::Unavailable,
            AttestError::Internal(_) => Code::Internal,
        };
        Self { code, denial: None, text: advised(format!("nodeattestor({name}): {error}")) }
    }

    pub(crate) fn timed_out(what: &str) -> Self {
        Self {
            code: Code::DeadlineExceeded,
            denial: None,
            text: format!("{what}: the server did not answer in time"),
        }
    }

    /// The text without what the call was for.
    pub(crate) fn after(&self, what: &str) -> &str {
        self.text.strip_prefix(what).and_then(|text| text.strip_prefix(": ")).unwrap_or(&self.text)
    }

    /// The server's certificate is under no authority of the trust bundle.
    pub(crate) fn is_unknown_authority(&self) -> bool {
        self.text.contains("certificate signed by unknown authority")
    }

    /// The server is one of another trust domain.
    pub(crate) fn is_another_trust_domain(&self) -> bool {
        OTHER_TRUST_DOMAIN.iter().any(|part| self.text.contains(part))
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for ServerError {}

/// What the verification of the server's certificate says then.
const OTHER_TRUST_DOMAIN: [&str; 2] = ["unexpected ID", "no X.509 bundle for trust domain"];

/// The status and whatever caused it, each text once.
fn chain(status: &Status) -> String {
    let mut text = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
    let mut source = status.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

fn advised(mut text: String) -> String {
    if let Some(advice) = advice(&text) {
        text.push_str("; ");
        text.push_str(advice);
    }
    text
}

/// What an operator does about the mistakes that are made most often.
fn advice(text: &str) -> Option<&'static str> {
    let has = |part: &str| text.contains(part);
    if has("not yet valid") {
        Some("check that the clocks of this machine and of the server agree")
    } else if OTHER_TRUST_DOMAIN.iter().any(|part| has(part)) {
        Some("check that trust_domain and server_address belong to the same SPIRE server")
    } else if has("unknown authority") || has("could not verify leaf certificate") {
        Some(
            "the server's certificate was not issued under this agent's trust bundle: check server_address and \
             the bootstrap bundle (trust_bundle_path, trust_bundle_url); if the trust domain was set up anew, \
             remove the agent's data_dir",
        )
    } else if has("join token does not exist or has already been used") {
        Some("each token attests one agent once: make a new one with `spire-server token generate`")
    } else if has("join token expired") {
        Some("make a new one with `spire-server token generate`")
    } else if has("join token was not provided") {
        Some("start the agent with -joinToken or -joinTokenFile")
    } else if has("Connection refused") || has("tcp connect error") {
        Some("check that the server runs and that server_address and server_port are right")
    } else {
        None
    }
}

fn denial(status: &Status) -> Option<Denial> {
    if status.code() != Code::PermissionDenied {
        return None;
    }
    let details = RpcStatus::decode(status.details()).ok()?;
    let any = details.details.iter().find(|any| any.type_url.ends_with("PermissionDeniedDetails"))?;
    match PermissionDeniedDetails::decode(&*any.value).ok()?.reason() {
        Reason::AgentExpired => Some(Denial::Expired),
        Reason::AgentNotAttested => Some(Denial::NotAttested),
        Reason::AgentNotActive => Some(Denial::NotActive),
        Reason::AgentBanned => Some(Denial::Banned),
        Reason::AgentMustReattest => Some(Denial::MustReattest),
        Reason::Unknown => None,
    }
}

/// `google.rpc.Status`, as far as it is needed.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_read_from_the_details() {
        let inner = PermissionDeniedDetails { reason: Reason::AgentBanned.into() };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/spire.api.types.PermissionDeniedDetails".into(),
            value: inner.encode_to_vec(),
        };
        let details = RpcStatus { details: vec![any] }.encode_to_vec();
        let status = Status::with_details(Code::PermissionDenied, "no", details.into());
        let error = ServerError::new("renew", &status);
        assert_eq!(error.denial, Some(Denial::Banned));
        assert_eq!(ServerError::new("renew", &Status::permission_denied("no")).denial, None);
    }

    #[test]
    fn the_cause_is_told_without_the_purpose() {
        let error = ServerError::new("renew", &Status::internal("no"));
        assert_eq!(error.to_string(), "renew: rpc error: code = Internal desc = no");
        assert_eq!(error.after("renew"), "rpc error: code = Internal desc = no");
        assert_eq!(error.after("attest"), error.to_string());
    }

    #[test]
    fn common_mistakes_come_with_advice() {
        for (message, advice) in [
            ("failed to attest: join token does not exist or has already been used", "token generate"),
            ("join token expired", "token generate"),
            ("x509svid: certificate has expired or is not yet valid", "clocks"),
            ("unexpected ID \"spiffe://b/spire/server\"", "trust_domain"),
            ("certificate signed by unknown authority", "trust bundle"),
            ("tcp connect error", "server_port"),
        ] {
            let text = ServerError::new("attest", &Status::unavailable(message)).to_string();
            assert!(text.contains(message) && text.contains(advice), "{text}");
        }
    }
}
