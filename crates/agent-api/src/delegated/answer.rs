//! What a delegate receives. Each message is the complete set.

use std::sync::Arc;

use steeple_agent_core::Entry;
use steeple_agent_core::cache::{Content, Identity};
use steeple_agent_core::jwt_cache::Token;
use steeple_proto::spire::api::agent::delegatedidentity::v1 as api;
use steeple_proto::spire::api::types;
use steeple_spiffe::{Bundle, Certificate};
use tonic::Status;

use super::may_be_delegated;
use crate::convert::id_to_proto;

pub(super) fn svids(content: &Content) -> Result<api::SubscribeToX509sviDsResponse, Status> {
    let delegated = content.identities.iter().filter(|identity| may_be_delegated(&identity.entry));
    let mut federates_with: Vec<String> =
        content.federated.iter().map(|bundle| bundle.trust_domain.as_id_str().to_owned()).collect();
    federates_with.sort();
    Ok(api::SubscribeToX509sviDsResponse {
        x509_svids: delegated.map(svid).collect::<Result<_, _>>()?,
        federates_with,
    })
}

fn svid(identity: &Identity) -> Result<api::X509svidWithKey, Status> {
    let chain = Certificate::many_from_der(&identity.svid.chain)
        .map_err(|error| Status::internal(format!("could not serialize response: {error}")))?;
    Ok(api::X509svidWithKey {
        x509_svid: Some(types::X509svid {
            cert_chain: chain.iter().map(|certificate| certificate.der().to_vec()).collect(),
            id: Some(id_to_proto(&identity.entry.spiffe_id)),
            expires_at: identity.svid.not_after,
            hint: identity.entry.hint.clone(),
        }),
        x509_svid_key: identity.svid.key.to_vec(),
    })
}

pub(super) fn jwt_svid(entry: &Entry, token: &Token) -> types::Jwtsvid {
    types::Jwtsvid {
        token: token.token.clone(),
        id: Some(id_to_proto(&entry.spiffe_id)),
        expires_at: token.expires_at / 1000,
        issued_at: token.issued_at / 1000,
        hint: entry.hint.clone(),
    }
}

/// Concatenated DER by trust domain ID.
pub(super) fn x509_bundles(bundles: &[Arc<Bundle>]) -> api::SubscribeToX509BundlesResponse {
    let by_id = |bundle: &Arc<Bundle>| (bundle.trust_domain.as_id_str().to_owned(), bundle.x509_der());
    api::SubscribeToX509BundlesResponse { ca_certificates: bundles.iter().map(by_id).collect() }
}

/// JWK Sets with JWT keys only, by trust domain ID.
pub(super) fn jwt_bundles(bundles: &[Arc<Bundle>]) -> api::SubscribeToJwtBundlesResponse {
    let by_id = |bundle: &Arc<Bundle>| {
        (bundle.trust_domain.as_id_str().to_owned(), bundle.to_jwks_json().into_bytes())
    };
    api::SubscribeToJwtBundlesResponse { bundles: bundles.iter().map(by_id).collect() }
}
