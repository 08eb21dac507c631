//! The messages, in SPIRE's JSON.

use serde::{Deserialize, Deserializer, Serialize};

use crate::node_attestor::bytes::Bytes;

#[derive(Serialize, Deserialize)]
pub struct Payload {
    /// DER, leaf first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub certificates: Vec<Bytes>,
}

/// One of both; the other is null.
#[derive(Serialize, Deserialize)]
pub struct Challenge {
    #[serde(default)]
    pub rsa_signature: Option<NonceOnly>,
    #[serde(default)]
    pub ecdsa_signature: Option<NonceOnly>,
}

#[derive(Serialize, Deserialize)]
pub struct NonceOnly {
    pub nonce: Bytes,
}

#[derive(Default, Serialize, Deserialize)]
pub struct Response {
    #[serde(default)]
    pub rsa_signature: Option<RsaSignature>,
    #[serde(default)]
    pub ecdsa_signature: Option<EcdsaSignature>,
}

#[derive(Serialize, Deserialize)]
pub struct RsaSignature {
    #[serde(default)]
    pub nonce: Bytes,
    #[serde(default)]
    pub signature: Bytes,
}

#[derive(Serialize, Deserialize)]
pub struct EcdsaSignature {
    #[serde(default)]
    pub nonce: Bytes,
    #[serde(default)]
    pub r: Bytes,
    #[serde(default)]
    pub s: Bytes,
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
