//! Audit fields of relationships, under SPIRE's names.

use steeple_proto::spire::api::types;
use steeple_proto::spire::api::types::federation_relationship::BundleEndpointProfile;

use crate::bundle::bundle_fields;
use crate::rpc::Fields;

pub(super) fn of_relationship(
    asked: &types::FederationRelationship,
    mask: Option<&types::FederationRelationshipMask>,
) -> Fields {
    let on = |pick: fn(&types::FederationRelationshipMask) -> bool| mask.is_none_or(pick);
    let mut fields = Fields::default();
    if !asked.trust_domain.is_empty() {
        fields.push("trust_domain_id", &asked.trust_domain);
    }
    if on(|m| m.bundle_endpoint_url) {
        fields.push("bundle_endpoint_url", &asked.bundle_endpoint_url);
    }
    if on(|m| m.bundle_endpoint_profile) {
        match &asked.bundle_endpoint_profile {
            None => {}
            Some(BundleEndpointProfile::HttpsWeb(_)) => fields.push("bundle_endpoint_profile", "https_web"),
            Some(BundleEndpointProfile::HttpsSpiffe(profile)) => {
                fields.push("bundle_endpoint_profile", "https_spiffe");
                fields.push("endpoint_spiffe_id", &profile.endpoint_spiffe_id);
            }
        }
    }
    match &asked.trust_domain_bundle {
        Some(bundle) if on(|m| m.trust_domain_bundle) => {
            fields.and(bundle_fields(bundle, None).prefixed("bundle_"))
        }
        _ => fields,
    }
}
