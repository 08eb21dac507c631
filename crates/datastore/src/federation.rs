//! Federation relationships: where the bundle of another trust domain is fetched from, and how its endpoint is known.

use std::fmt;

use steeple_spiffe::bundle::Bundle;
use steeple_spiffe::{SpiffeId, TrustDomain};

/// How a bundle endpoint proves that it is the one (SPIFFE Federation §5.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EndpointProfile {
    /// By a certificate of a public authority for the URL's host.
    HttpsWeb,
    /// By an X.509-SVID with exactly this ID.
    HttpsSpiffe { endpoint_spiffe_id: SpiffeId },
}

impl EndpointProfile {
    /// SPIRE's name, in configuration, logs and the database.
    pub fn name(&self) -> &'static str {
        match self {
            Self::HttpsWeb => "https_web",
            Self::HttpsSpiffe { .. } => "https_spiffe",
        }
    }

    pub fn endpoint_spiffe_id(&self) -> Option<&SpiffeId> {
        match self {
            Self::HttpsWeb => None,
            Self::HttpsSpiffe { endpoint_spiffe_id } => Some(endpoint_spiffe_id),
        }
    }
}

/// A relationship, as an operator made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FederationRelationship {
    pub trust_domain: TrustDomain,
    /// `https`, with a host and without user info; the callers have checked it.
    pub bundle_endpoint_url: String,
    pub profile: EndpointProfile,
    /// Given to a create or update: replaces the stored bundle. Answered: what is stored, where it was asked for.
    pub bundle: Option<Bundle>,
}

/// Which fields an update takes from the given relationship.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FederationMask {
    pub bundle_endpoint_url: bool,
    pub profile: bool,
    pub bundle: bool,
}

impl FederationMask {
    pub const ALL: Self = Self { bundle_endpoint_url: true, profile: true, bundle: true };
}

/// What became of a bundle that its trust domain's endpoint served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshedBundle {
    /// It is new or different, and stored.
    Stored,
    /// It is what is stored.
    Unchanged,
    /// Refused: what is stored has a higher sequence number, this one.
    Older { stored: u64 },
}

impl RefreshedBundle {
    /// What a fetched bundle is to a stored one. Without a sequence number the latest fetched is the newest (SPIFFE
    /// Federation §4.2).
    pub fn of(stored: Option<&Bundle>, fetched: &Bundle) -> Self {
        match stored {
            Some(stored) if stored == fetched => Self::Unchanged,
            Some(stored)
                if fetched.sequence_number != 0 && fetched.sequence_number < stored.sequence_number =>
            {
                Self::Older { stored: stored.sequence_number }
            }
            _ => Self::Stored,
        }
    }
}

impl fmt::Display for EndpointProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f_05_a_lower_number_is_older_and_no_number_is_the_latest() {
        let bundle = |sequence_number, refresh_hint| {
            let mut bundle = Bundle::new(TrustDomain::new("other.org").unwrap());
            (bundle.sequence_number, bundle.refresh_hint) = (sequence_number, refresh_hint);
            bundle
        };
        let of = |stored: u64, fetched: u64| {
            RefreshedBundle::of(Some(&bundle(stored, None)), &bundle(fetched, Some(60)))
        };
        assert_eq!(RefreshedBundle::of(None, &bundle(0, None)), RefreshedBundle::Stored);
        assert_eq!(RefreshedBundle::of(Some(&bundle(3, None)), &bundle(3, None)), RefreshedBundle::Unchanged);
        assert_eq!(of(3, 4), RefreshedBundle::Stored);
        assert_eq!(of(3, 3), RefreshedBundle::Stored);
        assert_eq!(of(3, 2), RefreshedBundle::Older { stored: 3 });
        assert_eq!(of(3, 0), RefreshedBundle::Stored);
        assert_eq!(of(0, 1), RefreshedBundle::Stored);
    }
}
