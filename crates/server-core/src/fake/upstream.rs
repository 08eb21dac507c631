//! An upstream authority in memory, which can be told to misbehave.

use std::sync::Mutex;

use async_trait::async_trait;
use steeple_plugin::conformance::pooled_key;
use steeple_plugin::{MintedX509Ca, UpstreamAuthority, UpstreamAuthorityError};
use steeple_spiffe::x509::{self, CaTemplate, CertificateRequest, DistinguishedName, Issuer, SerialNumber};
use steeple_spiffe::{Certificate, PrivateKey, TrustDomain};

/// What it does with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Signs,
    /// Does not answer in time.
    Silent,
    Fails,
    Nothing,
    /// Answers with its own certificate.
    Garbage,
    OtherTrustDomain,
    /// What it signs ended a minute ago.
    Expired,
    NotYetValid,
    /// Its roots are others than those it signs with.
    OtherRoots,
}

pub struct FakeUpstream {
    inner: Mutex<Inner>,
}

struct Inner {
    mood: Mood,
    root: (Certificate, &'static PrivateKey),
    /// Between root and us.
    intermediate: Option<(Certificate, &'static PrivateKey)>,
    roots: Vec<Certificate>,
    /// Nothing it signs lives longer.
    max_ttl: i64,
}

impl FakeUpstream {
    /// Signs with a root of the pool's key `number`.
    pub fn new(number: usize, now: i64) -> Self {
        let root = ca(number, None, now);
        let inner = Inner {
            mood: Mood::Signs,
            roots: vec![root.0.clone()],
            root,
            intermediate: None,
            max_ttl: i64::MAX,
        };
        Self { inner: Mutex::new(inner) }
    }

    pub fn feels(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    pub fn caps(&self, max_ttl: i64) {
        self.inner.lock().unwrap().max_ttl = max_ttl;
    }

    /// Signs with an intermediate from now on.
    pub fn chains(&self, number: usize, now: i64) {
        let mut inner = self.inner.lock().unwrap();
        inner.intermediate = Some(ca(number, Some(&inner.root), now));
    }

    /// Signs with another root from now on, and no longer tells of the one before.
    pub fn changes_root(&self, number: usize, now: i64) -> Certificate {
        let mut inner = self.inner.lock().unwrap();
        inner.root = ca(number, None, now);
        inner.intermediate = None;
        inner.roots = vec![inner.root.0.clone()];
        inner.root.0.clone()
    }

    /// Tells of one more root.
    pub fn adds_root(&self, number: usize, now: i64) -> Certificate {
        let root = ca(number, None, now).0;
        self.inner.lock().unwrap().roots.push(root.clone());
        root
    }

    pub fn root(&self) -> Certificate {
        self.inner.lock().unwrap().root.0.clone()
    }
}

fn ca(
    number: usize,
    issuer: Option<&(Certificate, &'static PrivateKey)>,
    now: i64,
) -> (Certificate, &'static PrivateKey) {
    let key = pooled_key(number);
    let algorithm = key.key_type().x509_signature_algorithm();
    let template = CaTemplate {
        trust_domain: TrustDomain::new("upstream.example").unwrap(),
        public_key: key.public_key(),
        subject: DistinguishedName { common_name: format!("ca {number}"), ..DistinguishedName::default() },
        not_before: now - 1000,
        not_after: now + 3650 * 24 * 3600,
        serial: SerialNumber::random().unwrap(),
    };
    let (tbs, signer) = match issuer {
        None => (x509::ca_tbs_self_signed(&template, algorithm).unwrap(), key),
        Some((issuer, signer)) => {
            (x509::ca_tbs(&template, &Issuer::from_certificate(issuer, algorithm)).unwrap(), *signer)
        }
    };
    let signature = signer.sign(algorithm, &tbs).unwrap();
    (Certificate::from_der(&x509::assemble(&tbs, algorithm, &signature)).unwrap(), key)
}

#[async_trait]
impl UpstreamAuthority for FakeUpstream {
    fn name(&self) -> &'static str {
        "fake"
    }

    async fn mint_x509_ca(
        &self,
        csr: &[u8],
        preferred_ttl: i64,
        now: i64,
    ) -> Result<MintedX509Ca, UpstreamAuthorityError> {
        if self.inner.lock().unwrap().mood == Mood::Silent {
            std::future::pending::<()>().await;
        }
        let inner = self.inner.lock().unwrap();
        let csr = CertificateRequest::from_der(csr).unwrap();
        csr.verify_signature().unwrap();
        let (issuer, key) = inner.intermediate.as_ref().unwrap_or(&inner.root);
        let (not_before, not_after) = match inner.mood {
            Mood::Expired => (now - 3600, now - 60),
            Mood::NotYetValid => (now + 60, now + 3600),
            _ => (now - 10, now + preferred_ttl.min(inner.max_ttl)),
        };
        let name = if inner.mood == Mood::OtherTrustDomain { "other.org" } else { "example.org" };
        let template = CaTemplate {
            trust_domain: TrustDomain::new(name).unwrap(),
            public_key: csr.public_key(),
            subject: csr.subject().clone(),
            not_before,
            not_after,
            serial: SerialNumber::random().unwrap(),
        };
        let algorithm = key.key_type().x509_signature_algorithm();
        let tbs = x509::ca_tbs(&template, &Issuer::from_certificate(issuer, algorithm)).unwrap();
        let der = x509::assemble(&tbs, algorithm, &key.sign(algorithm, &tbs).unwrap());
        let mut chain = vec![Certificate::from_der(&der).unwrap()];
        chain.extend(inner.intermediate.iter().map(|(certificate, _)| certificate.clone()));
        match inner.mood {
            Mood::Fails => return Err(UpstreamAuthorityError::Sign("it is in a bad mood".to_owned())),
            Mood::Nothing => chain.clear(),
            Mood::Garbage => chain = vec![inner.root.0.clone()],
            Mood::OtherRoots => {
                return Ok(MintedX509Ca { chain, roots: vec![ca(15, None, now).0] });
            }
            _ => {}
        }
        Ok(MintedX509Ca { chain, roots: inner.roots.clone() })
    }

    async fn roots(&self, _now: i64) -> Result<Option<Vec<Certificate>>, UpstreamAuthorityError> {
        Ok(Some(self.inner.lock().unwrap().roots.clone()))
    }
}
