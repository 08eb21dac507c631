//! What `/live` and `/ready` look at, under SPIRE's names (spire.md §1.5).

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use steeple_datastore::{Datastore, PageRequest};
use steeple_proto::spire::api::server::bundle::v1::GetBundleRequest;
use steeple_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use steeple_runtime::health::{Check, DuplicateCheck, Health, State};
use steeple_server_core::ca::CaManager;

use super::jobs::Rotation;

/// SPIRE calls its rotator unhealthy beyond this many failures in a row.
const ROTATION_FAILURES: u32 = 6;

pub struct Subsystems {
    pub socket: PathBuf,
    pub ca: Arc<CaManager>,
    pub store: Arc<dyn Datastore>,
    pub rotation: Rotation,
}

pub fn add(health: &Health, subsystems: Subsystems) -> Result<(), DuplicateCheck> {
    health.add("catalog.datastore", Arc::new(Store(subsystems.store)))?;
    health.add("server.ca", Arc::new(Ca(subsystems.ca)))?;
    health.add("server.ca.rotator", Arc::new(Rotator(subsystems.rotation)))?;
    health.add("server", Arc::new(Server(subsystems.socket)))
}

struct Store(Arc<dyn Datastore>);

#[tonic::async_trait]
impl Check for Store {
    async fn check(&self) -> State {
        match self.0.list_bundles(&PageRequest { token: String::new(), size: 1 }).await {
            Ok(_) => State::ok(),
            Err(e) => State::failed(json!({ "list_bundle_err": e.to_string() })),
        }
    }
}

struct Ca(Arc<CaManager>);

#[tonic::async_trait]
impl Check for Ca {
    async fn check(&self) -> State {
        if self.0.x509_ready() {
            State::ok()
        } else {
            State::failed(json!({ "sign_x509_svid_err": "X509 CA is not available for signing" }))
        }
    }
}

struct Rotator(Rotation);

#[tonic::async_trait]
impl Check for Rotator {
    async fn check(&self) -> State {
        match self.0.failures() {
            (failures, last) if failures > ROTATION_FAILURES => {
                State::failed(json!({ "rotation_err": last }))
            }
            _ => State::ok(),
        }
    }
}

/// The whole way through our own socket.
struct Server(PathBuf);

#[tonic::async_trait]
impl Check for Server {
    async fn check(&self) -> State {
        match get_bundle(&self.0).await {
            Ok(()) => State::ok(),
            Err(e) => State::failed(json!({ "get_bundle_err": e })),
        }
    }
}

async fn get_bundle(socket: &std::path::Path) -> Result<(), String> {
    let path = socket.display().to_string();
    let channel = steeple_cli::connect::connect_unix(&path, &path).map_err(|e| e.to_string())?;
    let outcome = BundleClient::new(channel).get_bundle(GetBundleRequest::default()).await;
    outcome
        .map(drop)
        .map_err(|e| format!("unable to fetch bundle: {}", steeple_runtime::grpc::status_text(&e)))
}
