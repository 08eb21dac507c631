//! Making SVIDs: template → bytes to sign → key → certificate or token. Lifetimes are capped by the authority's
//! own (spire.md §6.6, §6.7).

use std::sync::Arc;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use steeple_plugin::{CredentialComposer, KeyManager, X509SvidAttributes};
use steeple_spiffe::jwt::{self, Claims, WitClaims};
use steeple_spiffe::x509::{
    self, CaTemplate, Certificate, DistinguishedName, Issuer, LeafTemplate, SerialNumber,
};
use steeple_spiffe::{PublicKey, SignatureAlgorithm, SpiffeId, TrustDomain};

use super::state::Authority;
use super::{CaConfig, CaError};
use crate::admission::{Admission, Priority};

/// How much older than now a certificate says it is, for verifiers whose clocks are behind.
pub const BACKDATE: i64 = 10;

/// A workload's X.509-SVID.
#[derive(Clone, Debug)]
pub struct WorkloadX509Params {
    pub spiffe_id: SpiffeId,
    pub public_key: PublicKey,
    /// Validated by the caller; the first becomes the common name.
    pub dns_names: Vec<String>,
    /// Seconds; 0 = the default.
    pub ttl: i32,
    /// `None` = C=US, O=SPIRE.
    pub subject: Option<DistinguishedName>,
    pub priority: Priority,
}

/// An agent's own X.509-SVID.
#[derive(Clone, Debug)]
pub struct AgentX509Params {
    pub spiffe_id: SpiffeId,
    pub public_key: PublicKey,
}

/// A signing certificate for a server below this one.
#[derive(Clone, Debug)]
pub struct DownstreamCaParams {
    pub public_key: PublicKey,
    /// Seconds; 0 = `ca_ttl`.
    pub ttl: i32,
}

/// A JWT-SVID.
#[derive(Clone, Debug)]
pub struct JwtParams {
    pub spiffe_id: SpiffeId,
    /// Empty values are dropped; one must be left.
    pub audience: Vec<String>,
    /// Seconds; 0 = the default.
    pub ttl: i32,
    /// Adds a random `jti`.
    pub include_jti: bool,
    pub priority: Priority,
}

/// A WIT-SVID.
#[derive(Clone, Debug)]
pub struct WitParams {
    pub spiffe_id: SpiffeId,
    /// The workload's own, which the token is bound to.
    pub public_key: PublicKey,
    /// What the workload will sign with; has to fit the key.
    pub algorithm: SignatureAlgorithm,
    /// Seconds; 0 = the default.
    pub ttl: i32,
    pub priority: Priority,
}

/// A signed certificate and what callers store of it. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedX509 {
    /// DER, leaf first, without the root.
    pub chain: Vec<Vec<u8>>,
    /// Decimal.
    pub serial: String,
    pub not_before: i64,
    pub expires_at: i64,
}

/// A signed token. The token is a secret: `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedJwt {
    pub token: String,
    pub issued_at: i64,
    pub expires_at: i64,
}

impl std::fmt::Debug for SignedJwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedJwt")
            .field("issued_at", &self.issued_at)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// A key of the key manager together with what it signs as. Held by every signature in flight, so that the key
/// behind `key_id` is not replaced meanwhile.
#[derive(Debug)]
pub(super) struct Signer {
    pub key_id: String,
    /// Authority id of an X.509 CA, `kid` of a JWT key.
    pub authority_id: String,
    pub not_after: i64,
    pub algorithm: SignatureAlgorithm,
    /// X.509 only.
    pub issuer: Option<(Issuer, Certificate)>,
    /// What goes with a leaf, the CA first; empty for a root of our own.
    pub upstream_chain: Vec<Certificate>,
}

impl Signer {
    pub fn x509(authority: &Authority, certificate: &Certificate) -> Result<Self, CaError> {
        let algorithm = key_type(&authority.public_key)?.x509_signature_algorithm();
        let issuer = Issuer::from_certificate(certificate, algorithm);
        // Nothing outlives what it hangs on.
        let chain = authority.upstream_chain.iter().map(Certificate::not_after);
        Ok(Self {
            key_id: authority.key_id(),
            authority_id: authority.id.clone(),
            not_after: chain.fold(authority.not_after, i64::min),
            algorithm,
            issuer: Some((issuer, certificate.clone())),
            upstream_chain: authority.upstream_chain.clone(),
        })
    }

    /// A key of JWT-SVIDs or WIT-SVIDs.
    pub fn token(authority: &Authority) -> Result<Self, CaError> {
        Ok(Self {
            key_id: authority.key_id(),
            authority_id: authority.id.clone(),
            not_after: authority.not_after,
            algorithm: key_type(&authority.public_key)?.jws_algorithm(),
            issuer: None,
            upstream_chain: Vec::new(),
        })
    }

    /// `leaf` and what a verifier needs besides its roots.
    fn chain(&self, leaf: Vec<u8>) -> Vec<Vec<u8>> {
        let above = self.upstream_chain.iter().map(|part| part.der().to_vec());
        std::iter::once(leaf).chain(above).collect()
    }

    fn cap(&self, now: i64, ttl: i64) -> i64 {
        now.saturating_add(ttl).min(self.not_after)
    }
}

fn key_type(key: &PublicKey) -> Result<steeple_spiffe::KeyType, CaError> {
    key.key_type().ok_or(CaError::Key(steeple_spiffe::KeyError::GenerationFailed))
}

/// Everything that signing needs besides the key in use.
#[derive(Clone)]
pub(super) struct Desk {
    pub config: Arc<CaConfig>,
    pub keys: Arc<dyn KeyManager>,
    pub composers: Vec<Arc<dyn CredentialComposer>>,
    pub admission: Admission,
}

impl Desk {
    pub async fn leaf(&self, signer: &Signer, template: LeafParams, now: i64) -> Result<SignedX509, CaError> {
        let (issuer, _) = signer.issuer.as_ref().ok_or(CaError::X509NotReady)?;
        if let Err(reason) = check_member(&self.config.trust_domain, &template.spiffe_id) {
            return Err(CaError::InvalidX509Id(reason));
        }
        let serial = SerialNumber::random()?;
        let (not_before, not_after) = (now - BACKDATE, signer.cap(now, template.ttl));
        let tbs = x509::leaf_tbs(
            &LeafTemplate {
                spiffe_id: template.spiffe_id,
                public_key: template.public_key,
                not_before,
                not_after,
                dns_names: template.dns_names,
                subject: template.subject,
                serial,
            },
            issuer,
        )?;
        let der = self.certificate(signer, &tbs, template.priority).await?;
        Ok(SignedX509 {
            chain: signer.chain(der),
            serial: serial.to_string(),
            not_before,
            expires_at: not_after,
        })
    }

    /// SPIRE: subject of the parent with OU `DOWNSTREAM-<chain length>`.
    pub async fn downstream(
        &self,
        signer: &Signer,
        params: DownstreamCaParams,
        now: i64,
    ) -> Result<SignedX509, CaError> {
        let (issuer, certificate) = signer.issuer.as_ref().ok_or(CaError::X509NotReady)?;
        let serial = SerialNumber::random()?;
        let ttl = if params.ttl > 0 { i64::from(params.ttl) } else { self.config.ca_ttl };
        let (not_before, not_after) = (now - BACKDATE, signer.cap(now, ttl));
        let subject = DistinguishedName {
            organizational_unit: vec![format!("DOWNSTREAM-{}", signer.upstream_chain.len().max(1))],
            ..certificate.subject()
        };
        let template = CaTemplate {
            trust_domain: self.config.trust_domain.clone(),
            public_key: params.public_key,
            subject,
            not_before,
            not_after,
            serial,
        };
        let tbs = x509::ca_tbs(&template, issuer)?;
        let der = self.certificate(signer, &tbs, Priority::Waiting).await?;
        Ok(SignedX509 {
            chain: signer.chain(der),
            serial: serial.to_string(),
            not_before,
            expires_at: not_after,
        })
    }

    async fn certificate(&self, signer: &Signer, tbs: &[u8], priority: Priority) -> Result<Vec<u8>, CaError> {
        let signature = self.sign(signer, tbs, priority).await?;
        Ok(x509::assemble(tbs, signer.algorithm, &signature))
    }

    pub async fn token(&self, signer: &Signer, params: JwtParams, now: i64) -> Result<SignedJwt, CaError> {
        if let Err(reason) = check_member(&self.config.trust_domain, &params.spiffe_id) {
            return Err(CaError::InvalidJwtId(reason));
        }
        let audience: Vec<String> = params.audience.into_iter().filter(|value| !value.is_empty()).collect();
        if audience.is_empty() {
            return Err(CaError::EmptyAudience);
        }
        let ttl = if params.ttl > 0 { i64::from(params.ttl) } else { self.config.default_jwt_svid_ttl };
        let expires_at = signer.cap(now, ttl);
        let mut claims = Claims::new(&params.spiffe_id, &audience, now, expires_at)?;
        if params.include_jti {
            claims = claims.with("jti", jti());
        }
        if !self.config.jwt_issuer.is_empty() {
            claims = claims.with("iss", self.config.jwt_issuer.as_str());
        }
        let input = jwt::signing_input(signer.algorithm, &signer.authority_id, &claims);
        let signature = self.sign(signer, input.as_bytes(), params.priority).await?;
        let token = jwt::assemble(&input, signer.algorithm, &signature)?;
        Ok(SignedJwt { token, issued_at: now, expires_at })
    }

    pub async fn wit(&self, signer: &Signer, params: WitParams, now: i64) -> Result<SignedJwt, CaError> {
        if let Err(reason) = check_member(&self.config.trust_domain, &params.spiffe_id) {
            return Err(CaError::InvalidWitId(reason));
        }
        let config = self.config.wit.as_ref().ok_or(CaError::WitDisabled)?;
        let ttl = if params.ttl > 0 { i64::from(params.ttl) } else { config.default_ttl };
        let expires_at = signer.cap(now, ttl);
        let WitParams { spiffe_id, public_key, algorithm, .. } = &params;
        let claims = WitClaims::new(spiffe_id, public_key, *algorithm, now, expires_at, &config.issuer)?;
        let input = jwt::wit_signing_input(signer.algorithm, &signer.authority_id, &claims);
        let signature = self.sign(signer, input.as_bytes(), params.priority).await?;
        let token = jwt::assemble(&input, signer.algorithm, &signature)?;
        Ok(SignedJwt { token, issued_at: now, expires_at })
    }

    /// What composers make of a workload's certificate.
    pub async fn compose(&self, mut leaf: LeafParams) -> Result<LeafParams, CaError> {
        if self.composers.is_empty() {
            return Ok(leaf);
        }
        let mut subject = leaf.subject.unwrap_or_else(DistinguishedName::default_svid);
        if let Some(first) = leaf.dns_names.first() {
            subject.common_name.clone_from(first);
        }
        let mut attributes = X509SvidAttributes { subject, dns_names: leaf.dns_names };
        for composer in &self.composers {
            attributes =
                composer.compose_workload_x509_svid(&leaf.spiffe_id, &leaf.public_key, attributes).await?;
        }
        leaf.subject = Some(attributes.subject);
        leaf.dns_names = attributes.dns_names;
        Ok(leaf)
    }

    async fn sign(&self, signer: &Signer, data: &[u8], priority: Priority) -> Result<Vec<u8>, CaError> {
        let _permit = self.admission.acquire(priority).await;
        Ok(self.keys.sign(&signer.key_id, signer.algorithm, data).await?)
    }

    /// The self-signed certificate of a new authority.
    pub async fn root(
        &self,
        key_id: &str,
        public_key: &PublicKey,
        not_after: i64,
        now: i64,
    ) -> Result<Certificate, CaError> {
        let algorithm = key_type(public_key)?.x509_signature_algorithm();
        let serial = SerialNumber::random()?;
        let subject = self.ca_subject(serial);
        let template = CaTemplate {
            trust_domain: self.config.trust_domain.clone(),
            public_key: public_key.clone(),
            subject,
            not_before: now - BACKDATE,
            not_after,
            serial,
        };
        let tbs = x509::ca_tbs_self_signed(&template, algorithm)?;
        let signature = self.keys.sign(key_id, algorithm, &tbs).await?;
        Ok(Certificate::from_der(&x509::assemble(&tbs, algorithm, &signature))?)
    }

    /// The request for a CA certificate, in DER: subject and URI SAN.
    pub async fn ca_request(&self, key_id: &str, public_key: &PublicKey) -> Result<Vec<u8>, CaError> {
        let algorithm = key_type(public_key)?.x509_signature_algorithm();
        let subject = self.ca_subject(SerialNumber::random()?);
        let trust_domain = self.config.trust_domain.id_string();
        let info = x509::csr_tbs(&subject, public_key, &[&trust_domain], &[]);
        let signature = self.keys.sign(key_id, algorithm, &info).await?;
        Ok(x509::assemble(&info, algorithm, &signature))
    }

    /// SPIRE: carries the serial in decimal.
    fn ca_subject(&self, serial: SerialNumber) -> DistinguishedName {
        let mut subject = self.config.ca_subject.clone();
        if subject.serial_number.is_empty() {
            subject.serial_number = serial.to_string();
        }
        subject
    }
}

/// What one leaf differs by.
pub(super) struct LeafParams {
    pub spiffe_id: SpiffeId,
    pub public_key: PublicKey,
    pub dns_names: Vec<String>,
    /// Seconds, already defaulted.
    pub ttl: i64,
    pub subject: Option<DistinguishedName>,
    pub priority: Priority,
}

/// SPIRE's text for an ID that this server must not sign for.
fn check_member(trust_domain: &TrustDomain, id: &SpiffeId) -> Result<(), String> {
    if !id.is_member_of(trust_domain) {
        return Err(format!("\"{id}\" is not a member of trust domain \"{trust_domain}\""));
    }
    if id.path().is_empty() {
        return Err(format!("\"{id}\" is not a member of trust domain \"{trust_domain}\"; path is empty"));
    }
    Ok(())
}

/// base64url of the 16 bytes of a random UUID, as SPIRE makes it.
fn jti() -> String {
    URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().into_bytes())
}

/// A `kid`: 32 alphanumerics, each equally likely.
pub(super) fn random_kid() -> Result<String, CaError> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut kid = String::with_capacity(32);
    while kid.len() < 32 {
        let mut bytes = [0_u8; 48];
        rand::fill(&mut bytes).map_err(|_| CaError::Key(steeple_spiffe::KeyError::GenerationFailed))?;
        // 248 is the largest multiple of 62 in a byte.
        let fair = bytes.iter().filter(|byte| **byte < 248);
        kid.extend(fair.map(|byte| ALPHABET[usize::from(byte % 62)] as char).take(32 - kid.len()));
    }
    Ok(kid)
}

#[cfg(test)]
mod tests;
