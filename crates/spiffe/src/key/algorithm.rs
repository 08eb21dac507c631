//! Signature algorithms, as X.509 and as JWS name them.

use std::fmt;

use aws_lc_rs::signature::{self, RsaSignatureEncoding, VerificationAlgorithm};

use super::PublicKeyKind;

/// The signature algorithms of X.509 certificates and of JWT-SVIDs (JWT-SVID §2.1); one enum, because the
/// nine of JWS and those in use for certificates are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    EcdsaSha256,
    EcdsaSha384,
    EcdsaSha512,
    RsaPkcs1Sha256,
    RsaPkcs1Sha384,
    RsaPkcs1Sha512,
    RsaPssSha256,
    RsaPssSha384,
    RsaPssSha512,
}

impl SignatureAlgorithm {
    /// In the order SPIRE lists them in messages.
    pub const ALL: [Self; 9] = [
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::EcdsaSha512,
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
        Self::RsaPssSha256,
        Self::RsaPssSha384,
        Self::RsaPssSha512,
    ];

    /// The `alg` of JOSE: `ES256`.
    pub fn jws_name(self) -> &'static str {
        match self {
            Self::EcdsaSha256 => "ES256",
            Self::EcdsaSha384 => "ES384",
            Self::EcdsaSha512 => "ES512",
            Self::RsaPkcs1Sha256 => "RS256",
            Self::RsaPkcs1Sha384 => "RS384",
            Self::RsaPkcs1Sha512 => "RS512",
            Self::RsaPssSha256 => "PS256",
            Self::RsaPssSha384 => "PS384",
            Self::RsaPssSha512 => "PS512",
        }
    }

    /// The algorithm of a JOSE `alg`; only the nine of JWT-SVID §2.1, letter case matters.
    pub fn from_jws_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.jws_name() == name)
    }

    /// The AlgorithmIdentifier of certificates, in DER.
    pub fn x509_identifier(self) -> &'static [u8] {
        match self {
            Self::EcdsaSha256 => &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02],
            Self::EcdsaSha384 => &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03],
            Self::EcdsaSha512 => &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04],
            Self::RsaPkcs1Sha256 => {
                &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00]
            }
            Self::RsaPkcs1Sha384 => {
                &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c, 0x05, 0x00]
            }
            Self::RsaPkcs1Sha512 => {
                &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d, 0x05, 0x00]
            }
            Self::RsaPssSha256 => &PSS_SHA256,
            Self::RsaPssSha384 => &PSS_SHA384,
            Self::RsaPssSha512 => &PSS_SHA512,
        }
    }

    /// The algorithm of a certificate's AlgorithmIdentifier in DER. RSA without its NULL parameters is read
    /// too (RFC 4055 §5 asks verifiers to).
    pub fn from_x509_identifier(identifier: &[u8]) -> Option<Self> {
        let exact = Self::ALL.into_iter().find(|algorithm| algorithm.x509_identifier() == identifier);
        exact.or_else(|| {
            Self::ALL.into_iter().find(|algorithm| {
                let known = algorithm.x509_identifier();
                known.ends_with(&[0x05, 0x00]) && identifier.get(2..) == known.get(2..known.len() - 2)
            })
        })
    }

    /// Bytes of each of r and s in a JWS signature (RFC 7518 §3.4).
    pub(crate) fn ecdsa_number_len(self) -> Option<usize> {
        match self {
            Self::EcdsaSha256 => Some(32),
            Self::EcdsaSha384 => Some(48),
            Self::EcdsaSha512 => Some(66),
            _ => None,
        }
    }

    /// Whether signatures of this algorithm can be made with `key` in JWS, where each ES algorithm has its one curve.
    pub fn fits(self, key: &super::PublicKey) -> bool {
        self.jws_verifier(key.kind()).is_some()
    }

    pub(super) fn rsa_encoding(self) -> Option<&'static RsaSignatureEncoding> {
        match self {
            Self::RsaPkcs1Sha256 => Some(&signature::RSA_PKCS1_SHA256),
            Self::RsaPkcs1Sha384 => Some(&signature::RSA_PKCS1_SHA384),
            Self::RsaPkcs1Sha512 => Some(&signature::RSA_PKCS1_SHA512),
            Self::RsaPssSha256 => Some(&signature::RSA_PSS_SHA256),
            Self::RsaPssSha384 => Some(&signature::RSA_PSS_SHA384),
            Self::RsaPssSha512 => Some(&signature::RSA_PSS_SHA512),
            _ => None,
        }
    }

    /// In certificates a curve goes with any hash.
    pub(super) fn x509_verifier(self, key: PublicKeyKind) -> Option<&'static dyn VerificationAlgorithm> {
        use PublicKeyKind::{EcP256, EcP384, EcP521};
        Some(match (self, key) {
            (Self::EcdsaSha256, EcP256) => &signature::ECDSA_P256_SHA256_ASN1,
            (Self::EcdsaSha384, EcP256) => &signature::ECDSA_P256_SHA384_ASN1,
            (Self::EcdsaSha512, EcP256) => &signature::ECDSA_P256_SHA512_ASN1,
            (Self::EcdsaSha256, EcP384) => &signature::ECDSA_P384_SHA256_ASN1,
            (Self::EcdsaSha384, EcP384) => &signature::ECDSA_P384_SHA384_ASN1,
            (Self::EcdsaSha512, EcP384) => &signature::ECDSA_P384_SHA512_ASN1,
            (Self::EcdsaSha256, EcP521) => &signature::ECDSA_P521_SHA256_ASN1,
            (Self::EcdsaSha384, EcP521) => &signature::ECDSA_P521_SHA384_ASN1,
            (Self::EcdsaSha512, EcP521) => &signature::ECDSA_P521_SHA512_ASN1,
            _ => return self.rsa_verifier(key),
        })
    }

    /// In JWS each ES algorithm has its one curve.
    pub(super) fn jws_verifier(self, key: PublicKeyKind) -> Option<&'static dyn VerificationAlgorithm> {
        Some(match (self, key) {
            (Self::EcdsaSha256, PublicKeyKind::EcP256) => &signature::ECDSA_P256_SHA256_FIXED,
            (Self::EcdsaSha384, PublicKeyKind::EcP384) => &signature::ECDSA_P384_SHA384_FIXED,
            (Self::EcdsaSha512, PublicKeyKind::EcP521) => &signature::ECDSA_P521_SHA512_FIXED,
            _ => return self.rsa_verifier(key),
        })
    }

    fn rsa_verifier(self, key: PublicKeyKind) -> Option<&'static dyn VerificationAlgorithm> {
        // The crypto library refuses keys under 2048 bits when it verifies.
        if !matches!(key, PublicKeyKind::Rsa(_)) {
            return None;
        }
        Some(match self {
            Self::RsaPkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::RsaPkcs1Sha384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::RsaPkcs1Sha512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::RsaPssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::RsaPssSha384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::RsaPssSha512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaSha256 => "ECDSA-SHA256",
            Self::EcdsaSha384 => "ECDSA-SHA384",
            Self::EcdsaSha512 => "ECDSA-SHA512",
            Self::RsaPkcs1Sha256 => "SHA256-RSA",
            Self::RsaPkcs1Sha384 => "SHA384-RSA",
            Self::RsaPkcs1Sha512 => "SHA512-RSA",
            Self::RsaPssSha256 => "SHA256-RSAPSS",
            Self::RsaPssSha384 => "SHA384-RSAPSS",
            Self::RsaPssSha512 => "SHA512-RSAPSS",
        })
    }
}

// RSASSA-PSS with parameters (RFC 4055 §3.1): hash h, MGF1 with h, salt as long as h.
const PSS_SHA256: [u8; 67] = pss_identifier(0x01, 32);
const PSS_SHA384: [u8; 67] = pss_identifier(0x02, 48);
const PSS_SHA512: [u8; 67] = pss_identifier(0x03, 64);

const fn pss_identifier(hash: u8, salt: u8) -> [u8; 67] {
    [
        0x30, 0x41, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, 0x30, 0x34, 0xa0, 0x0f,
        0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, hash, 0x05, 0x00, 0xa1, 0x1c,
        0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09,
        0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, hash, 0x05, 0x00, 0xa2, 0x03, 0x02, 0x01, salt,
    ]
}
