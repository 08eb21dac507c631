//! The server's own X.509-SVID, with a key that lives in memory only, and whom the TCP endpoint trusts.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::Context;
use steeple_runtime::clock::Clock;
use steeple_runtime::metrics::CallCounter;
use steeple_runtime::tls::{LiveBundles, LiveIdentity};
use steeple_server_core::ca::CaManager;
use steeple_server_core::view::{Bundles, View};
use steeple_spiffe::{Certificate, PrivateKey, TrustDomain};
use tonic::Code;

use crate::config::Config;

/// Clones are the same.
#[derive(Clone)]
pub struct ServerIdentity {
    live: LiveIdentity,
    current: Arc<RwLock<Current>>,
    ca: Arc<CaManager>,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Current {
    chain: Arc<Vec<Certificate>>,
    /// Unix seconds.
    renew_at: i64,
}

impl ServerIdentity {
    /// Gets the first SVID.
    pub async fn issue(ca: Arc<CaManager>, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let identity = Self { live: LiveIdentity::new(), current: Arc::default(), ca, clock };
        identity.rotate().await.context("cannot issue the server's own X509-SVID")?;
        Ok(identity)
    }

    /// What the TCP endpoint presents.
    pub fn live(&self) -> LiveIdentity {
        self.live.clone()
    }

    /// The chain presented now, leaf first.
    pub fn chain(&self) -> Arc<Vec<Certificate>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).chain.clone()
    }

    /// A new SVID with a new key if half of the old one's life is over, or if it stands under a tainted authority
    /// (SPIRE).
    pub async fn rotate_if_due(&self) -> anyhow::Result<()> {
        let (chain, renew_at, begins) = {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            let begins = current.chain.first().map(Certificate::not_before);
            (current.chain.clone(), current.renew_at, begins)
        };
        let now = self.clock.now();
        let is_tainted = self.ca.is_to_be_replaced(&chain);
        if is_tainted {
            tracing::info!(
                subsystem_name = "svid_rotator",
                "Server SVID signed using a tainted authority, forcing rotation of the Server SVID"
            );
        }
        // A clock that went back makes it one of the future.
        let is_early = begins.is_some_and(|begins| now < begins);
        if now < renew_at && !is_tainted && !is_early {
            return Ok(());
        }
        self.rotate().await
    }

    async fn rotate(&self) -> anyhow::Result<()> {
        let call = CallCounter::start(&["svid", "rotate"]);
        let outcome = self.replace().await;
        call.done(if outcome.is_ok() { Code::Ok } else { Code::Internal });
        outcome
    }

    async fn replace(&self) -> anyhow::Result<()> {
        let key_type = self.ca.config().ca_key_type;
        let key = tokio::task::spawn_blocking(move || PrivateKey::generate(key_type)).await??;
        let signed = self.ca.sign_server_x509(key.public_key(), self.clock.now()).await?;
        metrics::counter!("server_ca.sign.x509_svid").increment(1);
        let chain: Vec<Certificate> =
            signed.chain.iter().map(|der| Certificate::from_der(der)).collect::<Result<_, _>>()?;
        self.live.set(&chain, &key)?;
        let renew_at = signed.not_before + (signed.expires_at - signed.not_before) / 2;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) =
            Current { chain: Arc::new(chain), renew_at };
        tracing::debug!(
            subsystem_name = "svid_rotator",
            serial_num = signed.serial,
            expires_at = signed.expires_at,
            "Rotated the server's X509-SVID"
        );
        Ok(())
    }
}

/// Trusts what the view holds now.
pub fn trust(live: &LiveBundles, view: &View, config: &Config) {
    let bundles = view.watch_bundles().borrow().clone();
    apply(live, &bundles, &trusted_domains(config));
}

/// And what it will hold. A client certificate is verified against our bundle, or that of an admin's trust domain.
pub async fn keep_trust(live: LiveBundles, view: Arc<View>, config: Config) {
    let domains = trusted_domains(&config);
    let mut bundles = view.watch_bundles();
    loop {
        let now = bundles.borrow_and_update().clone();
        apply(&live, &now, &domains);
        if bundles.changed().await.is_err() {
            return;
        }
    }
}

fn trusted_domains(config: &Config) -> BTreeSet<TrustDomain> {
    let admins = config.admin_ids.iter().map(steeple_spiffe::SpiffeId::trust_domain);
    admins.chain([config.trust_domain.clone()]).collect()
}

fn apply(live: &LiveBundles, bundles: &Bundles, domains: &BTreeSet<TrustDomain>) {
    for domain in domains {
        match bundles.get(domain) {
            None => live.remove(domain),
            Some(bundle) => {
                let roots =
                    bundle.x509_authorities.iter().map(|authority| authority.certificate.clone()).collect();
                live.set(domain, roots);
            }
        }
    }
}
