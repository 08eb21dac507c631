//! JWT-SVIDs: issued and validated.

use std::sync::Arc;

use prost_types::value::Kind as ProtoKind;
use prost_types::{ListValue, Struct, Value as ProtoValue};
use serde_json::Value;
use steeple_agent_core::Entry;
use steeple_proto::workload;
use steeple_spiffe::jwt::{self, JwtBundleSource};
use steeple_spiffe::{Bundle, PublicKey, SpiffeId, TrustDomain};
use tonic::{Request, Status};

use super::encode::Framed;
use super::{Called, Caller, WorkloadApi, check_header, encode};
use crate::link::RPC_TIMEOUT;

impl WorkloadApi {
    pub(super) async fn fetch_jwt_svid(
        self,
        request: Request<workload::JwtsvidRequest>,
    ) -> Result<Framed, Status> {
        check_header(&request)?;
        let wanted = {
            let message = request.get_ref();
            if message.audience.is_empty() {
                return Err(Status::invalid_argument("audience must be specified"));
            }
            match message.spiffe_id.as_str() {
                "" => None,
                id => Some(SpiffeId::parse(id).map_err(|error| {
                    Status::invalid_argument(format!("invalid requested SPIFFE ID: {error}"))
                })?),
            }
        };
        let mut caller = self.admit(&request, Called::Workload("FetchJWTSVID")).await?;
        let issued = self.issue_jwts(&caller, wanted, &request.into_inner().audience).await;
        caller.ended(issued)
    }

    async fn issue_jwts(
        &self,
        caller: &Caller,
        wanted: Option<SpiffeId>,
        audience: &[String],
    ) -> Result<Framed, Status> {
        let fits = |entry: &Entry| wanted.as_ref().is_none_or(|id| *id == entry.spiffe_id);
        let mut entries = self.0.state.cache().matching(&caller.selectors);
        entries.retain(|entry| fits(entry));
        if entries.is_empty() {
            let mut subscribed = self.0.state.watch(&caller.selectors);
            self.wait_for_entry(&mut subscribed, caller, fits).await?;
            entries = subscribed.subscription.updates.borrow().matched.to_vec();
            entries.retain(|entry| fits(entry));
        }
        let patience = caller.patience(RPC_TIMEOUT);
        let mut svids = Vec::with_capacity(entries.len());
        for entry in entries {
            let token = self.0.signing.jwt_within(&entry, audience, patience).await.map_err(|error| {
                tracing::error!(subsystem_name = "endpoints", service = "WorkloadAPI", method = "FetchJWTSVID", pid = caller.peer.pid, spiffe_id = %entry.spiffe_id, error = %error, "Could not fetch JWT-SVID");
                Status::unavailable(format!("could not fetch JWT-SVID: {error}"))
            })?;
            let ttl = token.expires_at / 1000 - self.0.state.clock.now();
            tracing::debug!(subsystem_name = "endpoints", service = "WorkloadAPI", method = "FetchJWTSVID", pid = caller.peer.pid, registered = true, spiffe_id = %entry.spiffe_id, ttl, "Fetched JWT SVID");
            svids.push((entry, token));
        }
        Ok(encode::jwt_svid(&svids))
    }

    pub(super) async fn validate_jwt_svid(
        self,
        request: Request<workload::ValidateJwtsvidRequest>,
    ) -> Result<Framed, Status> {
        check_header(&request)?;
        if request.get_ref().audience.is_empty() {
            return Err(Status::invalid_argument("audience must be specified"));
        }
        if request.get_ref().svid.is_empty() {
            return Err(Status::invalid_argument("svid must be specified"));
        }
        let mut caller = self.admit(&request, Called::Workload("ValidateJWTSVID")).await?;
        let valid = self.validate(&caller, request.into_inner());
        caller.ended(valid)
    }

    fn validate(&self, caller: &Caller, request: workload::ValidateJwtsvidRequest) -> Result<Framed, Status> {
        let workload::ValidateJwtsvidRequest { audience, svid } = request;
        let bundles = {
            let cache = self.0.state.cache();
            let entries = cache.matching(&caller.selectors);
            let (own, mut all) = cache.bundles_for(&entries);
            all.extend(own);
            Known(all)
        };
        let now = self.0.state.clock.now();
        let valid = jwt::validate(&svid, &bundles, &[audience], now).map_err(|error| {
            tracing::warn!(subsystem_name = "endpoints", service = "WorkloadAPI", method = "ValidateJWTSVID", pid = caller.peer.pid, error = %error, "Failed to validate JWT");
            Status::invalid_argument(error.spire_text())
        })?;
        let own = valid.id.is_member_of(&self.0.state.trust_domain);
        let allowed = |name: &str| {
            own || matches!(name, "sub" | "exp" | "aud")
                || self.0.config.allowed_foreign_jwt_claims.contains(name)
        };
        let mut claims = Struct::default();
        for (name, value) in valid.claims.iter().filter(|(name, _)| allowed(name)) {
            let value = match value {
                // Always a list, whatever the token has (SPIRE).
                Value::String(one) if name == "aud" => proto(&Value::Array(vec![Value::String(one.clone())])),
                value => proto(value),
            };
            claims.fields.insert(name.clone(), value);
        }
        let response =
            workload::ValidateJwtsvidResponse { spiffe_id: valid.id.to_string(), claims: Some(claims) };
        Ok(encode::message(&response))
    }
}

/// The bundles that a caller may use.
struct Known(Vec<Arc<Bundle>>);

impl JwtBundleSource for Known {
    fn jwt_authority(&self, trust_domain: &TrustDomain, key_id: &str) -> Option<Option<PublicKey>> {
        self.0.iter().find_map(|bundle| bundle.jwt_authority(trust_domain, key_id))
    }
}

fn proto(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => ProtoKind::NullValue(0),
        Value::Bool(value) => ProtoKind::BoolValue(*value),
        Value::Number(value) => ProtoKind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => ProtoKind::StringValue(value.clone()),
        Value::Array(values) => {
            ProtoKind::ListValue(ListValue { values: values.iter().map(proto).collect() })
        }
        Value::Object(members) => {
            let fields = members.iter().map(|(name, value)| (name.clone(), proto(value))).collect();
            ProtoKind::StructValue(Struct { fields })
        }
    };
    ProtoValue { kind: Some(kind) }
}
