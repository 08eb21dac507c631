//! Key pairs and signatures, on aws-lc-rs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

use crate::der::{self, Reader, Writer};
use crate::pem;

pub use algorithm::SignatureAlgorithm;

mod algorithm;
mod jwk;

/// What can go wrong with keys and signatures. Nothing of a key is ever in a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("key type {0:?} is unknown; must be one of [rsa-2048, rsa-4096, ec-p256, ec-p384]")]
    UnknownKeyType(String),
    #[error("private key is not PKCS#8 DER of an EC P-256, EC P-384 or RSA key")]
    MalformedPrivateKey,
    #[error("private key is of an unsupported type: {0}")]
    UnsupportedPrivateKey(String),
    #[error("PEM text holds no private key")]
    NoPrivateKey,
    #[error("public key is not a SubjectPublicKeyInfo in DER")]
    MalformedPublicKey,
    #[error("public key is not a valid {0} key")]
    InvalidPublicKey(&'static str),
    #[error("signature algorithm {algorithm} does not go with a {key} key")]
    AlgorithmMismatch { algorithm: SignatureAlgorithm, key: String },
    #[error("signature is invalid")]
    BadSignature,
    #[error("key generation failed in the crypto library")]
    GenerationFailed,
    #[error("signing failed in the crypto library")]
    SigningFailed,
}

/// The key types SPIRE can make (its options `ca_key_type`, `jwt_key_type`, `workload_x509_svid_key_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyType {
    EcP256,
    EcP384,
    Rsa2048,
    Rsa4096,
}

impl KeyType {
    pub const ALL: [Self; 4] = [Self::EcP256, Self::EcP384, Self::Rsa2048, Self::Rsa4096];

    /// The name in configuration files: `ec-p256`.
    pub fn name(self) -> &'static str {
        match self {
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        }
    }

    /// What a CA key of this type signs certificates with; the same choice as SPIRE's.
    pub fn x509_signature_algorithm(self) -> SignatureAlgorithm {
        match self {
            Self::EcP256 => SignatureAlgorithm::EcdsaSha256,
            Self::EcP384 => SignatureAlgorithm::EcdsaSha384,
            Self::Rsa2048 | Self::Rsa4096 => SignatureAlgorithm::RsaPkcs1Sha256,
        }
    }

    /// What a key of this type signs JWT-SVIDs with: ES256, ES384 or RS256.
    pub fn jws_algorithm(self) -> SignatureAlgorithm {
        self.x509_signature_algorithm()
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for KeyType {
    type Err = KeyError;

    fn from_str(s: &str) -> Result<Self, KeyError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == s)
            .ok_or_else(|| KeyError::UnknownKeyType(s.to_owned()))
    }
}

/// A private key. The key itself lives in the crypto library's memory, which is wiped when it is freed.
pub struct PrivateKey {
    pair: Pair,
    key_type: KeyType,
    public_key: PublicKey,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    /// Makes a new key. RSA takes long enough that callers should not do it on an async thread.
    pub fn generate(key_type: KeyType) -> Result<Self, KeyError> {
        let failed = |_| KeyError::GenerationFailed;
        let pair = match key_type {
            KeyType::EcP256 => {
                Pair::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?)
            }
            KeyType::EcP384 => {
                Pair::Ec(EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_ASN1_SIGNING).map_err(failed)?)
            }
            KeyType::Rsa2048 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?),
            KeyType::Rsa4096 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa4096).map_err(failed)?),
        };
        Self::from_pair(pair)
    }

    /// Reads an unencrypted PKCS#8 key, as Go's MarshalPKCS8PrivateKey and OpenSSL write it.
    pub fn from_pkcs8_der(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = match pkcs8_algorithm(pkcs8).ok_or(KeyError::MalformedPrivateKey)? {
            (OID_EC_PUBLIC_KEY, Some(OID_P256)) => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).map(Pair::Ec)
            }
            (OID_EC_PUBLIC_KEY, Some(OID_P384)) => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P384_SHA384_ASN1_SIGNING, pkcs8).map(Pair::Ec)
            }
            (OID_EC_PUBLIC_KEY, _) => {
                return Err(KeyError::UnsupportedPrivateKey("elliptic curve other than P-256, P-384".into()));
            }
            (OID_RSA, _) => RsaKeyPair::from_pkcs8(pkcs8).map(Pair::Rsa),
            _ => return Err(KeyError::UnsupportedPrivateKey("neither EC nor RSA".into())),
        };
        Self::from_pair(pair.map_err(|_| KeyError::MalformedPrivateKey)?)
    }

    /// Reads the first private key of a PEM text: PKCS#8, SEC 1 or PKCS#1.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let blocks = pem::decode_all(text).map_err(|_| KeyError::MalformedPrivateKey)?;
        for (label, der) in blocks {
            let der = Zeroizing::new(der);
            let pair = match label.as_str() {
                "PRIVATE KEY" => return Self::from_pkcs8_der(&der),
                "EC PRIVATE KEY" => {
                    EcdsaKeyPair::from_private_key_der(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &der)
                        .or_else(|_| {
                            EcdsaKeyPair::from_private_key_der(
                                &signature::ECDSA_P384_SHA384_ASN1_SIGNING,
                                &der,
                            )
                        })
                        .map(Pair::Ec)
                }
                "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der).map(Pair::Rsa),
                _ => continue,
            };
            return Self::from_pair(pair.map_err(|_| KeyError::MalformedPrivateKey)?);
        }
        Err(KeyError::NoPrivateKey)
    }

    fn from_pair(pair: Pair) -> Result<Self, KeyError> {
        let public_key = match &pair {
            Pair::Ec(ec) => {
                let point = ec.public_key().as_ref();
                // P-256 points are 65 bytes: the tag, x and y.
                let curve = if point.len() == 65 { OID_P256 } else { OID_P384 };
                PublicKey::from_spki_der(&ec_spki(curve, point))?
            }
            Pair::Rsa(rsa) => {
                let spki: PublicKeyX509Der<'_> =
                    rsa.public_key().as_der().map_err(|_| KeyError::MalformedPrivateKey)?;
                PublicKey::from_spki_der(spki.as_ref())?
            }
        };
        let key_type = public_key.key_type().ok_or_else(|| {
            KeyError::UnsupportedPrivateKey(format!(
                "{}; must be RSA of 2048 or 4096 bits",
                public_key.describe()
            ))
        })?;
        Ok(Self { pair, key_type, public_key })
    }

    /// PKCS#8 DER as Go writes it (no attributes; EC keys carry their public key).
    pub fn pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let failed = |_| KeyError::MalformedPrivateKey;
        match &self.pair {
            Pair::Ec(ec) => Ok(Zeroizing::new(ec.to_pkcs8v1().map_err(failed)?.as_ref().to_vec())),
            Pair::Rsa(rsa) => {
                let der: Pkcs8V1Der<'_> = rsa.as_der().map_err(failed)?;
                Ok(Zeroizing::new(der.as_ref().to_vec()))
            }
        }
    }

    /// A `PRIVATE KEY` PEM block.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(Self::pkcs8_pem(&self.pkcs8_der()?))
    }

    /// The PEM form of a key in PKCS#8 DER, which is not looked into.
    pub fn pkcs8_pem(pkcs8: &[u8]) -> Zeroizing<String> {
        Zeroizing::new(pem::encode("PRIVATE KEY", pkcs8))
    }

    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    pub fn public_key(&self) -> PublicKey {
        self.public_key.clone()
    }

    /// Signs `data` (hashing included). ECDSA signatures are in the ASN.1 form of X.509; [`crate::jwt::assemble`]
    /// turns them into the form of JWS.
    pub fn sign(&self, algorithm: SignatureAlgorithm, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mismatch = || KeyError::AlgorithmMismatch { algorithm, key: self.key_type.to_string() };
        let failed = |_| KeyError::SigningFailed;
        match &self.pair {
            Pair::Ec(ec) => {
                if algorithm != self.key_type.x509_signature_algorithm() {
                    return Err(mismatch());
                }
                Ok(ec.sign(&SystemRandom::new(), data).map_err(failed)?.as_ref().to_vec())
            }
            Pair::Rsa(rsa) => {
                let padding = algorithm.rsa_encoding().ok_or_else(mismatch)?;
                let mut out = vec![0; rsa.public_modulus_len()];
                rsa.sign(padding, &SystemRandom::new(), data, &mut out).map_err(failed)?;
                Ok(out)
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({}, redacted)", self.key_type)
    }
}

/// A public key in its X.509 form. Any key type can be held, so that foreign certificates can be read; only
/// EC P-256, P-384, P-521 and RSA keys verify anything. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey {
    spki: Arc<[u8]>,
    kind: PublicKeyKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublicKeyKind {
    EcP256,
    EcP384,
    EcP521,
    /// With the size of the modulus in bits.
    Rsa(usize),
    Other,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo; EC points must be on their curve, RSA keys have at least 1024 bits.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, KeyError> {
        let parts = SpkiParts::parse(spki).ok_or(KeyError::MalformedPublicKey)?;
        let kind = match (parts.algorithm, parts.parameters) {
            (OID_EC_PUBLIC_KEY, Some(OID_P256)) => PublicKeyKind::EcP256,
            (OID_EC_PUBLIC_KEY, Some(OID_P384)) => PublicKeyKind::EcP384,
            (OID_EC_PUBLIC_KEY, Some(OID_P521)) => PublicKeyKind::EcP521,
            (OID_RSA, _) => {
                let (n, _) = rsa_numbers(parts.key).ok_or(KeyError::InvalidPublicKey("RSA"))?;
                PublicKeyKind::Rsa(bit_len(n))
            }
            _ => PublicKeyKind::Other,
        };
        let key = Self { spki: spki.into(), kind };
        let check = match kind {
            PublicKeyKind::EcP256 => &signature::ECDSA_P256_SHA256_ASN1,
            PublicKeyKind::EcP384 => &signature::ECDSA_P384_SHA384_ASN1,
            PublicKeyKind::EcP521 => &signature::ECDSA_P521_SHA512_ASN1,
            PublicKeyKind::Rsa(bits) if bits < 1024 => return Err(KeyError::InvalidPublicKey("RSA")),
            PublicKeyKind::Rsa(_) | PublicKeyKind::Other => return Ok(key),
        };
        match UnparsedPublicKey::new(check, parts.key).parse() {
            Ok(_) => Ok(key),
            Err(_) => Err(KeyError::InvalidPublicKey("EC")),
        }
    }

    /// The SubjectPublicKeyInfo in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The type, when it is one that [`PrivateKey`] can have.
    pub fn key_type(&self) -> Option<KeyType> {
        match self.kind {
            PublicKeyKind::EcP256 => Some(KeyType::EcP256),
            PublicKeyKind::EcP384 => Some(KeyType::EcP384),
            PublicKeyKind::Rsa(2048) => Some(KeyType::Rsa2048),
            PublicKeyKind::Rsa(4096) => Some(KeyType::Rsa4096),
            _ => None,
        }
    }

    /// The key identifier SPIRE gives to the key: SHA-1 of the subjectPublicKey bits (RFC 5280 §4.2.1.2).
    pub fn subject_key_id(&self) -> [u8; 20] {
        let bits = SpkiParts::parse(&self.spki).map_or(&[][..], |parts| parts.key);
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bits);
        let mut id = [0; 20];
        id.copy_from_slice(hash.as_ref());
        id
    }

    /// Checks a signature over `data`, ECDSA in ASN.1 form.
    pub fn verify(&self, algorithm: SignatureAlgorithm, data: &[u8], sig: &[u8]) -> Result<(), KeyError> {
        let verifier = algorithm
            .x509_verifier(self.kind)
            .ok_or_else(|| KeyError::AlgorithmMismatch { algorithm, key: self.describe() })?;
        self.verify_with(verifier, data, sig)
    }

    /// Checks a JWS signature over `data`, ECDSA as r and s side by side. The curve must be the algorithm's
    /// own (RFC 7518 §3.4).
    pub fn verify_jws(&self, algorithm: SignatureAlgorithm, data: &[u8], sig: &[u8]) -> Result<(), KeyError> {
        let verifier = algorithm
            .jws_verifier(self.kind)
            .ok_or_else(|| KeyError::AlgorithmMismatch { algorithm, key: self.describe() })?;
        self.verify_with(verifier, data, sig)
    }

    fn verify_with(
        &self,
        verifier: &'static dyn signature::VerificationAlgorithm,
        data: &[u8],
        sig: &[u8],
    ) -> Result<(), KeyError> {
        let parts = SpkiParts::parse(&self.spki).ok_or(KeyError::MalformedPublicKey)?;
        UnparsedPublicKey::new(verifier, parts.key).verify(data, sig).map_err(|_| KeyError::BadSignature)
    }

    /// The size of an RSA key's modulus; `None` for other keys.
    pub fn rsa_bits(&self) -> Option<usize> {
        match self.kind {
            PublicKeyKind::Rsa(bits) => Some(bits),
            _ => None,
        }
    }

    /// Whether this is a key on P-256, P-384 or P-521.
    pub fn is_ec(&self) -> bool {
        matches!(self.kind, PublicKeyKind::EcP256 | PublicKeyKind::EcP384 | PublicKeyKind::EcP521)
    }

    pub(crate) fn kind(&self) -> PublicKeyKind {
        self.kind
    }

    /// `ec-p256`, `rsa-3072`, …
    pub(crate) fn describe(&self) -> String {
        match self.kind {
            PublicKeyKind::EcP256 => "ec-p256".into(),
            PublicKeyKind::EcP384 => "ec-p384".into(),
            PublicKeyKind::EcP521 => "ec-p521".into(),
            PublicKeyKind::Rsa(bits) => format!("rsa-{bits}"),
            PublicKeyKind::Other => "foreign".into(),
        }
    }

    /// X and Y of a key on a curve, big-endian, as long as the field.
    pub fn ec_coordinates(&self) -> Option<(&[u8], &[u8])> {
        if matches!(self.kind, PublicKeyKind::Rsa(_) | PublicKeyKind::Other) {
            return None;
        }
        match SpkiParts::parse(&self.spki)?.key {
            [4, xy @ ..] => Some(xy.split_at(xy.len() / 2)),
            _ => None,
        }
    }

    /// n and e of an RSA key.
    pub(crate) fn rsa_numbers(&self) -> Option<(&[u8], &[u8])> {
        match self.kind {
            PublicKeyKind::Rsa(_) => rsa_numbers(SpkiParts::parse(&self.spki)?.key),
            _ => None,
        }
    }

    /// An EC key from its curve and coordinates.
    pub(crate) fn from_ec(curve: PublicKeyKind, x: &[u8], y: &[u8]) -> Result<Self, KeyError> {
        let (oid, size) = match curve {
            PublicKeyKind::EcP256 => (OID_P256, 32),
            PublicKeyKind::EcP384 => (OID_P384, 48),
            PublicKeyKind::EcP521 => (OID_P521, 66),
            _ => return Err(KeyError::InvalidPublicKey("EC")),
        };
        if x.len() != size || y.len() != size {
            return Err(KeyError::InvalidPublicKey("EC"));
        }
        let point = [&[4], x, y].concat();
        Self::from_spki_der(&ec_spki(oid, &point))
    }

    /// An RSA key from its numbers.
    pub(crate) fn from_rsa(n: &[u8], e: &[u8]) -> Result<Self, KeyError> {
        let mut key = Writer::with_capacity(n.len() + 16);
        key.nested(der::SEQUENCE, |w| {
            w.unsigned(n);
            w.unsigned(e);
        });
        let key = key.finish();
        let mut spki = Writer::with_capacity(key.len() + 32);
        spki.nested(der::SEQUENCE, |w| {
            w.nested(der::SEQUENCE, |w| {
                w.value(der::OID, OID_RSA);
                w.value(der::NULL, &[]);
            });
            w.bit_string(&key);
        });
        Self::from_spki_der(&spki.finish())
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for PublicKey {}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, ", self.describe())?;
        for byte in self.subject_key_id() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

const OID_EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// The parts of a SubjectPublicKeyInfo.
struct SpkiParts<'a> {
    algorithm: &'a [u8],
    /// Parameters, when they are an OID (a named curve).
    parameters: Option<&'a [u8]>,
    key: &'a [u8],
}

impl<'a> SpkiParts<'a> {
    fn parse(spki: &'a [u8]) -> Option<Self> {
        let mut outer = Reader::new(spki);
        let mut spki = outer.nested(der::SEQUENCE)?;
        if !outer.is_empty() {
            return None;
        }
        let (algorithm, parameters) = algorithm_identifier(&mut spki)?;
        let key = spki.bit_string()?;
        spki.is_empty().then_some(Self { algorithm, parameters, key })
    }
}

fn algorithm_identifier<'a>(reader: &mut Reader<'a>) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let mut algorithm = reader.nested(der::SEQUENCE)?;
    let oid = algorithm.expect(der::OID)?;
    let parameters = match algorithm.peek_tag() {
        Some(der::OID) => algorithm.expect(der::OID),
        _ => None,
    };
    Some((oid, parameters))
}

fn pkcs8_algorithm(pkcs8: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut info = Reader::new(pkcs8).nested(der::SEQUENCE)?;
    info.expect(der::INTEGER)?;
    algorithm_identifier(&mut info)
}

fn rsa_numbers(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut numbers = Reader::new(key).nested(der::SEQUENCE)?;
    Some((numbers.unsigned()?, numbers.unsigned()?))
}

fn bit_len(bytes: &[u8]) -> usize {
    bytes.first().map_or(0, |first| bytes.len() * 8 - first.leading_zeros() as usize)
}

fn ec_spki(curve: &[u8], point: &[u8]) -> Vec<u8> {
    let mut spki = Writer::with_capacity(point.len() + 32);
    spki.nested(der::SEQUENCE, |w| {
        w.nested(der::SEQUENCE, |w| {
            w.value(der::OID, OID_EC_PUBLIC_KEY);
            w.value(der::OID, curve);
        });
        w.bit_string(point);
    });
    spki.finish()
}

#[cfg(test)]
mod tests;
