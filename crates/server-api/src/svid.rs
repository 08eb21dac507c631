//! `spire.api.server.svid.v1.SVID`: signing.

mod error;
mod wit;

use std::sync::Arc;

use steeple_datastore::model::Entry;
use steeple_proto::spire::api::server::svid::v1 as pb;
use steeple_proto::spire::api::types;
use steeple_runtime::grpc::PRIORITY_KEY;
use steeple_server_core::admission::Priority;
use steeple_server_core::ca::{DownstreamCaParams, JwtParams, SignedX509, WorkloadX509Params};
use steeple_spiffe::SpiffeId;
use steeple_spiffe::x509::{CertificateRequest, check_wildcard_overlap, validate_dns_name};
use tonic::{Request, Response, Status};
use tracing::Level;

pub use error::SvidError;

use crate::convert::{check_workload_id, id_to_proto, workload_id_from_proto};
use crate::error::item_ok;
use crate::hash::sha256_hex;
use crate::rpc::{Fields, Rpc, rfc3339};
use crate::state::ServerState;

/// The service.
#[derive(Clone, Debug)]
pub struct SvidService {
    state: Arc<ServerState>,
}

impl SvidService {
    pub fn new(state: Arc<ServerState>) -> Self {
        Self { state }
    }

    async fn mint_x509(&self, rpc: &Rpc, csr: &[u8], ttl: i32) -> Result<types::X509svid, SvidError> {
        if csr.is_empty() {
            return Err(SvidError::MissingCsr);
        }
        let csr = CertificateRequest::from_der(csr).map_err(SvidError::MalformedCsr)?;
        csr.verify_signature().map_err(SvidError::MintSignature)?;
        let uris = csr.uri_sans();
        let uri = match uris.as_slice() {
            [uri] => uri,
            [] => return Err(SvidError::NoUri),
            _ => return Err(SvidError::ManyUris),
        };
        let id = SpiffeId::from_uri(uri).map_err(|e| SvidError::Uri(e.into()))?;
        check_workload_id(&self.state.trust_domain, &id).map_err(SvidError::Uri)?;
        let dns_names = csr.dns_names();
        for name in &dns_names {
            validate_dns_name(name).map_err(SvidError::DnsName)?;
        }
        check_wildcard_overlap(&dns_names).map_err(SvidError::DnsOverlap)?;
        let fields = Fields::default().with("spiffe_id", id.as_str()).with("dns_name", dns_names.join(","));
        let subject = csr.subject().clone();
        let params = WorkloadX509Params {
            spiffe_id: id.clone(),
            public_key: csr.public_key(),
            dns_names,
            ttl,
            subject: (!subject.is_empty()).then_some(subject),
            priority: Priority::Waiting,
        };
        let signed = self
            .state
            .ca
            .sign_workload_x509(params, self.state.clock.now())
            .await
            .map_err(SvidError::Sign)?;
        rpc.audit_fields(|| Fields::default().with("expires_at", rfc3339(signed.expires_at)));
        rpc.audit_with(|| fields.clone());
        log_signed(rpc, &signed, || fields);
        Ok(x509_to_proto(&id, signed))
    }

    async fn new_x509(
        &self,
        rpc: &Rpc,
        params: &pb::NewX509svidParams,
        priority: Priority,
    ) -> Result<types::X509svid, SvidError> {
        let (agent, state) = (rpc.caller_id().map_err(|_| SvidError::NoCaller)?, &*self.state);
        if params.entry_id.is_empty() {
            return Err(SvidError::MissingEntryId);
        }
        if params.csr.is_empty() {
            return Err(SvidError::MissingCsr);
        }
        let entry = state.view.authorized_entry(agent, &params.entry_id).ok_or(SvidError::NotAuthorized)?;
        let csr = CertificateRequest::from_der(&params.csr).map_err(SvidError::MalformedCsr)?;
        csr.verify_signature().map_err(SvidError::CsrSignature)?;
        let signing = WorkloadX509Params {
            spiffe_id: entry.spiffe_id.clone(),
            public_key: csr.public_key(),
            dns_names: entry.dns_names.clone(),
            ttl: entry.x509_svid_ttl,
            subject: None,
            priority,
        };
        let signed =
            state.ca.sign_workload_x509(signing, state.clock.now()).await.map_err(SvidError::Sign)?;
        log_signed(rpc, &signed, || {
            Fields::default()
                .with("entry_id", &params.entry_id)
                .with("spiffe_id", entry.spiffe_id.as_str())
                .with("revision_number", entry.revision_number)
        });
        Ok(x509_to_proto(&entry.spiffe_id, signed))
    }

    async fn mint_jwt(
        &self,
        rpc: &Rpc,
        id: &SpiffeId,
        audience: Vec<String>,
        ttl: i32,
        include_jti: bool,
    ) -> Result<types::Jwtsvid, SvidError> {
        if audience.is_empty() {
            return Err(SvidError::NoAudience);
        }
        let asked_for = tracing::enabled!(Level::DEBUG).then(|| audience.join(","));
        let params =
            JwtParams { spiffe_id: id.clone(), audience, ttl, include_jti, priority: Priority::Waiting };
        let signed =
            self.state.ca.sign_jwt(params, self.state.clock.now()).await.map_err(SvidError::SignJwt)?;
        metrics::counter!("server_ca.sign.jwt_svid").increment(1);
        if let Some(audience) = asked_for {
            let fields = Fields::default()
                .with("spiffe_id", id.as_str())
                .with("audience", audience)
                .with("expiration", rfc3339(signed.expires_at));
            rpc.log(Level::DEBUG, "Server CA successfully signed JWT SVID", fields);
        }
        Ok(types::Jwtsvid {
            token: signed.token,
            id: Some(id_to_proto(id)),
            expires_at: signed.expires_at,
            issued_at: signed.issued_at,
            hint: String::new(),
        })
    }

    fn entry_of(&self, rpc: &Rpc, entry_id: &str) -> Result<Arc<Entry>, SvidError> {
        let agent = rpc.caller_id().map_err(|_| SvidError::NoCaller)?;
        self.state.view.authorized_entry(agent, entry_id).ok_or(SvidError::NotAuthorized)
    }

    async fn downstream_ca(
        &self,
        rpc: &Rpc,
        csr: &[u8],
        ttl: i32,
    ) -> Result<pb::NewDownstreamX509caResponse, SvidError> {
        rpc.downstream_entry().ok_or(SvidError::NotDownstream)?;
        let csr = CertificateRequest::from_der(csr).map_err(SvidError::MalformedCsr)?;
        csr.verify_signature().map_err(SvidError::CsrSignature)?;
        let params = DownstreamCaParams { public_key: csr.public_key(), ttl };
        let state = &*self.state;
        let signed = state
            .ca
            .sign_downstream_ca(params, state.clock.now())
            .await
            .map_err(SvidError::SignDownstream)?;
        metrics::counter!("server_ca.sign.x509_ca_svid").increment(1);
        let fields = Fields::default()
            .with("spiffe_id", state.trust_domain.id_string())
            .with("expiration", rfc3339(signed.expires_at));
        rpc.log(Level::DEBUG, "Signed X509 CA SVID", fields);
        let bundle = state.store.fetch_bundle(&state.trust_domain).await.map_err(SvidError::Bundle)?;
        let bundle = bundle.ok_or(SvidError::NoBundle)?;
        rpc.audit_with(|| Fields::default().with("expires_at", signed.expires_at));
        Ok(pb::NewDownstreamX509caResponse {
            ca_cert_chain: signed.chain,
            x509_authorities: bundle.x509_authorities.iter().map(|a| a.certificate.der().to_vec()).collect(),
        })
    }
}

#[tonic::async_trait]
impl pb::svid_server::Svid for SvidService {
    async fn mint_x509svid(
        &self,
        request: Request<pb::MintX509svidRequest>,
    ) -> Result<Response<pb::MintX509svidResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        rpc.audit_fields(|| Fields::default().with("csr", sha256_hex(&request.csr)).with("ttl", request.ttl));
        let svid = self.mint_x509(&rpc, &request.csr, request.ttl).await.map_err(|e| rpc.refuse(e))?;
        Ok(Response::new(pb::MintX509svidResponse { svid: Some(svid) }))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<pb::MintJwtsvidRequest>,
    ) -> Result<Response<pb::MintJwtsvidResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        if self.state.jwt_disabled {
            return Err(rpc.refuse(SvidError::JwtDisabled));
        }
        let id = workload_id_from_proto(&self.state.trust_domain, request.id.as_ref());
        rpc.audit_fields(|| {
            let fields =
                Fields::default().with("ttl", request.ttl).with("audience", request.audience.join(","));
            fields.with_some("spiffe_id", id.as_ref().ok().map(SpiffeId::as_str))
        });
        let id = id.map_err(|e| rpc.refuse(SvidError::SpiffeId(e)))?;
        let svid = self
            .mint_jwt(&rpc, &id, request.audience, request.ttl, false)
            .await
            .map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        Ok(Response::new(pb::MintJwtsvidResponse { svid: Some(svid) }))
    }

    async fn mint_witsvid(
        &self,
        request: Request<pb::MintWitsvidRequest>,
    ) -> Result<Response<pb::MintWitsvidResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let svid = self.mint_wit(&rpc, request.into_inner()).await.map_err(|e| rpc.refuse(e))?;
        rpc.audit();
        Ok(Response::new(pb::MintWitsvidResponse { svid: Some(svid) }))
    }

    async fn batch_new_x509svid(
        &self,
        request: Request<pb::BatchNewX509svidRequest>,
    ) -> Result<Response<pb::BatchNewX509svidResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let priority = request.metadata().get(PRIORITY_KEY).and_then(|value| value.to_str().ok());
        let priority = Priority::from_metadata(priority);
        let params = request.into_inner().params;
        if params.is_empty() {
            return Err(rpc.refuse(SvidError::MissingParams));
        }
        rpc.limit("rejecting request due to certificate signing rate limiting", params.len()).await?;
        self.state.fresh().await;
        // All at once: the CA's admission queue decides how many signatures run.
        let signatures = params.iter().map(|param| self.new_x509(&rpc, param, priority));
        let signed = futures::future::join_all(signatures).await;
        let mut results = Vec::with_capacity(params.len());
        for (param, outcome) in params.iter().zip(signed) {
            let (status, svid) = match outcome {
                Ok(svid) => (item_ok(), Some(svid)),
                Err(e) => (rpc.refuse_item(&e, Fields::default().with("entry_id", &param.entry_id)), None),
            };
            rpc.audit_item(&status, || audit_of_new(param, svid.as_ref()));
            results.push(pb::batch_new_x509svid_response::Result { status: Some(status), svid });
        }
        Ok(Response::new(pb::BatchNewX509svidResponse { results }))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<pb::NewJwtsvidRequest>,
    ) -> Result<Response<pb::NewJwtsvidResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        rpc.audit_fields(|| {
            Fields::default().with("entry_id", &request.entry_id).with("audience", request.audience.join(","))
        });
        rpc.limit("rejecting request due to JWT signing request rate limiting", 1).await?;
        if self.state.jwt_disabled {
            return Err(rpc.refuse(SvidError::JwtDisabled));
        }
        self.state.fresh().await;
        let entry = self.entry_of(&rpc, &request.entry_id).map_err(|e| rpc.refuse(e))?;
        // SPIRE refuses an ID that got into the database under the reserved path.
        check_workload_id(&self.state.trust_domain, &entry.spiffe_id)
            .map_err(|e| rpc.refuse(SvidError::SpiffeId(e)))?;
        rpc.audit_fields(|| Fields::default().with("spiffe_id", entry.spiffe_id.as_str()));
        let include_jti = entry.additional.is_some_and(|a| a.jwt_svid_include_jti);
        let svid = self
            .mint_jwt(&rpc, &entry.spiffe_id, request.audience, entry.jwt_svid_ttl, include_jti)
            .await
            .map_err(|e| rpc.refuse(e))?;
        rpc.audit_with(|| Fields::default().with("ttl", entry.jwt_svid_ttl));
        Ok(Response::new(pb::NewJwtsvidResponse { svid: Some(svid) }))
    }

    async fn batch_new_witsvid(
        &self,
        request: Request<pb::BatchNewWitsvidRequest>,
    ) -> Result<Response<pb::BatchNewWitsvidResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let params = request.into_inner().params;
        if params.is_empty() {
            return Err(rpc.refuse(SvidError::MissingParams));
        }
        rpc.limit("rejecting request due to certificate signing rate limiting", params.len()).await?;
        self.state.fresh().await;
        let results = self.new_wits(&rpc, &params).await;
        Ok(Response::new(pb::BatchNewWitsvidResponse { results }))
    }

    async fn new_downstream_x509ca(
        &self,
        request: Request<pb::NewDownstreamX509caRequest>,
    ) -> Result<Response<pb::NewDownstreamX509caResponse>, Status> {
        let rpc = Rpc::of(&request)?;
        let request = request.into_inner();
        rpc.audit_fields(|| {
            Fields::default()
                .with("csr", sha256_hex(&request.csr))
                .with("trust_domain_id", self.state.trust_domain.id_string())
        });
        rpc.limit("rejecting request due to downstream CA signing rate limit", 1).await?;
        let response = self.downstream_ca(&rpc, &request.csr, request.preferred_ttl).await;
        Ok(Response::new(response.map_err(|e| rpc.refuse(e))?))
    }
}

/// The wire form of a signed chain.
pub(crate) fn x509_to_proto(id: &SpiffeId, signed: SignedX509) -> types::X509svid {
    types::X509svid {
        id: Some(id_to_proto(id)),
        cert_chain: signed.chain,
        expires_at: signed.expires_at,
        hint: String::new(),
    }
}

fn log_signed(rpc: &Rpc, signed: &SignedX509, fields: impl FnOnce() -> Fields) {
    metrics::counter!("server_ca.sign.x509_svid").increment(1);
    if tracing::enabled!(Level::DEBUG) {
        let fields =
            fields().with("expiration", rfc3339(signed.expires_at)).with("serial_num", &signed.serial);
        rpc.log(Level::DEBUG, "Signed X509 SVID", fields);
    }
}

fn audit_of_new(param: &pb::NewX509svidParams, svid: Option<&types::X509svid>) -> Fields {
    let id =
        svid.and_then(|svid| svid.id.as_ref()).map(|id| format!("spiffe://{}{}", id.trust_domain, id.path));
    Fields::default()
        .with("csr", sha256_hex(&param.csr))
        .with("entry_id", &param.entry_id)
        .with("spiffe_id", id.unwrap_or_default())
        .with_some("expires_at", svid.map(|svid| svid.expires_at))
}
