//! An X509-SVID with its private key.

use super::verify::check_leaf;
use super::{Certificate, X509Error};
use crate::id::SpiffeId;
use crate::key::PrivateKey;

/// A workload's certificate chain, leaf first, and the leaf's key.
#[derive(Debug)]
pub struct X509Svid {
    id: SpiffeId,
    chain: Vec<Certificate>,
    key: PrivateKey,
}

impl X509Svid {
    /// Joins chain and key after checking what X509-SVID asks of an issued SVID (§2 to §4): one URI SAN with a
    /// path, leaf flags, signing certificates behind it, and the key being the leaf's. The chain is not
    /// validated against a bundle: see [`super::verify_svid`].
    pub fn new(chain: Vec<Certificate>, key: PrivateKey) -> Result<Self, X509Error> {
        let Some((leaf, signers)) = chain.split_first() else {
            return Err(X509Error::NoCertificates);
        };
        let id = check_leaf(leaf)?;
        if !leaf.key_usage().is_some_and(super::KeyUsage::digital_signature) {
            return Err(X509Error::NotAnSvid(
                "leaf certificate must have 'digitalSignature' set as key usage",
            ));
        }
        for signer in signers {
            if !signer.is_ca() {
                return Err(X509Error::NotAnSvid("signing certificate must have CA flag set to true"));
            }
            if !signer.key_usage().is_some_and(super::KeyUsage::cert_sign) {
                return Err(X509Error::NotAnSvid(
                    "signing certificate must have 'keyCertSign' set as key usage",
                ));
            }
        }
        if leaf.public_key() != key.public_key() {
            return Err(X509Error::KeyMismatch);
        }
        Ok(Self { id, chain, key })
    }

    /// From the bytes the Workload API carries: concatenated DER and PKCS#8 DER.
    pub fn from_der(chain: &[u8], pkcs8: &[u8]) -> Result<Self, X509Error> {
        Self::new(Certificate::many_from_der(chain)?, PrivateKey::from_pkcs8_der(pkcs8)?)
    }

    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Leaf first.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    pub fn leaf(&self) -> &Certificate {
        &self.chain[0]
    }

    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The chain as the Workload API carries it.
    pub fn chain_der(&self) -> Vec<u8> {
        self.chain.iter().flat_map(|certificate| certificate.der().iter().copied()).collect()
    }
}
