//! Relationships, wire to model and back.

use steeple_datastore::{EndpointProfile, FederationMask, FederationRelationship};
use steeple_proto::spire::api::types;
use steeple_proto::spire::api::types::federation_relationship::BundleEndpointProfile;
use steeple_server_core::federation::{UrlError, check_url};
use steeple_spiffe::{IdError, SpiffeId, TrustDomain};

use crate::convert::{ConvertError, bundle_from_proto, bundle_to_proto};

/// What is wrong with a relationship. Texts are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub enum RelationshipError {
    #[error("failed to parse trust domain: {0}")]
    TrustDomain(#[source] IdError),
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("unsupported bundle endpoint profile type: <nil>")]
    NoProfile,
    #[error("failed to parse endpoint SPIFFE ID: {0}")]
    EndpointId(#[source] IdError),
    #[error("failed to parse bundle: {0}")]
    Bundle(#[source] ConvertError),
    #[error(
        "trust domain bundle ({found:?}) must match the trust domain of the federation relationship ({expected:?})"
    )]
    OtherBundle { found: String, expected: String },
}

pub(super) fn relationship_from_proto(
    asked: &types::FederationRelationship,
) -> Result<FederationRelationship, RelationshipError> {
    let trust_domain = TrustDomain::new(&asked.trust_domain).map_err(RelationshipError::TrustDomain)?;
    let bundle_endpoint_url = check_url(&asked.bundle_endpoint_url)?;
    let profile = match &asked.bundle_endpoint_profile {
        None => return Err(RelationshipError::NoProfile),
        Some(BundleEndpointProfile::HttpsWeb(_)) => EndpointProfile::HttpsWeb,
        Some(BundleEndpointProfile::HttpsSpiffe(profile)) => EndpointProfile::HttpsSpiffe {
            endpoint_spiffe_id: SpiffeId::parse(&profile.endpoint_spiffe_id)
                .map_err(RelationshipError::EndpointId)?,
        },
    };
    let bundle = match &asked.trust_domain_bundle {
        None => None,
        Some(bundle) => {
            let read = bundle_from_proto(bundle).map_err(RelationshipError::Bundle)?;
            if read.trust_domain != trust_domain {
                return Err(RelationshipError::OtherBundle {
                    found: bundle.trust_domain.clone(),
                    expected: trust_domain.name().to_owned(),
                });
            }
            Some(read)
        }
    };
    Ok(FederationRelationship { trust_domain, bundle_endpoint_url, profile, bundle })
}

/// `None` = everything.
pub(super) fn relationship_to_proto(
    relationship: &FederationRelationship,
    mask: Option<&types::FederationRelationshipMask>,
) -> types::FederationRelationship {
    let mask = mask_from_proto(mask);
    let profile = || match &relationship.profile {
        EndpointProfile::HttpsWeb => BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {}),
        EndpointProfile::HttpsSpiffe { endpoint_spiffe_id } => {
            BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile {
                endpoint_spiffe_id: endpoint_spiffe_id.as_str().to_owned(),
            })
        }
    };
    types::FederationRelationship {
        trust_domain: relationship.trust_domain.name().to_owned(),
        bundle_endpoint_url: if mask.bundle_endpoint_url {
            relationship.bundle_endpoint_url.clone()
        } else {
            String::new()
        },
        bundle_endpoint_profile: mask.profile.then(profile),
        trust_domain_bundle: relationship.bundle.as_ref().filter(|_| mask.bundle).map(bundle_to_proto),
    }
}

pub(super) fn mask_from_proto(mask: Option<&types::FederationRelationshipMask>) -> FederationMask {
    mask.map_or(FederationMask::ALL, |mask| FederationMask {
        bundle_endpoint_url: mask.bundle_endpoint_url,
        profile: mask.bundle_endpoint_profile,
        bundle: mask.trust_domain_bundle,
    })
}
