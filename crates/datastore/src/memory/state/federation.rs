//! Federation relationships.

use steeple_spiffe::TrustDomain;
use steeple_spiffe::bundle::Bundle;

use super::{State, paged};
use crate::error::Result;
use crate::federation::{FederationMask, FederationRelationship, RefreshedBundle};
use crate::log::Change;
use crate::port::{BundleMask, Page, PageRequest};
use crate::validate;

impl State {
    fn relationship_row(&self, trust_domain: &TrustDomain) -> Option<u64> {
        self.relationships
            .iter()
            .find(|(_, stored)| stored.trust_domain == *trust_domain)
            .map(|(row, _)| *row)
    }

    fn with_bundle(&self, relationship: &FederationRelationship) -> FederationRelationship {
        let bundle = self.bundles.values().find(|bundle| bundle.trust_domain == relationship.trust_domain);
        FederationRelationship { bundle: bundle.cloned(), ..relationship.clone() }
    }

    fn put_bundle(&mut self, bundle: Option<Bundle>) -> Result<()> {
        let Some(bundle) = bundle else { return Ok(()) };
        if self.update_bundle(bundle.clone(), BundleMask::ALL).is_none() {
            self.create_bundle(bundle)?;
        }
        Ok(())
    }

    fn put_relationship(&mut self, row: u64, relationship: FederationRelationship) {
        self.changed(Change::Federation { trust_domain: relationship.trust_domain.clone() });
        self.relationships.insert(row, FederationRelationship { bundle: None, ..relationship });
    }

    pub fn create_federation_relationship(
        &mut self,
        relationship: FederationRelationship,
    ) -> Result<FederationRelationship> {
        if self.relationship_row(&relationship.trust_domain).is_some() {
            return validate::taken("federated_trust_domains.trust_domain");
        }
        self.put_bundle(relationship.bundle.clone())?;
        let row = self.next_row();
        self.put_relationship(row, relationship.clone());
        Ok(relationship)
    }

    pub fn fetch_federation_relationship(
        &self,
        trust_domain: &TrustDomain,
    ) -> Option<FederationRelationship> {
        let row = self.relationship_row(trust_domain)?;
        self.relationships.get(&row).map(|stored| self.with_bundle(stored))
    }

    pub fn list_federation_relationships(
        &self,
        page: &PageRequest,
        with_bundles: bool,
    ) -> Result<Page<FederationRelationship>> {
        let mut page = paged(&self.relationships, page, |_| true)?;
        if with_bundles {
            page.items = page.items.iter().map(|stored| self.with_bundle(stored)).collect();
        }
        Ok(page)
    }

    pub fn update_federation_relationship(
        &mut self,
        new: FederationRelationship,
        mask: FederationMask,
    ) -> Result<Option<FederationRelationship>> {
        let Some(row) = self.relationship_row(&new.trust_domain) else { return Ok(None) };
        let Some(stored) = self.relationships.get(&row).cloned() else { return Ok(None) };
        if mask.bundle {
            self.put_bundle(new.bundle)?;
        }
        let mut relationship = stored.clone();
        if mask.bundle_endpoint_url {
            relationship.bundle_endpoint_url = new.bundle_endpoint_url;
        }
        if mask.profile {
            relationship.profile = new.profile;
        }
        if relationship != stored {
            self.put_relationship(row, relationship.clone());
        }
        Ok(Some(self.with_bundle(&relationship)))
    }

    pub fn delete_federation_relationship(&mut self, trust_domain: &TrustDomain) -> bool {
        let Some(row) = self.relationship_row(trust_domain) else { return false };
        self.relationships.remove(&row);
        self.changed(Change::Federation { trust_domain: trust_domain.clone() });
        true
    }

    pub fn refresh_bundle(&mut self, fetched: Bundle) -> Result<RefreshedBundle> {
        let stored = self.bundles.values().find(|bundle| bundle.trust_domain == fetched.trust_domain);
        let outcome = RefreshedBundle::of(stored, &fetched);
        if outcome == RefreshedBundle::Stored {
            self.put_bundle(Some(fetched))?;
        }
        Ok(outcome)
    }
}
