//! Host keys: OpenSSH's own form, and the PEM forms it wrote before.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPairComponents, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::key::{Curve, Signature};
use super::wire::{self, Reader};
use crate::node_attestor::ecdsa;

/// A host's key. The library wipes what it holds.
pub enum PrivateKey {
    Rsa(RsaKeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";

impl PrivateKey {
    pub fn from_text(text: &str) -> Result<Self, &'static str> {
        if let Some((_, rest)) = text.split_once(BEGIN) {
            let (body, _) = rest.split_once(END).ok_or("the OPENSSH PRIVATE KEY block is cut off")?;
            let body = Zeroizing::new(body.split_whitespace().collect::<String>());
            let blob = Zeroizing::new(STANDARD.decode(body.as_bytes()).map_err(|_| "malformed base64")?);
            return from_openssh(&blob);
        }
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| "no private key found")?;
        from_der(&der)
    }

    pub fn sign(&self, data: &[u8]) -> Result<Signature, &'static str> {
        const FAILED: &str = "signing failed in the crypto library";
        let (format, blob) = match self {
            Self::Rsa(pair) => {
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), data, &mut out).map_err(|_| FAILED)?;
                ("rsa-sha2-256".to_owned(), out)
            }
            Self::Ecdsa(curve, pair) => {
                let der = pair.sign(&SystemRandom::new(), data).map_err(|_| FAILED)?;
                let (r, s) = ecdsa::from_der(der.as_ref()).ok_or(FAILED)?;
                let mut out = Vec::new();
                wire::put_unsigned(&mut out, r);
                wire::put_unsigned(&mut out, s);
                (format!("ecdsa-sha2-{}", curve.name()), out)
            }
            Self::Ed25519(pair) => ("ssh-ed25519".to_owned(), pair.sign(data).as_ref().to_vec()),
        };
        Ok(Signature { format, blob })
    }
}

fn from_der(der: &PrivateKeyDer<'_>) -> Result<PrivateKey, &'static str> {
    let bytes = der.secret_der();
    for curve in Curve::ALL {
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(algorithm(curve), bytes) {
            return Ok(PrivateKey::Ecdsa(curve, pair));
        }
    }
    let rsa = match der {
        PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes),
        _ => RsaKeyPair::from_pkcs8(bytes),
    };
    rsa.map(PrivateKey::Rsa)
        .or_else(|_| Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map(PrivateKey::Ed25519))
        .map_err(|_| "the key is neither RSA (2048 to 8192 bits), ECDSA nor Ed25519")
}

fn algorithm(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_ASN1_SIGNING,
        Curve::P384 => &ECDSA_P384_SHA384_ASN1_SIGNING,
        Curve::P521 => &ECDSA_P521_SHA512_ASN1_SIGNING,
    }
}

/// PROTOCOL.key of OpenSSH.
fn from_openssh(blob: &[u8]) -> Result<PrivateKey, &'static str> {
    const MALFORMED: &str = "malformed OpenSSH private key";
    let mut reader = Reader(blob.strip_prefix(MAGIC).ok_or(MALFORMED)?);
    let (cipher, kdf) = reader.text().zip(reader.text()).ok_or(MALFORMED)?;
    if cipher != "none" || kdf != "none" {
        return Err("the key has a passphrase; host keys have none");
    }
    reader.bytes().ok_or(MALFORMED)?;
    if reader.u32() != Some(1) {
        return Err("the file holds more than one key");
    }
    reader.bytes().ok_or(MALFORMED)?;
    let mut reader = Reader(reader.bytes().ok_or(MALFORMED)?);
    let (first, second) = reader.u32().zip(reader.u32()).ok_or(MALFORMED)?;
    if first != second {
        return Err(MALFORMED);
    }
    let name = reader.text().ok_or(MALFORMED)?;
    if let Some(curve) =
        Curve::ALL.into_iter().find(|curve| name.strip_prefix("ecdsa-sha2-") == Some(curve.name()))
    {
        let (named, point) = reader.text().zip(reader.bytes()).ok_or(MALFORMED)?;
        let number = reader.unsigned().ok_or(MALFORMED)?;
        if named != curve.name() {
            return Err(MALFORMED);
        }
        let width = point.len() / 2;
        let mut scalar = Zeroizing::new(vec![0; width]);
        let at = width.checked_sub(number.len()).ok_or(MALFORMED)?;
        scalar[at..].copy_from_slice(number);
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm(curve), &scalar, point);
        return pair.map(|pair| PrivateKey::Ecdsa(curve, pair)).map_err(|_| MALFORMED);
    }
    match name {
        "ssh-ed25519" => {
            let (public, secret) = reader.bytes().zip(reader.bytes()).ok_or(MALFORMED)?;
            let seed = secret.get(..32).ok_or(MALFORMED)?;
            let pair = Ed25519KeyPair::from_seed_and_public_key(seed, public).map_err(|_| MALFORMED)?;
            Ok(PrivateKey::Ed25519(pair))
        }
        "ssh-rsa" => rsa(&mut reader).ok_or(MALFORMED).map(PrivateKey::Rsa),
        _ => Err("the key is neither RSA, ECDSA nor Ed25519"),
    }
}

#[allow(clippy::many_single_char_names, reason = "the names of RFC 8017")]
fn rsa(reader: &mut Reader<'_>) -> Option<RsaKeyPair> {
    let (n, e, d) = (reader.unsigned()?, reader.unsigned()?, reader.unsigned()?);
    let (inverse, p, q) = (reader.unsigned()?, reader.unsigned()?, reader.unsigned()?);
    // OpenSSH leaves out d mod p-1 and d mod q-1.
    let (d_p, d_q) = (remainder(d, &less_one(p)), remainder(d, &less_one(q)));
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: d_p.as_slice(),
        dQ: d_q.as_slice(),
        qInv: inverse,
    };
    RsaKeyPair::from_components(&components).ok()
}

/// Primes are odd: the last digit alone changes.
fn less_one(prime: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(prime.to_vec());
    if let Some(last) = out.last_mut() {
        *last &= !1;
    }
    out
}

/// Big-endian `number` modulo `modulus`, bit by bit: once for each key, at start.
fn remainder(number: &[u8], modulus: &[u8]) -> Zeroizing<Vec<u8>> {
    let width = modulus.len() + 1;
    let mut wide = Zeroizing::new(vec![0; width]);
    wide[1..].copy_from_slice(modulus);
    let mut rest = Zeroizing::new(vec![0_u8; width]);
    for bit in number.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)) {
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            let high = *byte >> 7;
            *byte = *byte << 1 | carry;
            carry = high;
        }
        if rest.as_slice() >= wide.as_slice() {
            let mut borrow = false;
            for (byte, less) in rest.iter_mut().zip(wide.iter()).rev() {
                let (difference, under) = byte.overflowing_sub(*less);
                let (difference, under_more) = difference.overflowing_sub(u8::from(borrow));
                *byte = difference;
                borrow = under || under_more;
            }
        }
    }
    rest
}

impl PrivateKey {
    /// Whether it is the private half of `key`.
    pub fn is_of(&self, key: &super::key::PublicKey) -> bool {
        match self {
            Self::Rsa(pair) => {
                // RSAPublicKey ::= SEQUENCE { n, e }
                key.rsa_modulus()
                    .is_some_and(|n| pair.public_key().as_ref().windows(n.len()).any(|part| part == n))
            }
            Self::Ecdsa(_, pair) => key.blob().ends_with(pair.public_key().as_ref()),
            Self::Ed25519(pair) => key.blob().ends_with(pair.public_key().as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::remainder;

    #[test]
    fn remainders() {
        for (number, modulus) in [(1_000_003_u32, 97_u8), (255, 255), (7, 200), (0, 3), (u32::MAX, 251)] {
            let got = remainder(&number.to_be_bytes(), &[modulus]);
            assert_eq!(got.as_slice(), [0, (number % u32::from(modulus)) as u8], "{number} % {modulus}");
        }
        let got = remainder(&u64::MAX.to_be_bytes(), &[0xff, 0xf0]);
        assert_eq!(got.as_slice(), [&[0][..], &((u64::MAX % 0xfff0) as u16).to_be_bytes()].concat());
    }
}
