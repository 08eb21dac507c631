//! SSH public keys and what they sign (RFC 4253 §6.6, RFC 5656, RFC 8332, RFC 8709).

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1, ED25519, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::wire::{self, Reader};
use crate::node_attestor::ecdsa;

/// A public key. Equal when its wire form is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    blob: Vec<u8>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ecdsa { curve: Curve, point: Vec<u8> },
    Ed25519(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    pub fn name(self) -> &'static str {
        match self {
            Self::P256 => "nistp256",
            Self::P384 => "nistp384",
            Self::P521 => "nistp521",
        }
    }
}

/// Key types that keys and certificates may have. SPIRE's library knows DSA and security keys (sk-…) besides; hosts have
/// neither.
const TYPES: [&str; 5] =
    ["ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-ed25519"];

/// What a caller may make us calculate with (SPIRE: 16384 bits; the crypto library: 8192).
const MAX_RSA_BYTES: usize = 8192 / 8;
const MIN_RSA_BYTES: usize = 2048 / 8;
const MAX_EXPONENT_BYTES: usize = 3;

impl PublicKey {
    /// From the wire form; all of it.
    pub fn from_blob(blob: &[u8]) -> Result<Self, &'static str> {
        let mut reader = Reader(blob);
        let name = reader.text().ok_or("malformed key")?;
        let kind = read_fields(name, &mut reader)?;
        if !reader.is_empty() {
            return Err("trailing junk in public key");
        }
        Ok(Self { blob: blob.to_vec(), kind })
    }

    pub(super) fn new(name: &str, kind: Kind) -> Self {
        let mut blob = Vec::new();
        wire::put(&mut blob, name.as_bytes());
        match &kind {
            Kind::Rsa { n, e } => {
                wire::put_unsigned(&mut blob, e);
                wire::put_unsigned(&mut blob, n);
            }
            Kind::Ecdsa { curve, point } => {
                wire::put(&mut blob, curve.name().as_bytes());
                wire::put(&mut blob, point);
            }
            Kind::Ed25519(key) => wire::put(&mut blob, key),
        }
        Self { blob, kind }
    }

    pub fn rsa_modulus(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Rsa { n, .. } => Some(n),
            _ => None,
        }
    }

    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// Checks a signature over `data`. Proofs of SPIRE's agents with RSA keys are made with SHA-1; what is signed is
    /// fresh and half our own, so collisions are of no use there. Certificates are another matter: `sha1` says.
    pub fn verify(&self, data: &[u8], signature: &Signature, sha1: bool) -> Result<(), String> {
        let mismatch = || format!("ssh: signature type {} does not go with the key", signature.format);
        let failed = |_| "ssh: signature does not verify".to_owned();
        let check = |algorithm: &'static dyn VerificationAlgorithm, key: &[u8], blob: &[u8]| {
            UnparsedPublicKey::new(algorithm, key).verify(data, blob).map_err(failed)
        };
        match &self.kind {
            Kind::Rsa { n, e } => {
                let algorithm = match signature.format.as_str() {
                    "rsa-sha2-256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "rsa-sha2-512" => &signature::RSA_PKCS1_2048_8192_SHA512,
                    "ssh-rsa" if sha1 => &signature::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY,
                    "ssh-rsa" => {
                        return Err(
                            "ssh: certificates signed with SHA-1 (ssh-rsa) are not accepted".to_owned()
                        );
                    }
                    _ => return Err(mismatch()),
                };
                let key = signature::RsaPublicKeyComponents { n, e };
                key.verify(algorithm, data, &signature.blob).map_err(failed)
            }
            Kind::Ecdsa { curve, point } => {
                if signature.format.strip_prefix("ecdsa-sha2-") != Some(curve.name()) {
                    return Err(mismatch());
                }
                let mut reader = Reader(&signature.blob);
                let numbers = reader.unsigned().zip(reader.unsigned()).filter(|_| reader.is_empty());
                let der = numbers.and_then(|(r, s)| ecdsa::to_der(r, s)).ok_or("ssh: malformed signature")?;
                match curve {
                    Curve::P256 => check(&ECDSA_P256_SHA256_ASN1, point, &der),
                    Curve::P384 => check(&ECDSA_P384_SHA384_ASN1, point, &der),
                    Curve::P521 => check(&ECDSA_P521_SHA512_ASN1, point, &der),
                }
            }
            Kind::Ed25519(key) => {
                if signature.format != "ssh-ed25519" {
                    return Err(mismatch());
                }
                check(&ED25519, key, &signature.blob)
            }
        }
    }
}

/// A signature and how it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    pub format: String,
    pub blob: Vec<u8>,
}

impl Signature {
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let (format, blob) = (reader.text()?.to_owned(), reader.bytes()?.to_vec());
        reader.is_empty().then_some(Self { format, blob })
    }
}

/// The fields of a key behind its name; those of a certificate have the same.
pub(super) fn read_fields(name: &str, reader: &mut Reader<'_>) -> Result<Kind, &'static str> {
    const MALFORMED: &str = "malformed key";
    if !TYPES.contains(&name) {
        return Err("unsupported key type");
    }
    if let Some(curve) = name.strip_prefix("ecdsa-sha2-") {
        let curve = Curve::ALL.into_iter().find(|known| known.name() == curve).ok_or(MALFORMED)?;
        if reader.text() != Some(curve.name()) {
            return Err("the curve is not that of the key type");
        }
        let point = reader.bytes().ok_or(MALFORMED)?.to_vec();
        return Ok(Kind::Ecdsa { curve, point });
    }
    if name == "ssh-ed25519" {
        let key = reader.bytes().filter(|key| key.len() == 32).ok_or(MALFORMED)?;
        return Ok(Kind::Ed25519(key.to_vec()));
    }
    let (e, n) = reader.unsigned().zip(reader.unsigned()).ok_or(MALFORMED)?;
    if !(MIN_RSA_BYTES..=MAX_RSA_BYTES).contains(&n.len()) {
        return Err("RSA keys must have 2048 to 8192 bits");
    }
    if e.len() > MAX_EXPONENT_BYTES || e.last().is_none_or(|digit| digit & 1 == 0) {
        return Err("incorrect exponent");
    }
    Ok(Kind::Rsa { n: n.to_vec(), e: e.to_vec() })
}

/// The blob of a line of authorized_keys(5) or of a `.pub` file; options and comment are skipped.
pub fn blob_of_line(line: &str) -> Option<Vec<u8>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(2).find_map(|pair| {
        let blob = STANDARD.decode(pair[1]).ok()?;
        // The name stands in the blob once more.
        (Reader(&blob).text() == Some(pair[0])).then_some(blob)
    })
}
