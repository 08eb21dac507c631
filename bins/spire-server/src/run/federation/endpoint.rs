//! Our own bundle endpoint (spire.md §1.6).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use steeple_runtime::bundle_endpoint::{Answer, BundleEndpoint, CertificateFiles, Reload};
use steeple_runtime::tasks::{OnEnd, TaskGroup};
use steeple_runtime::tls::{KeyExchange, LiveIdentity};
use steeple_server_core::view::View;
use steeple_spiffe::Bundle;
use tokio::net::TcpListener;

use crate::config::{BundleEndpointConfig, ServingProfile};

/// Binds and serves it; answers where. `own` is what the server shows of itself.
pub async fn bind(
    config: &BundleEndpointConfig,
    exchange: KeyExchange,
    own: LiveIdentity,
    view: Arc<View>,
    tasks: &TaskGroup,
) -> anyhow::Result<SocketAddr> {
    let (identity, files) = match &config.profile {
        ServingProfile::HttpsSpiffe => (own, None),
        ServingProfile::HttpsWeb { certificate, key, sync_every } => {
            let files = load(certificate.clone(), key.clone()).await?;
            (files.identity(), Some((files, *sync_every)))
        }
    };
    let listener = TcpListener::bind(config.address).await.with_context(|| {
        let at = config.address;
        format!("cannot serve the bundle endpoint on {at}; check that nothing else listens there")
    })?;
    let answer = answer(view, config.refresh_hint);
    let endpoint = BundleEndpoint::with_key_exchange(exchange, listener, identity, answer)
        .context("cannot set up TLS for the bundle endpoint")?;
    let address = endpoint.address()?;
    tracing::info!(
        subsystem_name = "endpoints",
        addr = %address,
        refresh_hint = steeple_cli::go::seconds(config.refresh_hint),
        "Serving bundle endpoint"
    );
    tasks.spawn_until_shutdown("bundle endpoint", OnEnd::Shutdown, endpoint.serve());
    if let Some((files, every)) = files {
        tasks.spawn_until_shutdown("bundle endpoint certificate", OnEnd::Shutdown, keep_loaded(files, every));
    }
    Ok(address)
}

async fn load(certificate: PathBuf, key: PathBuf) -> anyhow::Result<CertificateFiles> {
    tokio::task::spawn_blocking(move || CertificateFiles::load(certificate, key))
        .await?
        .context("failed to load certificate of the bundle endpoint")
}

/// The document with our own hint, written once for each bundle.
fn answer(view: Arc<View>, refresh_hint: i64) -> Answer {
    let written: Mutex<Option<(Arc<Bundle>, Bytes)>> = Mutex::new(None);
    Arc::new(move || {
        let Some(bundle) = view.bundle(view.trust_domain()) else {
            tracing::error!(subsystem_name = "bundle_endpoint", "Unable to retrieve local bundle");
            return None;
        };
        let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, document)) = &*written
            && Arc::ptr_eq(of, &bundle)
        {
            return Some(document.clone());
        }
        let document = Bundle { refresh_hint: Some(refresh_hint), ..Bundle::clone(&bundle) }.to_spiffe_json();
        let document = Bytes::from(document);
        *written = Some((bundle, document.clone()));
        Some(document)
    })
}

async fn keep_loaded(mut files: CertificateFiles, every: Duration) {
    let interval = steeple_cli::go::nanos(every.as_nanos() as i128);
    tracing::info!(subsystem_name = "bundle_endpoint", interval, "Started watching certificate files");
    loop {
        tokio::time::sleep(every).await;
        let looked = tokio::task::spawn_blocking(move || {
            let outcome = files.reload();
            (files, outcome)
        });
        let Ok((back, outcome)) = looked.await else { return };
        files = back;
        match outcome {
            Reload::Unchanged => {}
            Reload::Loaded => {
                tracing::info!(
                    subsystem_name = "bundle_endpoint",
                    "Loaded provided certificate with success"
                );
            }
            Reload::Kept(error) => tracing::error!(
                subsystem_name = "bundle_endpoint",
                %error,
                "Failed to load certificate; the one loaded before stays in use"
            ),
        }
    }
}
