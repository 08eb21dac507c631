//! `spire.api.server.trustdomain.v1.TrustDomain`: relationships with other trust domains (spire.md §6.5).

mod convert;
mod error;
mod fields;

use std::sync::Arc;

use steeple_datastore::{EndpointProfile, FederationRelationship, PageRequest};
use steeple_proto::spire::api::server::trustdomain::v1 as pb;
use steeple_proto::spire::api::types;
use steeple_server_core::federation::Refreshed;
use steeple_spiffe::TrustDomain;
use tonic::{Request, Response, Status};
use tracing::Level;

pub use convert::RelationshipError;
pub use error::TrustDomainError;

use crate::entry::page_request;
use crate::error::item_ok;
use crate::rpc::{Fields, Rpc};
use crate::state::ServerState;
use convert::{mask_from_proto, relationship_from_proto, relationship_to_proto};

/// The service.
#[derive(Clone, Debug)]
pub struct TrustDomainService {
    state: Arc<ServerState>,
}

impl TrustDomainService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }

    async fn create(
        &self,
        asked: &types::FederationRelationship,
    ) -> Result<FederationRelationship, TrustDomainError> {
        let relationship = relationship_from_proto(asked).map_err(TrustDomainError::Convert)?;
        if relationship.trust_domain == self.state.trust_domain {
            return Err(TrustDomainError::OwnTrustDomain);
        }
        let now = self.state.clock.now();
        let made = self.state.store.create_federation_relationship(relationship, now).await;
        made.map_err(TrustDomainError::Create)
    }

    /// What the mask leaves out is checked all the same, as in SPIRE.
    async fn update(
        &self,
        asked: &types::FederationRelationship,
        mask: Option<&types::FederationRelationshipMask>,
    ) -> Result<FederationRelationship, TrustDomainError> {
        let relationship = relationship_from_proto(asked).map_err(TrustDomainError::Convert)?;
        let (mask, now) = (mask_from_proto(mask), self.state.clock.now());
        let updated = self.state.store.update_federation_relationship(relationship, mask, now).await;
        updated.map_err(TrustDomainError::Update)?.ok_or(TrustDomainError::UpdateMissing)
    }

    /// Answers the name under which it was known too.
    async fn delete(&self, asked: &str) -> (String, Result<(), TrustDomainError>) {
        if asked.is_empty() {
            return (String::new(), Err(TrustDomainError::Missing));
        }
        let trust_domain = match TrustDomain::new(asked) {
            Ok(trust_domain) => trust_domain,
            Err(e) => return (asked.to_owned(), Err(TrustDomainError::Parse(e))),
        };
        let outcome = match self.state.store.delete_federation_relationship(&trust_domain).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(TrustDomainError::DeleteMissing),
            Err(e) => Err(TrustDomainError::Delete(e)),
        };
        (trust_domain.name().to_owned(), outcome)
    }

    async fn refresh(&self, asked: &str) -> Result<TrustDomain, TrustDomainError> {
        let trust_domain = TrustDomain::new(asked).map_err(TrustDomainError::Parse)?;
        match self.state.federation.refresh(trust_domain.clone()).await {
            Refreshed::Done => Ok(trust_domain),
            Refreshed::Unmanaged => Err(TrustDomainError::Unmanaged(trust_domain)),
            Refreshed::Failed(why) => Err(TrustDomainError::Refresh(crate::error::Cause(why))),
        }
    }

    /// Logs how one item went and makes its status; `made` is how it is answered.
    async fn item(
        &self,
        rpc: &Rpc,
        asked: &types::FederationRelationship,
        mask: Option<&types::FederationRelationshipMask>,
        outcome: Result<FederationRelationship, TrustDomainError>,
        done: &str,
    ) -> (types::Status, Option<types::FederationRelationship>) {
        let fields = Fields::default().with("trust_domain_id", &asked.trust_domain);
        match outcome {
            Ok(made) => {
                self.warn_of_missing_bundle(rpc, &made, &fields).await;
                rpc.log(Level::DEBUG, done, fields);
                (item_ok(), Some(relationship_to_proto(&made, mask)))
            }
            Err(e) => (rpc.refuse_item(&e, fields), None),
        }
    }

    /// Without its trust domain's bundle the endpoint cannot be known.
    async fn warn_of_missing_bundle(&self, rpc: &Rpc, made: &FederationRelationship, fields: &Fields) {
        let EndpointProfile::HttpsSpiffe { endpoint_spiffe_id: id } = &made.profile else { return };
        if made.bundle.is_some() {
            return;
        }
        let text = match self.state.store.fetch_bundle(&id.trust_domain()).await {
            Ok(Some(_)) => return,
            Ok(None) => "bundle not found for the endpoint SPIFFE ID trust domain",
            Err(_) => "failed to check whether a bundle exists for the endpoint SPIFFE ID trust domain",
        };
        rpc.log(Level::WARN, text, fields.clone().with("endpoint_spiffe_id", id.as_str()));
    }

    async fn list(&self, page: &PageRequest, with_bundles: bool) -> Result<Listed, TrustDomainError> {
        let listed = self.state.store.list_federation_relationships(page, with_bundles).await;
        listed.map_err(TrustDomainError::List)
    }
}

type Listed = steeple_datastore::Page<FederationRelationship>;

#[tonic::async_trait]
impl pb::trust_domain_server::TrustDomain for TrustDomainService {
    async fn list_federation_relationships(
        &self,
        request: Request<pb::ListFederationRelationshipsRequest>,
    ) -> Result<Response<pb::ListFederationRelationshipsResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let mask = request.output_mask.as_ref();
        let page = page_request(request.page_size, request.page_token);
        let with_bundles = mask.is_none_or(|mask| mask.trust_domain_bundle);
        let listed = self.list(&page, with_bundles).await.map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        Ok(Response::new(pb::ListFederationRelationshipsResponse {
            federation_relationships: listed
                .items
                .iter()
                .map(|found| relationship_to_proto(found, mask))
                .collect(),
            next_page_token: listed.next_token,
        }))
    }

    async fn get_federation_relationship(
        &self,
        request: Request<pb::GetFederationRelationshipRequest>,
    ) -> Result<Response<types::FederationRelationship>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        rpc.audit_fields(|| Fields::default().with("trust_domain_id", &request.trust_domain));
        let trust_domain =
            TrustDomain::new(&request.trust_domain).map_err(|e| rpc.refuse(TrustDomainError::Parse(e)))?;
        let found = self.state.store.fetch_federation_relationship(&trust_domain).await;
        let found = found.map_err(|e| rpc.refuse(TrustDomainError::Fetch(e)))?;
        let found = found.ok_or_else(|| rpc.refuse(TrustDomainError::NotFound))?;
        rpc.audit();
        Ok(Response::new(relationship_to_proto(&found, request.output_mask.as_ref())))
    }

    async fn batch_create_federation_relationship(
        &self,
        request: Request<pb::BatchCreateFederationRelationshipRequest>,
    ) -> Result<Response<pb::BatchCreateFederationRelationshipResponse>, Status> {
        use pb::batch_create_federation_relationship_response::Result as ItemResult;
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let mask = request.output_mask.as_ref();
        let mut results = Vec::with_capacity(request.federation_relationships.len());
        for asked in &request.federation_relationships {
            let outcome = self.create(asked).await;
            let (status, federation_relationship) =
                self.item(&rpc, asked, mask, outcome, "Federation relationship created").await;
            rpc.audit_item(&status, || fields::of_relationship(asked, None));
            results.push(ItemResult { status: Some(status), federation_relationship });
        }
        Ok(Response::new(pb::BatchCreateFederationRelationshipResponse { results }))
    }

    async fn batch_update_federation_relationship(
        &self,
        request: Request<pb::BatchUpdateFederationRelationshipRequest>,
    ) -> Result<Response<pb::BatchUpdateFederationRelationshipResponse>, Status> {
        use pb::batch_update_federation_relationship_response::Result as ItemResult;
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        let (input, mask) = (request.input_mask.as_ref(), request.output_mask.as_ref());
        let mut results = Vec::with_capacity(request.federation_relationships.len());
        for asked in &request.federation_relationships {
            let outcome = self.update(asked, input).await;
            let (status, federation_relationship) =
                self.item(&rpc, asked, mask, outcome, "Federation relationship updated").await;
            rpc.audit_item(&status, || fields::of_relationship(asked, input));
            results.push(ItemResult { status: Some(status), federation_relationship });
        }
        Ok(Response::new(pb::BatchUpdateFederationRelationshipResponse { results }))
    }

    async fn batch_delete_federation_relationship(
        &self,
        request: Request<pb::BatchDeleteFederationRelationshipRequest>,
    ) -> Result<Response<pb::BatchDeleteFederationRelationshipResponse>, Status> {
        use pb::batch_delete_federation_relationship_response::Result as ItemResult;
        let rpc = Rpc::of(&request)?;
        let mut results = Vec::new();
        for asked in request.into_inner().trust_domains {
            let fields = || Fields::default().with("trust_domain_id", &asked);
            let (trust_domain, outcome) = self.delete(&asked).await;
            let status = match outcome {
                Ok(()) => {
                    rpc.log(Level::DEBUG, "Federation relationship deleted", fields());
                    item_ok()
                }
                Err(e) => rpc.refuse_item(&e, fields()),
            };
            rpc.audit_item(&status, fields);
            results.push(ItemResult { status: Some(status), trust_domain });
        }
        Ok(Response::new(pb::BatchDeleteFederationRelationshipResponse { results }))
    }

    async fn refresh_bundle(
        &self,
        request: Request<pb::RefreshBundleRequest>,
    ) -> Result<Response<()>, Status> {
        let rpc = Rpc::of(&request)?;
        let asked = request.into_inner().trust_domain;
        let fields = || Fields::default().with("trust_domain_id", &asked);
        rpc.audit_fields(fields);
        let trust_domain = self.refresh(&asked).await.map_err(|e| rpc.refuse_with(e, fields()))?;
        let fields = Fields::default().with("trust_domain_id", trust_domain.name());
        rpc.log(Level::DEBUG, "Bundle refreshed", fields);
        rpc.audit();
        Ok(Response::new(()))
    }
}
