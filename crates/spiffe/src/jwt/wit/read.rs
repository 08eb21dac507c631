//! Reading and validating WIT-SVIDs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use crate::UnixTime;
use crate::bundle::{Bundle, jwk::RawJwk};
use crate::id::{IdError, SpiffeId};
use crate::jwt::EXPIRY_LEEWAY;
use crate::key::{PublicKey, SignatureAlgorithm};

/// Longest token that is read at all.
const MAX_TOKEN_LEN: usize = 1024 * 1024;

/// Why a token is no valid WIT-SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWit {
    #[error("unable to parse WIT-SVID token: {0}")]
    Malformed(&'static str),
    #[error("token is signed with an algorithm that WIT-SVIDs do not use")]
    Algorithm,
    #[error("token header type must be \"wit+jwt\"")]
    Type,
    #[error("token header missing key id")]
    MissingKeyId,
    #[error("token header names a critical parameter that is not understood")]
    Critical,
    #[error("token missing subject claim")]
    MissingSubject,
    #[error("token has an invalid subject claim: {0}")]
    Subject(IdError),
    #[error("token missing exp claim")]
    MissingExpiry,
    #[error("WIT-SVID must not contain aud claim")]
    Audience,
    #[error("token has no usable cnf claim: {0}")]
    Confirmation(String),
    #[error("the bundle is of another trust domain")]
    OtherTrustDomain,
    #[error("no WIT authority {0:?} found")]
    NoAuthority(String),
    #[error("signature verification failed")]
    Signature,
    #[error("token has expired")]
    Expired,
    #[error("token is not yet valid")]
    NotYetValid,
}

/// A WIT-SVID that was read. It says nothing of who presents it: that takes a proof of possession of the key (§4, §7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitSvid {
    pub id: SpiffeId,
    pub key_id: String,
    pub issued_at: Option<UnixTime>,
    pub expires_at: UnixTime,
    /// The workload's key, and what it signs with.
    pub confirmation: (PublicKey, SignatureAlgorithm),
}

#[derive(Deserialize)]
struct Header {
    alg: Option<String>,
    typ: Option<String>,
    kid: Option<String>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    exp: Option<f64>,
    nbf: Option<f64>,
    iat: Option<f64>,
    aud: Option<Value>,
    cnf: Option<Confirmation>,
}

#[derive(Deserialize)]
struct Confirmation {
    jwk: Option<Value>,
}

struct Read<'a> {
    svid: WitSvid,
    algorithm: SignatureAlgorithm,
    not_before: Option<UnixTime>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl WitSvid {
    /// Reads a token without checking signature or times: for tokens that come from a trusted place. The rest of §2 and
    /// §3 is checked.
    pub fn parse_insecure(token: &str) -> Result<Self, InvalidWit> {
        Ok(read(token)?.svid)
    }

    /// Validates a token by the WIT authorities of its trust domain (§4, §6.2).
    pub fn validate(token: &str, bundle: &Bundle, now: UnixTime) -> Result<Self, InvalidWit> {
        let Read { svid, algorithm, not_before, signed, signature } = read(token)?;
        if !svid.id.is_member_of(&bundle.trust_domain) {
            return Err(InvalidWit::OtherTrustDomain);
        }
        let authority = bundle.wit_authorities.iter().find(|authority| authority.key_id == svid.key_id);
        let authority = authority.ok_or_else(|| InvalidWit::NoAuthority(svid.key_id.clone()))?;
        authority
            .public_key
            .verify_jws(algorithm, signed.as_bytes(), &signature)
            .map_err(|_| InvalidWit::Signature)?;
        if not_before.is_some_and(|from| now.saturating_add(EXPIRY_LEEWAY) < from) {
            return Err(InvalidWit::NotYetValid);
        }
        // `iat` never limits (§3.6).
        if now.saturating_sub(EXPIRY_LEEWAY) > svid.expires_at {
            return Err(InvalidWit::Expired);
        }
        Ok(svid)
    }
}

fn read(token: &str) -> Result<Read<'_>, InvalidWit> {
    if token.len() > MAX_TOKEN_LEN {
        return Err(InvalidWit::Malformed("longer than 1 MiB"));
    }
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(InvalidWit::Malformed("not three parts"));
    };
    let signed = &token[..header.len() + 1 + payload.len()];
    let decoded =
        |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| InvalidWit::Malformed("not base64url"));
    let header: Header = serde_json::from_slice(&decoded(header)?)
        .map_err(|_| InvalidWit::Malformed("the header is not a JSON object of its kind"))?;
    let claims: Claims = serde_json::from_slice(&decoded(payload)?)
        .map_err(|_| InvalidWit::Malformed("the claims are not a JSON object of their kind"))?;
    let algorithm = header.alg.as_deref().and_then(SignatureAlgorithm::from_jws_name);
    let algorithm = algorithm.ok_or(InvalidWit::Algorithm)?;
    if header.typ.as_deref() != Some("wit+jwt") {
        return Err(InvalidWit::Type);
    }
    if header.crit.is_some() {
        return Err(InvalidWit::Critical);
    }
    let key_id = header.kid.filter(|kid| !kid.is_empty()).ok_or(InvalidWit::MissingKeyId)?;
    let subject = claims.sub.filter(|sub| !sub.is_empty()).ok_or(InvalidWit::MissingSubject)?;
    let id = SpiffeId::parse(&subject).map_err(InvalidWit::Subject)?;
    let expires_at = claims.exp.map(|at| at as UnixTime).ok_or(InvalidWit::MissingExpiry)?;
    if claims.aud.is_some() {
        return Err(InvalidWit::Audience);
    }
    let issued_at = claims.iat.map(|at| at as UnixTime);
    let confirmation = confirmation(claims.cnf)?;
    Ok(Read {
        svid: WitSvid { id, key_id, issued_at, expires_at, confirmation },
        algorithm,
        not_before: claims.nbf.map(|at| at as UnixTime),
        signed,
        signature: decoded(signature)?,
    })
}

fn confirmation(claim: Option<Confirmation>) -> Result<(PublicKey, SignatureAlgorithm), InvalidWit> {
    let bad = |why: &str| InvalidWit::Confirmation(why.to_owned());
    let jwk = claim.and_then(|claim| claim.jwk).ok_or_else(|| bad("it has no jwk"))?;
    if jwk.get("d").is_some() {
        return Err(bad("the jwk is a private key"));
    }
    let algorithm = jwk.get("alg").and_then(Value::as_str).and_then(SignatureAlgorithm::from_jws_name);
    let algorithm = algorithm.ok_or_else(|| bad("its alg is missing or none that WIT-SVIDs use"))?;
    let jwk: RawJwk = serde_json::from_value(jwk).map_err(|error| bad(&error.to_string()))?;
    jwk.check_type().map_err(InvalidWit::Confirmation)?;
    let key = jwk.public_key().map_err(InvalidWit::Confirmation)?;
    if !algorithm.fits(&key) {
        return Err(bad("its alg does not fit its key"));
    }
    Ok((key, algorithm))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::bundle::JwtAuthority;
    use crate::id::TrustDomain;
    use crate::jwt::{WitClaims, assemble, wit_signing_input};
    use crate::key::{KeyType, PrivateKey};

    const NOW: UnixTime = 1_000_000;

    struct World {
        signer: PrivateKey,
        bundle: Bundle,
        header: Value,
        claims: Value,
    }

    impl World {
        fn new() -> Self {
            let signer = PrivateKey::generate(KeyType::EcP256).unwrap();
            let workload = PrivateKey::generate(KeyType::EcP256).unwrap().public_key();
            let mut bundle = Bundle::new(TrustDomain::new("example.org").unwrap());
            bundle.wit_authorities.push(JwtAuthority {
                key_id: "k".into(),
                public_key: signer.public_key(),
                expires_at: 0,
                tainted: false,
            });
            let id = SpiffeId::parse("spiffe://example.org/w").unwrap();
            let es256 = SignatureAlgorithm::EcdsaSha256;
            let claims = WitClaims::new(&id, &workload, es256, NOW, NOW + 300, "").unwrap();
            let input = wit_signing_input(es256, "k", &claims);
            let (header, claims) = input.split_once('.').unwrap();
            let value = |part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
            Self { header: value(header), claims: value(claims), signer, bundle }
        }

        fn token(&self) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let input = format!("{}.{}", part(&self.header), part(&self.claims));
            let es256 = SignatureAlgorithm::EcdsaSha256;
            let signature = self.signer.sign(es256, input.as_bytes()).unwrap();
            assemble(&input, es256, &signature).unwrap()
        }

        fn outcome(&self) -> Result<WitSvid, InvalidWit> {
            WitSvid::validate(&self.token(), &self.bundle, NOW)
        }
    }

    #[test]
    fn what_is_made_is_valid_and_bound_to_the_key() {
        let world = World::new();
        let svid = world.outcome().unwrap();
        assert_eq!(svid.id.as_str(), "spiffe://example.org/w");
        assert_eq!((svid.key_id.as_str(), svid.issued_at, svid.expires_at), ("k", Some(NOW), NOW + 300));
        assert_eq!(svid.confirmation.1, SignatureAlgorithm::EcdsaSha256);
        let token = world.token();
        assert_eq!(WitSvid::parse_insecure(&token), Ok(svid));
        let late = WitSvid::validate(&token, &world.bundle, NOW + 300 + EXPIRY_LEEWAY + 1);
        assert_eq!(late, Err(InvalidWit::Expired));
        let (input, _) = token.rsplit_once('.').unwrap();
        let other = format!("{input}.{}", URL_SAFE_NO_PAD.encode([7; 64]));
        assert_eq!(WitSvid::validate(&other, &world.bundle, NOW), Err(InvalidWit::Signature));
    }

    #[test]
    fn keys_of_jwt_svids_do_not_count() {
        let mut world = World::new();
        std::mem::swap(&mut world.bundle.wit_authorities, &mut world.bundle.jwt_authorities);
        assert_eq!(world.outcome(), Err(InvalidWit::NoAuthority("k".into())));
        let mut world = World::new();
        world.bundle.trust_domain = TrustDomain::new("other.org").unwrap();
        assert_eq!(world.outcome(), Err(InvalidWit::OtherTrustDomain));
    }

    #[test]
    fn what_the_standard_asks_of_the_header() {
        for (name, value, error) in [
            ("typ", json!("JWT"), InvalidWit::Type),
            ("typ", Value::Null, InvalidWit::Type),
            ("kid", Value::Null, InvalidWit::MissingKeyId),
            ("kid", json!("K"), InvalidWit::NoAuthority("K".into())),
            ("alg", json!("HS256"), InvalidWit::Algorithm),
            ("alg", json!("none"), InvalidWit::Algorithm),
            ("alg", Value::Null, InvalidWit::Algorithm),
            ("crit", json!(["x"]), InvalidWit::Critical),
        ] {
            let mut world = World::new();
            world.header[name] = value;
            assert_eq!(world.outcome(), Err(error), "{name}");
        }
        let mut world = World::new();
        world.header["x-unknown"] = json!(1);
        assert!(world.outcome().is_ok());
    }

    #[test]
    fn what_the_standard_asks_of_the_claims() {
        for (name, value, error) in [
            ("sub", Value::Null, InvalidWit::MissingSubject),
            ("exp", Value::Null, InvalidWit::MissingExpiry),
            ("aud", json!("a"), InvalidWit::Audience),
            ("aud", json!([]), InvalidWit::Audience),
            ("nbf", json!(NOW + 3600), InvalidWit::NotYetValid),
        ] {
            let mut world = World::new();
            world.claims[name] = value;
            assert_eq!(world.outcome(), Err(error), "{name}");
        }
        let mut world = World::new();
        world.claims["sub"] = json!("https://example.org/w");
        assert!(matches!(world.outcome(), Err(InvalidWit::Subject(_))));
        for cnf in [Value::Null, json!({}), json!({"jwk": {}}), json!({"jwk": {"kty": "EC"}})] {
            let mut world = World::new();
            world.claims["cnf"] = cnf.clone();
            assert!(matches!(world.outcome(), Err(InvalidWit::Confirmation(_))), "{cnf}");
        }
        for (member, value) in
            [("alg", json!("RS256")), ("alg", json!("ES384")), ("alg", Value::Null), ("d", json!("AA"))]
        {
            let mut world = World::new();
            world.claims["cnf"]["jwk"][member] = value.clone();
            assert!(matches!(world.outcome(), Err(InvalidWit::Confirmation(_))), "{member} {value}");
        }
        let mut world = World::new();
        world.claims["iat"] = json!(NOW + 10_000);
        world.claims["other"] = json!("claim");
        assert!(world.outcome().is_ok(), "iat limits nothing, other claims are ignored");
    }
}
