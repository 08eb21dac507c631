//! Node attestors, and what they may ask the server.

use std::collections::HashMap;
use std::sync::Arc;

use steeple_datastore::Datastore;
use steeple_plugin::{AttestError, AttestorHost, ServerNodeAttestor};
use steeple_plugins_base::node_attestor::http_challenge::HttpChallenge;
use steeple_plugins_base::node_attestor::sshpop::SshPop;
use steeple_plugins_base::node_attestor::x509pop::X509Pop;
use steeple_runtime::clock::Clock;
use steeple_server_core::view::View;
use steeple_spiffe::{Certificate, SpiffeId};

use crate::config::{AttestorConfig, Config};

/// Those configured, by name.
pub fn build(
    config: &Config,
    store: &Arc<dyn Datastore>,
    view: &Arc<View>,
    clock: &Arc<dyn Clock>,
) -> HashMap<String, Arc<dyn ServerNodeAttestor>> {
    let host: Arc<dyn AttestorHost> = Arc::new(Host { store: store.clone(), view: view.clone() });
    let trust_domain = || config.trust_domain.clone();
    let build = |attestor: &AttestorConfig| -> Arc<dyn ServerNodeAttestor> {
        match attestor.clone() {
            AttestorConfig::X509Pop(config) => {
                Arc::new(X509Pop::new(config, trust_domain(), host.clone(), clock.clone()))
            }
            AttestorConfig::SshPop(config) => Arc::new(SshPop::new(config, trust_domain(), clock.clone())),
            AttestorConfig::HttpChallenge(config) => {
                Arc::new(HttpChallenge::new(config, trust_domain(), host.clone()))
            }
        }
    };
    let built = config.plugins.attestors.iter().map(build);
    built.map(|attestor| (attestor.name().to_owned(), attestor)).collect()
}

struct Host {
    store: Arc<dyn Datastore>,
    view: Arc<View>,
}

#[tonic::async_trait]
impl AttestorHost for Host {
    async fn is_attested(&self, agent: &SpiffeId) -> Result<bool, AttestError> {
        let found = self.store.fetch_agent(agent).await;
        found
            .map(|agent| agent.is_some())
            .map_err(|error| AttestError::Unavailable(format!("unable to get agent info: {error}")))
    }

    async fn x509_authorities(&self) -> Result<Vec<Certificate>, AttestError> {
        let bundle = self.view.bundle(self.view.trust_domain());
        Ok(bundle
            .map(|bundle| {
                bundle.x509_authorities.iter().map(|authority| authority.certificate.clone()).collect()
            })
            .unwrap_or_default())
    }
}
