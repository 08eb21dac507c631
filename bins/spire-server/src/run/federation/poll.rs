//! One attempt: ask, judge, store.

use std::sync::Arc;

use steeple_datastore::{Datastore, EndpointProfile, Error as StoreError, RefreshedBundle};
use steeple_runtime::bundle_endpoint::{FetchError, fetch};
use steeple_runtime::clock::Clock;
use steeple_runtime::metrics::CallCounter;
use steeple_runtime::tls::{EndpointTrust, LiveBundles, NoRoots, system_roots};
use steeple_server_core::federation::{Attempt, Facts, ReadError, Target, read_bundle};
use steeple_server_core::view::View;
use steeple_spiffe::{SpiffeId, TrustDomain};
use tonic::Code;

#[derive(Clone)]
pub struct Poller {
    pub store: Arc<dyn Datastore>,
    pub view: Arc<View>,
    pub clock: Arc<dyn Clock>,
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error("failed to fetch local federated bundle: {0}")]
    Local(#[source] StoreError),
    #[error("failed to fetch local copy of bundle for {:?}: {source}", trust_domain.name())]
    EndpointBundle { trust_domain: TrustDomain, source: StoreError },
    #[error(
        "can't perform SPIFFE Authentication: local copy of bundle not found: set it with `spire-server bundle set -id {}`",
        .0.id_string()
    )]
    NoEndpointBundle(TrustDomain),
    #[error(transparent)]
    NoRoots(#[from] NoRoots),
    #[error("failed to fetch federated bundle from endpoint: {0}")]
    Fetch(#[from] FetchError),
    #[error("failed to fetch federated bundle from endpoint: {url}: {source}")]
    Read { url: String, source: ReadError },
    #[error(
        "{url}: the endpoint serves an older bundle: its sequence number is {fetched}, the stored one's is {stored}; if the \
         trust domain really went back, set its bundle with `spire-server bundle set -id {}`",
        trust_domain.id_string()
    )]
    Older { url: String, trust_domain: TrustDomain, fetched: u64, stored: u64 },
    #[error("failed to store fetched federated bundle: {0}")]
    Store(#[source] StoreError),
}

impl Poller {
    /// Log lines and metrics are SPIRE's.
    pub async fn attempt(&self, trust_domain: &TrustDomain, target: &Target) -> Attempt {
        let name = trust_domain.name();
        tracing::debug!(subsystem_name = "bundle_client", trust_domain = name, "Polling for bundle update");
        let call = CallCounter::start(&["bundle_manager", "fetch", "federated_bundle"])
            .label("trust_domain_id", name.to_owned());
        let outcome = self.refresh(trust_domain, target).await;
        call.done(if outcome.is_ok() { Code::Ok } else { Code::Unknown });
        let error = match outcome {
            Ok(RefreshedBundle::Stored) => {
                metrics::counter!("bundle_manager.update.federated_bundle", "trust_domain_id" => name.to_owned())
                    .increment(1);
                tracing::info!(subsystem_name = "bundle_client", trust_domain = name, "Bundle refreshed");
                None
            }
            Ok(_) => None,
            Err(error) => {
                tracing::error!(
                    subsystem_name = "bundle_client",
                    trust_domain = name,
                    %error,
                    "Error updating bundle"
                );
                Some(error.to_string())
            }
        };
        // A store that cannot be read now is no reason to take the bundle for gone.
        let stored = match self.store.fetch_bundle(trust_domain).await {
            Ok(stored) => stored.as_ref().map(Facts::of),
            Err(_) => self.view.bundle(trust_domain).map(|bundle| Facts::of(&bundle)),
        };
        Attempt { stored, error }
    }

    async fn refresh(
        &self,
        trust_domain: &TrustDomain,
        target: &Target,
    ) -> Result<RefreshedBundle, PollError> {
        // A database that is down is told first, and asks nobody else for anything.
        self.store.fetch_bundle(trust_domain).await.map_err(PollError::Local)?;
        let trust = self.trust(&target.profile).await?;
        let document = fetch(&target.url, trust, self.clock.clone()).await?;
        let bundles = self.view.watch_bundles().borrow().clone();
        let read = read_bundle(trust_domain, &document, |known| bundles.contains_key(known))
            .map_err(|source| PollError::Read { url: target.url.clone(), source })?;
        for skipped in &read.skipped {
            tracing::warn!(
                subsystem_name = "bundle_client",
                trust_domain = trust_domain.name(),
                entry = skipped.entry,
                reason = skipped.reason,
                "An entry of the fetched bundle is left out"
            );
        }
        if let Some(id) = &read.foreign_id {
            tracing::warn!(
                subsystem_name = "bundle_client",
                trust_domain = trust_domain.name(),
                spiffe_id = id.as_str(),
                "An X.509 authority of the fetched bundle has the ID of another trust domain"
            );
        }
        let fetched = read.bundle.sequence_number;
        match self.store.refresh_bundle(read.bundle, self.clock.now()).await.map_err(PollError::Store)? {
            RefreshedBundle::Older { stored } => {
                let (url, trust_domain) = (target.url.clone(), trust_domain.clone());
                Err(PollError::Older { url, trust_domain, fetched, stored })
            }
            refreshed => Ok(refreshed),
        }
    }

    async fn trust(&self, profile: &EndpointProfile) -> Result<EndpointTrust, PollError> {
        match profile {
            EndpointProfile::HttpsWeb => {
                let roots = tokio::task::spawn_blocking(system_roots).await;
                let roots = roots.unwrap_or_else(|_| system_roots())?;
                Ok(EndpointTrust::Web(roots))
            }
            EndpointProfile::HttpsSpiffe { endpoint_spiffe_id } => {
                self.spiffe_trust(endpoint_spiffe_id).await
            }
        }
    }

    /// The endpoint's trust domain may be any, ours too (SPIFFE Federation §5.2.2.2).
    async fn spiffe_trust(&self, id: &SpiffeId) -> Result<EndpointTrust, PollError> {
        let trust_domain = id.trust_domain();
        let stored = self.store.fetch_bundle(&trust_domain).await;
        let stored = stored
            .map_err(|source| PollError::EndpointBundle { trust_domain: trust_domain.clone(), source })?;
        let bundle = stored.ok_or_else(|| PollError::NoEndpointBundle(trust_domain.clone()))?;
        let bundles = LiveBundles::new();
        let authorities = bundle.x509_authorities.into_iter().map(|authority| authority.certificate);
        bundles.set(&trust_domain, authorities.collect());
        Ok(EndpointTrust::Spiffe { id: id.clone(), bundles })
    }
}
