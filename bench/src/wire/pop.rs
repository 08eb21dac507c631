//! The agent's side of `x509pop`: a certificate of a CA made here, and the proof that its key is there.

use anyhow::{Context, Result};
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use steeple_runtime::clock;
use steeple_spiffe::x509::{
    CaTemplate, DistinguishedName, Issuer, LeafTemplate, SerialNumber, assemble, ca_tbs_self_signed, leaf_tbs,
};
use steeple_spiffe::{Certificate, KeyType, PrivateKey, SpiffeId, TrustDomain};

/// A certification authority of nodes.
#[derive(Debug)]
pub struct Authority {
    key: PrivateKey,
    issuer: Issuer,
    pub certificate: Certificate,
}

/// A node's certificate and key.
#[derive(Debug)]
pub struct Proof {
    key: PrivateKey,
    certificate: Vec<u8>,
}

const KEY: KeyType = KeyType::EcP256;
const HOUR: i64 = 3600;

impl Authority {
    pub fn new() -> Result<Self> {
        let (key, now) = (PrivateKey::generate(KEY)?, clock::system().now());
        let algorithm = KEY.x509_signature_algorithm();
        let template = CaTemplate {
            trust_domain: TrustDomain::new("nodes.example")?,
            public_key: key.public_key(),
            subject: DistinguishedName::default_svid(),
            not_before: now - HOUR,
            not_after: now + 24 * HOUR,
            serial: SerialNumber::random()?,
        };
        let tbs = ca_tbs_self_signed(&template, algorithm)?;
        let certificate = Certificate::from_der(&assemble(&tbs, algorithm, &key.sign(algorithm, &tbs)?))?;
        Ok(Self { issuer: Issuer::from_certificate(&certificate, algorithm), key, certificate })
    }

    pub fn node(&self, name: &str) -> Result<Proof> {
        let (key, now) = (PrivateKey::generate(KEY)?, clock::system().now());
        let template = LeafTemplate {
            spiffe_id: SpiffeId::parse(&format!("spiffe://nodes.example/{name}"))?,
            public_key: key.public_key(),
            not_before: now - HOUR,
            not_after: now + 24 * HOUR,
            dns_names: Vec::new(),
            subject: None,
            serial: SerialNumber::random()?,
        };
        let tbs = leaf_tbs(&template, &self.issuer)?;
        let signature = self.key.sign(self.issuer.algorithm, &tbs)?;
        Ok(Proof { key, certificate: assemble(&tbs, self.issuer.algorithm, &signature) })
    }
}

impl Proof {
    pub fn payload(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(&json!({ "certificates": [STANDARD.encode(&self.certificate)] }))?)
    }

    /// Signs both nonces, the server's first (SPIRE's `x509pop`).
    pub fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>> {
        let challenge: Value = serde_json::from_slice(challenge)?;
        let theirs = challenge["ecdsa_signature"]["nonce"].as_str().context("x509pop: no ECDSA challenge")?;
        let mut nonce = [0; 32];
        rand::fill(&mut nonce).ok().context("no random bytes")?;
        let signed = [STANDARD.decode(theirs)?, nonce.to_vec()].concat();
        let signature = self.key.sign(KEY.x509_signature_algorithm(), &signed)?;
        let (r, s) = numbers(&signature).context("x509pop: the signature is not in ASN.1")?;
        let [nonce, r, s] = [&nonce[..], r, s].map(|bytes| STANDARD.encode(bytes));
        Ok(serde_json::to_vec(
            &json!({ "rsa_signature": null, "ecdsa_signature": { "nonce": nonce, "r": r, "s": s } }),
        )?)
    }
}

/// The two numbers of an ECDSA signature, big-endian.
fn numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let [0x30, _, 2, r_len, rest @ ..] = der else { return None };
    let (r, rest) = rest.split_at_checked(usize::from(*r_len))?;
    let [2, s_len, s @ ..] = rest else { return None };
    (s.len() == usize::from(*s_len)).then_some((r, s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_two_numbers() {
        assert_eq!(numbers(&[0x30, 7, 2, 2, 0, 0x80, 2, 1, 5]), Some((&[0, 0x80][..], &[5][..])));
        for bad in [&[][..], &[0x30, 7, 2, 9, 0], &[0x30, 4, 2, 1, 1, 2, 2]] {
            assert_eq!(numbers(bad), None);
        }
    }
}
