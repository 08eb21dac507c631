//! A private key as a JWK (RFC 7518 §6), members in the order go-jose writes them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::{KeyError, KeyType, PrivateKey};
use crate::der::{self, Reader};

impl PrivateKey {
    /// The key, private part included, as one line of JSON.
    pub fn to_jwk(&self) -> Result<Zeroizing<String>, KeyError> {
        let pkcs8 = self.pkcs8_der()?;
        let inner = private_octets(&pkcs8).ok_or(KeyError::MalformedPrivateKey)?;
        let public = self.public_key();
        let json = match self.key_type() {
            KeyType::EcP256 | KeyType::EcP384 => {
                let (x, y) = public.ec_coordinates().ok_or(KeyError::MalformedPrivateKey)?;
                let d = Zeroizing::new(ec_scalar(inner, x.len()).ok_or(KeyError::MalformedPrivateKey)?);
                let curve = if self.key_type() == KeyType::EcP256 { "P-256" } else { "P-384" };
                let (x, y, d) = (encode(x), encode(y), encode(&d));
                format!(
                    "{{\"kty\":\"EC\",\"crv\":\"{curve}\",\"x\":\"{}\",\"y\":\"{}\",\"d\":\"{}\"}}",
                    *x, *y, *d
                )
            }
            KeyType::Rsa2048 | KeyType::Rsa4096 => {
                let numbers = rsa_numbers(inner).ok_or(KeyError::MalformedPrivateKey)?;
                let members = ["n", "e", "d", "p", "q", "dp", "dq", "qi"];
                let members = members.iter().zip(numbers.iter());
                let members: Vec<String> =
                    members.map(|(name, number)| format!("\"{name}\":\"{}\"", *encode(number))).collect();
                format!("{{\"kty\":\"RSA\",{}}}", members.join(","))
            }
        };
        Ok(Zeroizing::new(json))
    }
}

fn encode(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// What PKCS#8 wraps (RFC 5208): `ECPrivateKey` or `RSAPrivateKey`.
fn private_octets(pkcs8: &[u8]) -> Option<&[u8]> {
    let mut info = Reader::new(pkcs8).nested(der::SEQUENCE)?;
    info.expect(der::INTEGER)?;
    info.expect(der::SEQUENCE)?;
    info.expect(der::OCTET_STRING)
}

/// RFC 5915: the scalar, as long as the curve's field.
fn ec_scalar(der: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut key = Reader::new(der).nested(der::SEQUENCE)?;
    key.expect(der::INTEGER)?;
    let scalar = key.expect(der::OCTET_STRING)?;
    let mut padded = vec![0; length.checked_sub(scalar.len())?];
    padded.extend_from_slice(scalar);
    Some(padded)
}

/// RFC 8017 A.1.2: version, then the eight numbers.
fn rsa_numbers(der: &[u8]) -> Option<Zeroizing<Vec<Vec<u8>>>> {
    let mut key = Reader::new(der).nested(der::SEQUENCE)?;
    key.expect(der::INTEGER)?;
    let numbers: Option<Vec<Vec<u8>>> = (0..8).map(|_| key.unsigned().map(<[u8]>::to_vec)).collect();
    numbers.map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_part_belongs_to_the_public_one() {
        for (key_type, members) in [
            (KeyType::EcP256, &["kty", "crv", "x", "y", "d"][..]),
            (KeyType::EcP384, &["kty", "crv", "x", "y", "d"]),
            (KeyType::Rsa2048, &["kty", "n", "e", "d", "p", "q", "dp", "dq", "qi"]),
        ] {
            let key = PrivateKey::generate(key_type).unwrap();
            let jwk = key.to_jwk().unwrap();
            let value: serde_json::Value = serde_json::from_str(&jwk).unwrap();
            let mut at = 0;
            for member in members {
                let found = jwk.find(&format!("\"{member}\":")).unwrap();
                assert!(found >= at, "{member}");
                at = found;
            }
            let size = |name: &str| URL_SAFE_NO_PAD.decode(value[name].as_str().unwrap()).unwrap().len();
            match key_type {
                KeyType::Rsa2048 => assert_eq!((size("n"), size("e")), (256, 3)),
                _ => assert_eq!((size("x"), size("d")), (size("y"), size("x"))),
            }
        }
    }
}
