//! The messages: JSON with the names of Go's fields.

use serde::{Deserialize, Serialize};

use crate::node_attestor::bytes::Bytes;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Payload {
    #[serde(default)]
    pub certificate: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Challenge {
    #[serde(default)]
    pub nonce: Bytes,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Response {
    #[serde(default)]
    pub nonce: Bytes,
    #[serde(default)]
    pub signature: Option<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Signature {
    #[serde(default)]
    pub format: String,
    #[serde(default)]
    pub blob: Bytes,
    /// Security keys have more to say; hosts do not.
    #[serde(default)]
    pub rest: Option<Bytes>,
}
