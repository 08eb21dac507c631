//! What a TLS endpoint presents and trusts, replaceable while it runs.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::{
    crypto::aws_lc_rs::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};
use steeple_spiffe::{PrivateKey, TrustDomain, x509::Certificate};

/// Why an identity cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("no certificates")]
    NoCertificates,
    #[error("private key cannot be used for TLS: {0}")]
    Key(String),
    #[error("certificate and private key do not belong together: {0}")]
    Mismatch(String),
}

/// The certificate and key an endpoint presents. Clones are the same; connections made after [`set`](Self::set) use
/// the new one, those before keep theirs.
#[derive(Clone, Default)]
pub struct LiveIdentity(Arc<ArcSwapOption<CertifiedKey>>);

impl LiveIdentity {
    /// Has no identity yet: a server refuses handshakes, a client shows no certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Presents `chain` (DER, leaf first) from now on.
    pub fn set(&self, chain: &[Certificate], key: &PrivateKey) -> Result<(), IdentityError> {
        let certificates: Vec<_> =
            chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
        let pkcs8 = key.pkcs8_der().map_err(|err| IdentityError::Key(err.to_string()))?;
        self.set_der(certificates, &pkcs8)
    }

    /// The same from bytes: chain leaf first, key in PKCS#8.
    pub fn set_der(&self, chain: Vec<CertificateDer<'static>>, pkcs8: &[u8]) -> Result<(), IdentityError> {
        self.set_key(chain, &PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8)))
    }

    /// The same with a key in any form that a file may hold.
    pub(crate) fn set_key(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<(), IdentityError> {
        if chain.is_empty() {
            return Err(IdentityError::NoCertificates);
        }
        let key = any_supported_type(key).map_err(|err| IdentityError::Key(err.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|err| IdentityError::Mismatch(err.to_string()))?;
        self.0.store(Some(Arc::new(certified)));
        Ok(())
    }

    /// The same with a key that lives elsewhere (a key manager).
    pub fn set_signer(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn rustls::sign::SigningKey>,
    ) -> Result<(), IdentityError> {
        if chain.is_empty() {
            return Err(IdentityError::NoCertificates);
        }
        self.0.store(Some(Arc::new(CertifiedKey::new(chain, key))));
        Ok(())
    }

    /// Presents nothing from now on.
    pub fn clear(&self) {
        self.0.store(None);
    }

    pub fn is_set(&self) -> bool {
        self.0.load().is_some()
    }

    pub(crate) fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl fmt::Debug for LiveIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveIdentity").field("is_set", &self.is_set()).finish()
    }
}

/// The X.509 authorities of each trust domain, as of now. Clones are the same.
#[derive(Clone, Default)]
pub struct LiveBundles(Arc<ArcSwap<Authorities>>);

type Authorities = BTreeMap<TrustDomain, Arc<Vec<Certificate>>>;

impl LiveBundles {
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts `authorities` for `trust_domain`; an empty list trusts nobody there.
    pub fn set(&self, trust_domain: &TrustDomain, authorities: Vec<Certificate>) {
        let authorities = Arc::new(authorities);
        self.0.rcu(|old| {
            let mut new = Authorities::clone(old);
            new.insert(trust_domain.clone(), authorities.clone());
            new
        });
    }

    pub fn remove(&self, trust_domain: &TrustDomain) {
        self.0.rcu(|old| {
            let mut new = Authorities::clone(old);
            new.remove(trust_domain);
            new
        });
    }

    pub fn authorities(&self, trust_domain: &TrustDomain) -> Option<Arc<Vec<Certificate>>> {
        self.0.load().get(trust_domain).cloned()
    }
}

impl fmt::Debug for LiveBundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.load();
        f.debug_map().entries(all.iter().map(|(td, authorities)| (td.name(), authorities.len()))).finish()
    }
}
