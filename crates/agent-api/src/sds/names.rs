//! Names of secrets: what may be configured, and what a request asks for.

use std::collections::BTreeSet;

/// `sds { }`: names beside SPIFFE IDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdsNames {
    /// The first identity.
    pub default_svid: String,
    /// The own trust domain's bundle.
    pub default_bundle: String,
    /// Every bundle that the workload may use.
    pub default_all_bundles: String,
    /// Plain CA certificates in place of Envoy's SPIFFE validator.
    pub disable_spiffe_cert_validation: bool,
}

impl Default for SdsNames {
    fn default() -> Self {
        Self {
            default_svid: "default".into(),
            default_bundle: "ROOTCA".into(),
            default_all_bundles: "ALL".into(),
            disable_spiffe_cert_validation: false,
        }
    }
}

/// The names a request asks for; none means everything, under full names (SPIRE).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    pub fn new(names: &[String]) -> Self {
        Self(names.iter().filter(|name| !name.is_empty()).cloned().collect())
    }

    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    pub fn insert(&mut self, name: String) {
        if !name.is_empty() {
            self.0.insert(name);
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }
}
