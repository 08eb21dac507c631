use super::*;
use crate::testdata::{P256_PKCS8, P256_SEC1, P384_PKCS8, P521_PKCS8, RSA_PKCS8, decode};

#[test]
fn keys_of_go_are_read_and_written_back_byte_for_byte() {
    for (vector, kind) in
        [(P256_PKCS8, KeyType::EcP256), (P384_PKCS8, KeyType::EcP384), (RSA_PKCS8, KeyType::Rsa2048)]
    {
        let der = decode(vector);
        let key = PrivateKey::from_pkcs8_der(&der).unwrap();
        assert_eq!(key.key_type(), kind);
        assert_eq!(*key.pkcs8_der().unwrap(), der, "{kind}");
    }
}

#[test]
fn pem_keys_of_all_kinds_are_read() {
    let want = PrivateKey::from_pkcs8_der(&decode(P256_PKCS8)).unwrap().public_key();
    let sec1 = pem::encode("EC PRIVATE KEY", &decode(P256_SEC1));
    let parameters = pem::encode("EC PARAMETERS", OID_P256);
    for text in [
        pem::encode("PRIVATE KEY", &decode(P256_PKCS8)),
        sec1.clone(),
        format!("{parameters}{sec1}"),
        sec1.replace('\n', "\r\n"),
    ] {
        assert_eq!(PrivateKey::from_pem(&text).unwrap().public_key(), want);
    }
    let round_trip = PrivateKey::from_pem(&PrivateKey::from_pem(&sec1).unwrap().to_pem().unwrap()).unwrap();
    assert_eq!(round_trip.public_key(), want);
    assert_eq!(PrivateKey::from_pem("").unwrap_err(), KeyError::NoPrivateKey);
    assert_eq!(PrivateKey::from_pem(&parameters).unwrap_err(), KeyError::NoPrivateKey);
    assert_eq!(PrivateKey::from_pem(&sec1[..80]).unwrap_err(), KeyError::MalformedPrivateKey);
}

#[test]
fn generated_keys_sign_what_their_public_key_verifies() {
    for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = PrivateKey::generate(kind).unwrap();
        assert_eq!(key.key_type(), kind);
        let public = PublicKey::from_spki_der(key.public_key().spki_der()).unwrap();
        assert_eq!(public, key.public_key());
        let algorithm = kind.x509_signature_algorithm();
        let signature = key.sign(algorithm, b"data").unwrap();
        public.verify(algorithm, b"data", &signature).unwrap();
        assert_eq!(public.verify(algorithm, b"date", &signature), Err(KeyError::BadSignature));
        let again = PrivateKey::from_pkcs8_der(&key.pkcs8_der().unwrap()).unwrap();
        assert_eq!(again.public_key(), public);
    }
}

#[test]
fn an_algorithm_of_another_key_type_is_refused_by_name() {
    let ec = PrivateKey::from_pkcs8_der(&decode(P256_PKCS8)).unwrap();
    let rsa = PrivateKey::from_pkcs8_der(&decode(RSA_PKCS8)).unwrap();
    for (key, algorithm) in [
        (&ec, SignatureAlgorithm::RsaPkcs1Sha256),
        (&ec, SignatureAlgorithm::EcdsaSha384),
        (&rsa, SignatureAlgorithm::EcdsaSha256),
    ] {
        let error = key.sign(algorithm, b"data").unwrap_err();
        assert!(matches!(error, KeyError::AlgorithmMismatch { .. }));
        assert!(error.to_string().contains(&algorithm.to_string()), "{error}");
    }
    assert!(ec.public_key().verify(SignatureAlgorithm::RsaPssSha256, b"data", &[0; 64]).is_err());
    assert!(rsa.public_key().verify_jws(SignatureAlgorithm::EcdsaSha256, b"data", &[0; 64]).is_err());
}

#[test]
fn malformed_keys_are_refused() {
    let good = decode(P256_PKCS8);
    let mut wrong_public = good.clone();
    *wrong_public.last_mut().unwrap() ^= 1;
    for bad in [&[][..], b"text", &good[..good.len() - 1], &wrong_public] {
        assert_eq!(PrivateKey::from_pkcs8_der(bad).unwrap_err(), KeyError::MalformedPrivateKey);
    }
    let unsupported = PrivateKey::from_pkcs8_der(&decode(P521_PKCS8)).unwrap_err();
    assert!(unsupported.to_string().contains("P-256, P-384"), "{unsupported}");
    let spki = PrivateKey::from_pkcs8_der(&good).unwrap().public_key().spki_der().to_vec();
    let mut off_curve = spki.clone();
    *off_curve.last_mut().unwrap() ^= 1;
    assert_eq!(PublicKey::from_spki_der(&off_curve), Err(KeyError::InvalidPublicKey("EC")));
    let trailing = [spki.as_slice(), &[0]].concat();
    for bad in [&spki[1..], &spki[..spki.len() - 1], &trailing, &[]] {
        assert_eq!(PublicKey::from_spki_der(bad), Err(KeyError::MalformedPublicKey));
    }
}

#[test]
fn debug_shows_nothing_of_a_private_key() {
    let key = PrivateKey::from_pkcs8_der(&decode(P256_PKCS8)).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey(ec-p256, redacted)");
}

#[test]
fn key_types_have_spires_names() {
    for kind in KeyType::ALL {
        assert_eq!(kind.to_string().parse::<KeyType>().unwrap(), kind);
    }
    assert_eq!(
        "ec-p521".parse::<KeyType>().unwrap_err().to_string(),
        "key type \"ec-p521\" is unknown; must be one of [rsa-2048, rsa-4096, ec-p256, ec-p384]"
    );
}

#[test]
fn algorithm_identifiers_read_back() {
    for algorithm in SignatureAlgorithm::ALL {
        let identifier = algorithm.x509_identifier();
        assert_eq!(SignatureAlgorithm::from_x509_identifier(identifier), Some(algorithm));
        assert_eq!(SignatureAlgorithm::from_jws_name(algorithm.jws_name()), Some(algorithm));
        let mut reader = Reader::new(identifier);
        assert!(reader.nested(der::SEQUENCE).is_some() && reader.is_empty(), "{algorithm} is DER");
    }
    // RSA without its NULL.
    let bare = [0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
    assert_eq!(SignatureAlgorithm::from_x509_identifier(&bare), Some(SignatureAlgorithm::RsaPkcs1Sha256));
    assert_eq!(SignatureAlgorithm::from_x509_identifier(&[]), None);
    assert_eq!(SignatureAlgorithm::from_x509_identifier(&[0x30, 0x00]), None);
}
