//! Signing with the authorities in use. Lifetimes are defaulted here and capped by the authority's.

use std::sync::Arc;

use steeple_spiffe::{PublicKey, SpiffeId};

use super::manager::CaManager;
use super::sign::{LeafParams, Signer};
use super::{
    AgentX509Params, CaError, DownstreamCaParams, JwtParams, SignedJwt, SignedX509, WitParams,
    WorkloadX509Params,
};
use crate::admission::Priority;

impl CaManager {
    pub(super) fn x509_signer(&self, now: i64) -> Result<Arc<Signer>, CaError> {
        self.x509.load_full().filter(|signer| signer.not_after > now).ok_or(CaError::X509NotReady)
    }

    /// How long X.509-SVIDs live if their entry does not say, in seconds, and when the authority that signs them ends
    /// (0 if there is none): none outlives it.
    pub fn x509_limits(&self) -> (i64, i64) {
        let not_after = self.x509.load().as_ref().map_or(0, |signer| signer.not_after);
        (self.desk.config.default_x509_svid_ttl, not_after)
    }

    /// A workload's X.509-SVID, its lifetime capped by the authority's.
    pub async fn sign_workload_x509(
        &self,
        params: WorkloadX509Params,
        now: i64,
    ) -> Result<SignedX509, CaError> {
        let ttl = if params.ttl > 0 { i64::from(params.ttl) } else { self.desk.config.default_x509_svid_ttl };
        let leaf = LeafParams {
            spiffe_id: params.spiffe_id,
            public_key: params.public_key,
            dns_names: params.dns_names,
            ttl,
            subject: params.subject,
            priority: params.priority,
        };
        let leaf = self.desk.compose(leaf).await?;
        self.sign_leaf(leaf, now).await
    }

    /// An agent's X.509-SVID; it lives `agent_ttl`.
    pub async fn sign_agent_x509(&self, params: AgentX509Params, now: i64) -> Result<SignedX509, CaError> {
        self.sign_own(params.spiffe_id, params.public_key, self.desk.config.agent_ttl, now).await
    }

    /// The X.509-SVID of `spiffe://<trust domain>/spire/server`.
    pub async fn sign_server_x509(&self, public_key: PublicKey, now: i64) -> Result<SignedX509, CaError> {
        let config = &self.desk.config;
        let id = SpiffeId::from_parts(&config.trust_domain, "/spire/server")
            .map_err(|reason| CaError::InvalidX509Id(reason.to_string()))?;
        self.sign_own(id, public_key, config.default_x509_svid_ttl, now).await
    }

    async fn sign_own(
        &self,
        spiffe_id: SpiffeId,
        public_key: PublicKey,
        ttl: i64,
        now: i64,
    ) -> Result<SignedX509, CaError> {
        let (dns_names, subject, priority) = (Vec::new(), None, Priority::Waiting);
        self.sign_leaf(LeafParams { spiffe_id, public_key, dns_names, ttl, subject, priority }, now).await
    }

    async fn sign_leaf(&self, leaf: LeafParams, now: i64) -> Result<SignedX509, CaError> {
        let signer = self.x509_signer(now)?;
        self.desk.leaf(&signer, leaf, now).await
    }

    /// A signing certificate for a downstream server, its lifetime capped by the authority's.
    pub async fn sign_downstream_ca(
        &self,
        params: DownstreamCaParams,
        now: i64,
    ) -> Result<SignedX509, CaError> {
        let signer = self.x509_signer(now)?;
        self.desk.downstream(&signer, params, now).await
    }

    /// A JWT-SVID, its `exp` capped by the key's lifetime.
    pub async fn sign_jwt(&self, params: JwtParams, now: i64) -> Result<SignedJwt, CaError> {
        if self.desk.config.disable_jwt_svids {
            return Err(CaError::JwtDisabled);
        }
        let signer =
            self.jwt.load_full().filter(|signer| signer.not_after > now).ok_or(CaError::JwtNotReady)?;
        self.desk.token(&signer, params, now).await
    }

    /// A WIT-SVID, its `exp` capped by the key's lifetime.
    pub async fn sign_wit(&self, params: WitParams, now: i64) -> Result<SignedJwt, CaError> {
        if self.desk.config.wit.is_none() {
            return Err(CaError::WitDisabled);
        }
        let signer =
            self.wit.load_full().filter(|signer| signer.not_after > now).ok_or(CaError::WitNotReady)?;
        self.desk.wit(&signer, params, now).await
    }
}
