//! SPIRE's `agent-data.json`: the agent's own SVID and the bundle it trusts, so that either program can take over from
//! the other. Each certificate is a base64-encoded PEM block.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use steeple_spiffe::Certificate;

/// What survives a restart.
#[derive(Clone, Debug, Default)]
pub struct AgentData {
    /// Leaf first; empty if the agent has none.
    pub svid: Vec<Certificate>,
    pub bundle: Vec<Certificate>,
    pub reattestable: bool,
    /// SPIRE's rebootstrap state, kept as it is.
    pub bootstrap: BootstrapState,
}

/// Members of the file that belong to rebootstrapping. We keep them for SPIRE's agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootstrapState {
    /// 0 unspecified, 1 bootstrap, 2 rebootstrap.
    #[serde(default)]
    pub bootstrap_use: i64,
    /// RFC 3339, or Go's zero time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_start_time: Option<String>,
    #[serde(default)]
    pub connection_attempts: i64,
}

/// Why the file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AgentDataError {
    #[error("not JSON as SPIRE writes it: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{member}[{index}] is not a base64-encoded PEM certificate: {reason}")]
    Certificate { member: &'static str, index: usize, reason: String },
}

impl AgentData {
    pub fn from_json(text: &[u8]) -> Result<Self, AgentDataError> {
        let file: File = serde_json::from_slice(text)?;
        Ok(Self {
            svid: certificates("svid", &file.svid.unwrap_or_default())?,
            bundle: certificates("bundle", &file.bundle.unwrap_or_default())?,
            reattestable: file.reattestable,
            bootstrap: file.bootstrap,
        })
    }

    /// The file's bytes, in the form SPIRE writes (one line).
    pub fn to_json(&self) -> Result<Vec<u8>, AgentDataError> {
        let file = File {
            svid: Some(encoded(&self.svid)),
            bundle: Some(encoded(&self.bundle)),
            reattestable: self.reattestable,
            bootstrap: self.bootstrap.clone(),
        };
        Ok(serde_json::to_vec(&file)?)
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(default)]
    svid: Option<Vec<String>>,
    #[serde(default)]
    bundle: Option<Vec<String>>,
    #[serde(default)]
    reattestable: bool,
    #[serde(flatten)]
    bootstrap: BootstrapState,
}

fn encoded(certificates: &[Certificate]) -> Vec<String> {
    certificates.iter().map(|certificate| STANDARD.encode(certificate.to_pem())).collect()
}

fn certificates(member: &'static str, encoded: &[String]) -> Result<Vec<Certificate>, AgentDataError> {
    let bad = |index, reason| AgentDataError::Certificate { member, index, reason };
    let mut certificates = Vec::with_capacity(encoded.len());
    for (index, text) in encoded.iter().enumerate() {
        let pem = STANDARD.decode(text).map_err(|error| bad(index, error.to_string()))?;
        let pem = String::from_utf8(pem).map_err(|error| bad(index, error.to_string()))?;
        let found = Certificate::from_pem(&pem).map_err(|error| bad(index, error.to_string()))?;
        certificates.extend(found);
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use steeple_spiffe::{KeyType, PrivateKey, SpiffeId};

    use super::*;

    fn certificate() -> Certificate {
        use steeple_spiffe::x509;
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let template = x509::CaTemplate {
            trust_domain: SpiffeId::parse("spiffe://example.org").unwrap().trust_domain(),
            public_key: key.public_key(),
            subject: x509::DistinguishedName::default_ca(),
            not_before: 0,
            not_after: 4_000_000_000,
            serial: x509::SerialNumber::random().unwrap(),
        };
        let algorithm = KeyType::EcP256.x509_signature_algorithm();
        let tbs = x509::ca_tbs_self_signed(&template, algorithm).unwrap();
        let signature = key.sign(algorithm, &tbs).unwrap();
        Certificate::from_der(&x509::assemble(&tbs, algorithm, &signature)).unwrap()
    }

    #[test]
    fn survives_a_round_trip_and_keeps_spires_members() {
        let data = AgentData {
            svid: vec![certificate()],
            bundle: vec![certificate(), certificate()],
            reattestable: true,
            bootstrap: BootstrapState {
                bootstrap_use: 2,
                bootstrap_start_time: Some("0001-01-01T00:00:00Z".into()),
                connection_attempts: 3,
            },
        };
        let text = data.to_json().unwrap();
        let read = AgentData::from_json(&text).unwrap();
        assert_eq!(read.svid[0].der(), data.svid[0].der());
        assert_eq!(read.bundle.len(), 2);
        assert_eq!((read.reattestable, &read.bootstrap), (true, &data.bootstrap));
        assert_eq!(read.to_json().unwrap(), text);
    }

    #[test]
    fn empty_and_null_lists_are_no_identity() {
        for text in ["{}", r#"{"svid":null,"bundle":null}"#, r#"{"svid":[],"bundle":[]}"#] {
            assert!(AgentData::from_json(text.as_bytes()).unwrap().svid.is_empty());
        }
    }

    #[test]
    fn damage_is_named() {
        let error = AgentData::from_json(br#"{"svid":["!"]}"#).unwrap_err().to_string();
        assert!(error.starts_with("svid[0] is not"), "{error}");
        assert!(AgentData::from_json(b"{").is_err());
    }
}
