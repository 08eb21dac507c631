//! WIT-SVIDs: tokens bound to the workload's own key, behind SPIRE's feature flag `wit-svid`.

use steeple_proto::spire::api::server::svid::v1 as pb;
use steeple_proto::spire::api::types;
use steeple_server_core::admission::Priority;
use steeple_server_core::ca::WitParams;
use steeple_spiffe::{KeyType, PublicKey, SignatureAlgorithm, SpiffeId};
use tracing::Level;

use super::{SvidError, SvidService};
use crate::convert::{id_to_proto, workload_id_from_proto};
use crate::error::item_ok;
use crate::rpc::{Fields, Rpc, rfc3339};

impl SvidService {
    pub(super) async fn mint_wit(
        &self,
        rpc: &Rpc,
        request: pb::MintWitsvidRequest,
    ) -> Result<types::Witsvid, SvidError> {
        if self.state.ca.config().wit.is_none() {
            return Err(SvidError::WitDisabled);
        }
        let id = workload_id_from_proto(&self.state.trust_domain, request.id.as_ref());
        rpc.audit_fields(|| {
            let fields = Fields::default().with("ttl", request.ttl);
            fields.with_some("spiffe_id", id.as_ref().ok().map(SpiffeId::as_str))
        });
        let id = id.map_err(SvidError::SpiffeId)?;
        let key = PublicKey::from_spki_der(&request.public_key).map_err(SvidError::PublicKey)?;
        self.wit(rpc, id, key, &request.signing_algorithm, request.ttl).await
    }

    pub(super) async fn new_wits(
        &self,
        rpc: &Rpc,
        params: &[pb::NewWitsvidParams],
    ) -> Vec<pb::batch_new_witsvid_response::Result> {
        let signatures = params.iter().map(|param| self.new_wit(rpc, param));
        let signed = futures::future::join_all(signatures).await;
        let results = params.iter().zip(signed).map(|(param, outcome)| {
            let (status, svid) = match outcome {
                // SPIRE leaves the status of what went well out, on which its own agent would trip.
                Ok(svid) => (item_ok(), Some(svid)),
                Err(e) => (rpc.refuse_item(&e, Fields::default().with("entry_id", &param.entry_id)), None),
            };
            rpc.audit_item(&status, || {
                let id = svid.as_ref().and_then(|svid| svid.id.as_ref());
                let id = id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path));
                Fields::default()
                    .with("entry_id", &param.entry_id)
                    .with("spiffe_id", id.unwrap_or_default())
                    .with_some("expires_at", svid.as_ref().map(|svid| svid.expires_at))
            });
            pb::batch_new_witsvid_response::Result { status: Some(status), svid }
        });
        results.collect()
    }

    async fn new_wit(&self, rpc: &Rpc, param: &pb::NewWitsvidParams) -> Result<types::Witsvid, SvidError> {
        if param.entry_id.is_empty() {
            return Err(SvidError::MissingEntryId);
        }
        if param.public_key.is_empty() {
            return Err(SvidError::MissingPublicKey);
        }
        let entry = self.entry_of(rpc, &param.entry_id)?;
        let key = PublicKey::from_spki_der(&param.public_key).map_err(SvidError::MalformedPublicKey)?;
        let id = entry.spiffe_id.clone();
        self.wit(rpc, id, key, &param.signing_algorithm, entry.x509_svid_ttl).await
    }

    async fn wit(
        &self,
        rpc: &Rpc,
        spiffe_id: SpiffeId,
        public_key: PublicKey,
        algorithm: &str,
        ttl: i32,
    ) -> Result<types::Witsvid, SvidError> {
        let algorithm = fitting(&public_key, algorithm)?;
        let fields = Fields::default().with("spiffe_id", spiffe_id.as_str());
        let id = id_to_proto(&spiffe_id);
        let params = WitParams { spiffe_id, public_key, algorithm, ttl, priority: Priority::Waiting };
        let signed =
            self.state.ca.sign_wit(params, self.state.clock.now()).await.map_err(SvidError::SignWit)?;
        metrics::counter!("server_ca.sign.wit_svid").increment(1);
        let fields = fields.with("expiration", rfc3339(signed.expires_at));
        rpc.log(Level::DEBUG, "Server CA successfully signed WIT-SVID", fields);
        Ok(types::Witsvid {
            token: signed.token,
            id: Some(id),
            expires_at: signed.expires_at,
            issued_at: signed.issued_at,
            hint: String::new(),
        })
    }
}

/// The algorithm that the workload names, if signatures of it can be made with its key.
fn fitting(key: &PublicKey, name: &str) -> Result<SignatureAlgorithm, SvidError> {
    let algorithm = SignatureAlgorithm::from_jws_name(name).filter(|algorithm| algorithm.fits(key));
    algorithm.ok_or_else(|| {
        let kind = match key.key_type() {
            Some(KeyType::EcP256) => "ec-p256",
            Some(KeyType::EcP384) => "ec-p384",
            _ if SignatureAlgorithm::RsaPkcs1Sha256.fits(key) => "RSA",
            _ if SignatureAlgorithm::EcdsaSha512.fits(key) => "ec-p521",
            _ => return SvidError::KeyKind,
        };
        SvidError::Algorithm { kind, name: name.to_owned() }
    })
}
