//! `spire.api.server.localauthority.v1.LocalAuthority`: this server's own authorities, rotated, tainted and revoked by
//! hand (spire.md §1.9). The conditions are [`steeple_server_core::ca::local`]'s.

use std::sync::Arc;

use steeple_proto::spire::api::server::localauthority::v1 as pb;
use steeple_server_core::ca::local::{AuthorityState, AuthorityStates, LocalError};
use steeple_server_core::ca::state::Kind;
use tonic::{Code, Request, Response, Status};
use tracing::Level;

use crate::error::ApiError;
use crate::rpc::{Fields, Rpc};
use crate::state::ServerState;

/// The service.
#[derive(Clone, Debug)]
pub struct LocalAuthorityService {
    state: Arc<ServerState>,
}

impl ApiError for LocalError {
    fn code(&self) -> Code {
        match self {
            Self::JwtDisabled | Self::WitDisabled => Code::Unimplemented,
            Self::Initializing => Code::Unavailable,
            Self::Prepare(..) | Self::Activate(..) | Self::NotPrepared(_) | Self::Store(..) => Code::Internal,
            Self::NoId | Self::UnexpectedId | Self::TaintCurrent | Self::NotOld(_) | Self::Invalid(..) => {
                Code::InvalidArgument
            }
            Self::HasUpstream(_) | Self::NoUpstream => Code::FailedPrecondition,
        }
    }
}

impl LocalAuthorityService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }

    fn now(&self) -> i64 {
        self.state.clock.now()
    }

    fn states(&self, rpc: &Rpc, kind: Kind) -> Result<AuthorityStates, Status> {
        let states = self.state.ca.authorities(kind).map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        Ok(states)
    }

    async fn prepare(&self, rpc: &Rpc, kind: Kind) -> Result<Option<pb::AuthorityState>, Status> {
        let state = self.state.ca.prepare_authority(kind, self.now()).await.map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        Ok(Some(to_proto(state)))
    }

    async fn activate(&self, rpc: &Rpc, kind: Kind, id: &str) -> Result<Option<pb::AuthorityState>, Status> {
        rpc.audit_fields(|| of_id("local_authority_id", id));
        let outcome = self.state.ca.activate_authority(kind, id, self.now()).await;
        let state = outcome.map_err(|e| rpc.refuse_with(e, of_id("local_authority_id", id)))?;
        rpc.audit();
        Ok(Some(to_proto(state)))
    }

    async fn taint(&self, rpc: &Rpc, kind: Kind, id: &str) -> Result<Option<pb::AuthorityState>, Status> {
        rpc.audit_fields(|| of_id("local_authority_id", id));
        let outcome = self.state.ca.taint_authority(kind, id, self.now()).await;
        let state = outcome.map_err(|e| rpc.refuse_with(e, of_id("local_authority_id", id)))?;
        rpc.audit();
        let message = match kind {
            Kind::X509 => "X.509 authority tainted successfully",
            Kind::Jwt => "JWT authority tainted successfully",
            Kind::Wit => "WIT authority tainted successfully",
        };
        rpc.log(Level::INFO, message, of_id("local_authority_id", id));
        Ok(Some(to_proto(state)))
    }

    async fn revoke(&self, rpc: &Rpc, kind: Kind, id: &str) -> Result<Option<pb::AuthorityState>, Status> {
        rpc.audit_fields(|| of_id("local_authority_id", id));
        let outcome = self.state.ca.revoke_authority(kind, id, self.now()).await;
        let state = outcome.map_err(|e| rpc.refuse_with(e, of_id("local_authority_id", id)))?;
        rpc.audit();
        let message = match kind {
            Kind::X509 => "X.509 authority revoked successfully",
            Kind::Jwt => "JWT authority revoked successfully",
            Kind::Wit => "WIT authority revoked successfully",
        };
        rpc.log(Level::INFO, message, of_id("local_authority_id", id));
        Ok(Some(to_proto(state)))
    }
}

fn to_proto(state: AuthorityState) -> pb::AuthorityState {
    pb::AuthorityState {
        authority_id: state.id,
        expires_at: state.expires_at,
        upstream_authority_subject_key_id: state.upstream_id,
    }
}

/// SPIRE leaves out what is empty.
fn of_id(name: &'static str, id: &str) -> Fields {
    Fields::default().with_some(name, Some(id).filter(|id| !id.is_empty()))
}

#[tonic::async_trait]
impl pb::local_authority_server::LocalAuthority for LocalAuthorityService {
    async fn get_jwt_authority_state(
        &self,
        request: Request<pb::GetJwtAuthorityStateRequest>,
    ) -> Result<Response<pb::GetJwtAuthorityStateResponse>, Status> {
        let states = self.states(&Rpc::of(&request)?, Kind::Jwt)?;
        Ok(Response::new(pb::GetJwtAuthorityStateResponse {
            active: Some(to_proto(states.active)),
            prepared: states.prepared.map(to_proto),
            old: states.old.map(to_proto),
        }))
    }

    async fn prepare_jwt_authority(
        &self,
        request: Request<pb::PrepareJwtAuthorityRequest>,
    ) -> Result<Response<pb::PrepareJwtAuthorityResponse>, Status> {
        let prepared_authority = self.prepare(&Rpc::of(&request)?, Kind::Jwt).await?;
        Ok(Response::new(pb::PrepareJwtAuthorityResponse { prepared_authority }))
    }

    async fn activate_jwt_authority(
        &self,
        request: Request<pb::ActivateJwtAuthorityRequest>,
    ) -> Result<Response<pb::ActivateJwtAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let activated_authority = self.activate(&rpc, Kind::Jwt, &request.get_ref().authority_id).await?;
        Ok(Response::new(pb::ActivateJwtAuthorityResponse { activated_authority }))
    }

    async fn taint_jwt_authority(
        &self,
        request: Request<pb::TaintJwtAuthorityRequest>,
    ) -> Result<Response<pb::TaintJwtAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let tainted_authority = self.taint(&rpc, Kind::Jwt, &request.get_ref().authority_id).await?;
        Ok(Response::new(pb::TaintJwtAuthorityResponse { tainted_authority }))
    }

    async fn revoke_jwt_authority(
        &self,
        request: Request<pb::RevokeJwtAuthorityRequest>,
    ) -> Result<Response<pb::RevokeJwtAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let revoked_authority = self.revoke(&rpc, Kind::Jwt, &request.get_ref().authority_id).await?;
        Ok(Response::new(pb::RevokeJwtAuthorityResponse { revoked_authority }))
    }

    async fn get_x509_authority_state(
        &self,
        request: Request<pb::GetX509AuthorityStateRequest>,
    ) -> Result<Response<pb::GetX509AuthorityStateResponse>, Status> {
        let states = self.states(&Rpc::of(&request)?, Kind::X509)?;
        Ok(Response::new(pb::GetX509AuthorityStateResponse {
            active: Some(to_proto(states.active)),
            prepared: states.prepared.map(to_proto),
            old: states.old.map(to_proto),
        }))
    }

    async fn prepare_x509_authority(
        &self,
        request: Request<pb::PrepareX509AuthorityRequest>,
    ) -> Result<Response<pb::PrepareX509AuthorityResponse>, Status> {
        let prepared_authority = self.prepare(&Rpc::of(&request)?, Kind::X509).await?;
        Ok(Response::new(pb::PrepareX509AuthorityResponse { prepared_authority }))
    }

    async fn activate_x509_authority(
        &self,
        request: Request<pb::ActivateX509AuthorityRequest>,
    ) -> Result<Response<pb::ActivateX509AuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let activated_authority = self.activate(&rpc, Kind::X509, &request.get_ref().authority_id).await?;
        Ok(Response::new(pb::ActivateX509AuthorityResponse { activated_authority }))
    }

    async fn taint_x509_authority(
        &self,
        request: Request<pb::TaintX509AuthorityRequest>,
    ) -> Result<Response<pb::TaintX509AuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let tainted_authority = self.taint(&rpc, Kind::X509, &request.get_ref().authority_id).await?;
        Ok(Response::new(pb::TaintX509AuthorityResponse { tainted_authority }))
    }

    async fn revoke_x509_authority(
        &self,
        request: Request<pb::RevokeX509AuthorityRequest>,
    ) -> Result<Response<pb::RevokeX509AuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let revoked_authority = self.revoke(&rpc, Kind::X509, &request.get_ref().authority_id).await?;
        Ok(Response::new(pb::RevokeX509AuthorityResponse { revoked_authority }))
    }

    async fn get_wit_authority_state(
        &self,
        request: Request<pb::GetWitAuthorityStateRequest>,
    ) -> Result<Response<pb::GetWitAuthorityStateResponse>, Status> {
        let states = self.states(&Rpc::of(&request)?, Kind::Wit)?;
        Ok(Response::new(pb::GetWitAuthorityStateResponse {
            active: Some(to_proto(states.active)),
            prepared: states.prepared.map(to_proto),
            old: states.old.map(to_proto),
        }))
    }

    async fn prepare_wit_authority(
        &self,
        request: Request<pb::PrepareWitAuthorityRequest>,
    ) -> Result<Response<pb::PrepareWitAuthorityResponse>, Status> {
        let prepared_authority = self.prepare(&Rpc::of(&request)?, Kind::Wit).await?;
        Ok(Response::new(pb::PrepareWitAuthorityResponse { prepared_authority }))
    }

    async fn activate_wit_authority(
        &self,
        request: Request<pb::ActivateWitAuthorityRequest>,
    ) -> Result<Response<pb::ActivateWitAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let activated_authority = self.activate(&rpc, Kind::Wit, &request.get_ref().authority_id).await?;
        Ok(Response::new(pb::ActivateWitAuthorityResponse { activated_authority }))
    }

    async fn taint_wit_authority(
        &self,
        request: Request<pb::TaintWitAuthorityRequest>,
    ) -> Result<Response<pb::TaintWitAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let tainted_authority = self.taint(&rpc, Kind::Wit, &request.get_ref().authority_id).await?;
        Ok(Response::new(pb::TaintWitAuthorityResponse { tainted_authority }))
    }

    async fn revoke_wit_authority(
        &self,
        request: Request<pb::RevokeWitAuthorityRequest>,
    ) -> Result<Response<pb::RevokeWitAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let revoked_authority = self.revoke(&rpc, Kind::Wit, &request.get_ref().authority_id).await?;
        Ok(Response::new(pb::RevokeWitAuthorityResponse { revoked_authority }))
    }

    async fn taint_x509_upstream_authority(
        &self,
        request: Request<pb::TaintX509UpstreamAuthorityRequest>,
    ) -> Result<Response<pb::TaintX509UpstreamAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let id = &request.get_ref().subject_key_id;
        rpc.audit_fields(|| of_id("subject_key_id", id));
        let outcome = self.state.ca.taint_upstream(id, self.now()).await;
        let done = outcome.map_err(|e| rpc.refuse_with(e, of_id("subject_key_id", id)))?;
        rpc.audit();
        rpc.log(Level::INFO, "X.509 upstream authority tainted successfully", of_id("subject_key_id", id));
        Ok(Response::new(pb::TaintX509UpstreamAuthorityResponse { upstream_authority_subject_key_id: done }))
    }

    async fn revoke_x509_upstream_authority(
        &self,
        request: Request<pb::RevokeX509UpstreamAuthorityRequest>,
    ) -> Result<Response<pb::RevokeX509UpstreamAuthorityResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let id = &request.get_ref().subject_key_id;
        rpc.audit_fields(|| of_id("subject_key_id", id));
        let outcome = self.state.ca.revoke_upstream(id, self.now()).await;
        let done = outcome.map_err(|e| rpc.refuse_with(e, of_id("subject_key_id", id)))?;
        rpc.audit();
        rpc.log(Level::INFO, "X.509 upstream authority successfully revoked", of_id("subject_key_id", id));
        Ok(Response::new(pb::RevokeX509UpstreamAuthorityResponse { upstream_authority_subject_key_id: done }))
    }
}
