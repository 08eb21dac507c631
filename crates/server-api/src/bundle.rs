//! `spire.api.server.bundle.v1.Bundle`: our own bundle and those of other trust domains.

mod error;
mod fields;

use std::sync::Arc;

use steeple_datastore::BundleDeleteMode;
use steeple_proto::spire::api::server::bundle::v1 as pb;
use steeple_proto::spire::api::types;
use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;
use tonic::{Request, Response, Status};
use tracing::Level;

pub use error::BundleError;
pub(crate) use fields::of_bundle as bundle_fields;

use crate::convert::{
    apply_bundle_mask, bundle_from_proto, bundle_mask_from_proto, bundle_to_proto,
    jwt_authorities_from_proto, jwt_authorities_to_proto, x509_authorities_from_proto,
};
use crate::entry::page_request;
use crate::error::item_ok;
use crate::rpc::{Fields, Rpc};
use crate::state::ServerState;

/// The service.
#[derive(Clone, Debug)]
pub struct BundleService {
    state: Arc<ServerState>,
}

impl BundleService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }

    /// A trust domain other than ours.
    fn foreign(&self, name: &str, doing: &'static str) -> Result<TrustDomain, BundleError> {
        let td = TrustDomain::new(name).map_err(BundleError::TrustDomain)?;
        if td == self.state.trust_domain {
            return Err(BundleError::OwnTrustDomain(doing));
        }
        Ok(td)
    }

    fn foreign_bundle(&self, bundle: &types::Bundle, doing: &'static str) -> Result<Bundle, BundleError> {
        self.foreign(&bundle.trust_domain, doing)?;
        bundle_from_proto(bundle).map_err(BundleError::Convert)
    }

    async fn append(&self, request: &pb::AppendBundleRequest) -> Result<Bundle, BundleError> {
        if request.jwt_authorities.is_empty() && request.x509_authorities.is_empty() {
            return Err(BundleError::NothingToAppend);
        }
        let mut added = Bundle::new(self.state.trust_domain.clone());
        added.jwt_authorities =
            jwt_authorities_from_proto(&request.jwt_authorities).map_err(BundleError::AppendJwt)?;
        added.x509_authorities =
            x509_authorities_from_proto(&request.x509_authorities).map_err(BundleError::AppendX509)?;
        self.state.store.append_bundle(added, self.state.clock.now()).await.map_err(BundleError::Append)
    }

    async fn publish_jwt(&self, key: Option<types::JwtKey>) -> Result<Bundle, BundleError> {
        let key = key.ok_or(BundleError::MissingJwtAuthority)?;
        let mut added = Bundle::new(self.state.trust_domain.clone());
        added.jwt_authorities = jwt_authorities_from_proto(&[key]).map_err(BundleError::JwtAuthority)?;
        self.state.store.append_bundle(added, self.state.clock.now()).await.map_err(BundleError::Publish)
    }

    async fn publish_wit(&self, key: Option<types::WitKey>) -> Result<Bundle, BundleError> {
        let key = key.ok_or(BundleError::MissingWitAuthority)?;
        let mut added = Bundle::new(self.state.trust_domain.clone());
        let keys = jwt_authorities_from_proto(&[as_jwt(&key)]).map_err(BundleError::WitAuthority)?;
        added.wit_authorities = keys;
        self.state.store.append_bundle(added, self.state.clock.now()).await.map_err(BundleError::PublishWit)
    }

    async fn create(&self, bundle: &types::Bundle) -> Result<Bundle, BundleError> {
        let bundle = self.foreign_bundle(bundle, "creating")?;
        self.state.store.create_bundle(bundle, self.state.clock.now()).await.map_err(BundleError::create)
    }

    async fn set(&self, bundle: &types::Bundle) -> Result<Bundle, BundleError> {
        let bundle = self.foreign_bundle(bundle, "setting")?;
        self.state.store.set_bundle(bundle, self.state.clock.now()).await.map_err(BundleError::Set)
    }

    async fn update(
        &self,
        bundle: &types::Bundle,
        mask: Option<&types::BundleMask>,
    ) -> Result<Bundle, BundleError> {
        let bundle = self.foreign_bundle(bundle, "updating")?;
        let updated = self
            .state
            .store
            .update_bundle(bundle, bundle_mask_from_proto(mask), self.state.clock.now())
            .await;
        updated.map_err(BundleError::update)?.ok_or(BundleError::NotFound)
    }

    async fn delete(&self, trust_domain: &str, mode: BundleDeleteMode) -> Result<(), BundleError> {
        let td = TrustDomain::new(trust_domain).map_err(BundleError::TrustDomain)?;
        if td == self.state.trust_domain {
            return Err(BundleError::DeleteOwn);
        }
        match self.state.store.delete_bundle(&td, mode).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(BundleError::NotFound),
            Err(e) => Err(BundleError::delete(e)),
        }
    }
}

#[tonic::async_trait]
impl pb::bundle_server::Bundle for BundleService {
    async fn count_bundles(
        &self,
        request: Request<pb::CountBundlesRequest>,
    ) -> Result<Response<pb::CountBundlesResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let count = self.state.store.count_bundles().await.map_err(|e| rpc.refuse(BundleError::Count(e)))?;
        rpc.audit();
        Ok(Response::new(pb::CountBundlesResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn get_bundle(
        &self,
        request: Request<pb::GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let rpc = Rpc::of(&request)?;
        let td = &self.state.trust_domain;
        rpc.audit_fields(|| Fields::default().with("trust_domain_id", td.name()));
        // Every agent and health check asks: answered from the view, which holds what this server has written.
        self.state.fresh().await;
        let bundle = self.state.view.bundle(td).ok_or_else(|| rpc.refuse(BundleError::NotFound))?;
        rpc.audit();
        Ok(Response::new(masked(&bundle, request.get_ref().output_mask.as_ref())))
    }

    async fn append_bundle(
        &self,
        request: Request<pb::AppendBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        rpc.audit_fields(|| fields::of_authorities(&request.x509_authorities, &request.jwt_authorities));
        let bundle = self.append(&request).await.map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        Ok(Response::new(masked(&bundle, request.output_mask.as_ref())))
    }

    async fn publish_jwt_authority(
        &self,
        request: Request<pb::PublishJwtAuthorityRequest>,
    ) -> Result<Response<pb::PublishJwtAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let key = request.into_inner().jwt_authority;
        rpc.audit_fields(|| key.as_ref().map(fields::of_jwt_authority).unwrap_or_default());
        rpc.limit("rejecting request due to key publishing rate limiting", 1).await?;
        let bundle = self.publish_jwt(key).await.map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        let jwt_authorities = jwt_authorities_to_proto(&bundle.jwt_authorities);
        Ok(Response::new(pb::PublishJwtAuthorityResponse { jwt_authorities }))
    }

    async fn publish_wit_authority(
        &self,
        request: Request<pb::PublishWitAuthorityRequest>,
    ) -> Result<Response<pb::PublishWitAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let key = request.into_inner().wit_authority;
        if self.state.ca.config().wit.is_none() {
            return Err(rpc.refuse(BundleError::Wit));
        }
        rpc.audit_fields(|| {
            key.as_ref().map(|key| fields::of_jwt_authority(&as_jwt(key))).unwrap_or_default()
        });
        rpc.limit("rejecting request due to key publishing rate limiting", 1).await?;
        let bundle = self.publish_wit(key).await.map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        let wit_authorities = bundle_to_proto(&bundle).wit_authorities;
        Ok(Response::new(pb::PublishWitAuthorityResponse { wit_authorities }))
    }

    async fn list_federated_bundles(
        &self,
        request: Request<pb::ListFederatedBundlesRequest>,
    ) -> Result<Response<pb::ListFederatedBundlesResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let page = page_request(request.page_size, request.page_token);
        let page =
            self.state.store.list_bundles(&page).await.map_err(|e| rpc.refuse(BundleError::List(e)))?;
        rpc.audit();
        Ok(Response::new(pb::ListFederatedBundlesResponse {
            bundles: page
                .items
                .iter()
                .filter(|bundle| bundle.trust_domain != self.state.trust_domain)
                .map(|bundle| masked(bundle, request.output_mask.as_ref()))
                .collect(),
            next_page_token: page.next_token,
        }))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<pb::GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        rpc.audit_fields(|| Fields::default().with("trust_domain_id", &request.trust_domain));
        let td = self.foreign(&request.trust_domain, "getting").map_err(|e| rpc.refuse(e))?;
        let bundle =
            self.state.store.fetch_bundle(&td).await.map_err(|e| rpc.refuse(BundleError::Fetch(e)))?;
        let bundle = bundle.ok_or_else(|| rpc.refuse(BundleError::NotFound))?;
        rpc.audit();
        Ok(Response::new(masked(&bundle, request.output_mask.as_ref())))
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<pb::BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<pb::BatchCreateFederatedBundleResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let mut results = Vec::with_capacity(request.bundle.len());
        for bundle in &request.bundle {
            let outcome = self.create(bundle).await;
            let (status, stored) = item(&rpc, bundle, outcome, (Level::DEBUG, "Federated bundle created"));
            rpc.audit_item(&status, || fields::of_bundle(bundle, None));
            let bundle = stored.map(|b| masked(&b, request.output_mask.as_ref()));
            results.push(pb::batch_create_federated_bundle_response::Result { status: Some(status), bundle });
        }
        Ok(Response::new(pb::BatchCreateFederatedBundleResponse { results }))
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<pb::BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<pb::BatchUpdateFederatedBundleResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let mask = request.input_mask.as_ref();
        let mut results = Vec::with_capacity(request.bundle.len());
        for bundle in &request.bundle {
            let outcome = self.update(bundle, mask).await;
            let (status, stored) = item(&rpc, bundle, outcome, (Level::DEBUG, "Federated bundle updated"));
            rpc.audit_item(&status, || fields::of_bundle(bundle, mask));
            let bundle = stored.map(|b| masked(&b, request.output_mask.as_ref()));
            results.push(pb::batch_update_federated_bundle_response::Result { status: Some(status), bundle });
        }
        Ok(Response::new(pb::BatchUpdateFederatedBundleResponse { results }))
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<pb::BatchSetFederatedBundleRequest>,
    ) -> Result<Response<pb::BatchSetFederatedBundleResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let mut results = Vec::with_capacity(request.bundle.len());
        for bundle in &request.bundle {
            let outcome = self.set(bundle).await;
            let (status, stored) = item(&rpc, bundle, outcome, (Level::INFO, "Bundle set successfully"));
            rpc.audit_item(&status, || fields::of_bundle(bundle, None));
            let bundle = stored.map(|b| masked(&b, request.output_mask.as_ref()));
            results.push(pb::batch_set_federated_bundle_response::Result { status: Some(status), bundle });
        }
        Ok(Response::new(pb::BatchSetFederatedBundleResponse { results }))
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<pb::BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<pb::BatchDeleteFederatedBundleResponse>, Status> {
        use pb::batch_delete_federated_bundle_request::Mode;
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let (mode, mode_name) = match Mode::try_from(request.mode) {
            Ok(Mode::Restrict) => (BundleDeleteMode::Restrict, "RESTRICT"),
            Ok(Mode::Delete) => (BundleDeleteMode::Delete, "DELETE"),
            Ok(Mode::Dissociate) => (BundleDeleteMode::Dissociate, "DISSOCIATE"),
            Err(_) => return Err(rpc.refuse(BundleError::DeleteMode(request.mode))),
        };
        let mut results = Vec::with_capacity(request.trust_domains.len());
        for trust_domain in request.trust_domains {
            let fields = || Fields::default().with("trust_domain_id", &trust_domain);
            let status = match self.delete(&trust_domain, mode).await {
                Ok(()) => item_ok(),
                Err(e) => rpc.refuse_item(&e, fields()),
            };
            rpc.audit_item(&status, || fields().with("mode", mode_name));
            results.push(pb::batch_delete_federated_bundle_response::Result {
                status: Some(status),
                trust_domain,
            });
        }
        Ok(Response::new(pb::BatchDeleteFederatedBundleResponse { results }))
    }
}

/// The two messages have the same fields.
fn as_jwt(key: &types::WitKey) -> types::JwtKey {
    types::JwtKey {
        public_key: key.public_key.clone(),
        key_id: key.key_id.clone(),
        expires_at: key.expires_at,
        tainted: key.tainted,
    }
}

fn masked(bundle: &Bundle, mask: Option<&types::BundleMask>) -> types::Bundle {
    let mut out = bundle_to_proto(bundle);
    apply_bundle_mask(&mut out, mask);
    out
}

/// Logs how one item went and makes its status.
fn item(
    rpc: &Rpc,
    asked: &types::Bundle,
    outcome: Result<Bundle, BundleError>,
    done: (Level, &str),
) -> (types::Status, Option<Bundle>) {
    let fields = Fields::default().with("trust_domain_id", &asked.trust_domain);
    match outcome {
        Ok(bundle) => {
            rpc.log(done.0, done.1, fields);
            (item_ok(), Some(bundle))
        }
        Err(e) => (rpc.refuse_item(&e, fields), None),
    }
}
