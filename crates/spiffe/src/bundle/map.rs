//! Bundle maps: the bundles of several trust domains in one document (SPIFFE Trust Domain and Bundle §5).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::read::RawDocument;
use super::{Bundle, BundleError, write};
use crate::id::TrustDomain;

/// Bundles by trust domain name. A map is the complete state: loading one replaces all that was known (App. B).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BundleMap {
    pub bundles: BTreeMap<TrustDomain, Bundle>,
}

impl BundleMap {
    /// Reads a map as a whole: one bad name, one duplicate or one unreadable bundle refuses all of it. Refresh
    /// hints of the nested bundles are dropped, they say nothing about the map (§5.1.1).
    pub fn from_json(json: &str) -> Result<Self, BundleError> {
        #[derive(Deserialize)]
        struct Raw {
            trust_domains: Option<Entries>,
        }
        let raw: Raw = serde_json::from_str(json).map_err(|e| BundleError::Json(e.to_string()))?;
        let mut bundles = BTreeMap::new();
        for (name, document) in raw.trust_domains.ok_or(BundleError::NoTrustDomains)?.0 {
            let trust_domain = TrustDomain::from_name(&name)
                .map_err(|reason| BundleError::BadTrustDomain { name: name.clone(), reason })?;
            let (mut bundle, _) = Bundle::from_document(trust_domain.clone(), document)?;
            bundle.refresh_hint = None;
            if bundles.insert(trust_domain, bundle).is_some() {
                return Err(BundleError::DuplicateTrustDomain(name));
            }
        }
        Ok(Self { bundles })
    }

    /// Writes the map, keyed by trust domain name, without refresh hints (§5.1.1).
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Out<'a> {
            trust_domains: BTreeMap<&'a str, write::Document>,
        }
        let trust_domains = self.bundles.iter().map(|(trust_domain, bundle)| {
            let mut document = bundle.document();
            document.spiffe_refresh_hint = None;
            (trust_domain.name(), document)
        });
        write::indented(&Out { trust_domains: trust_domains.collect() })
    }
}

/// Members in the order they come, duplicates and all: the maps of serde_json hide them.
struct Entries(Vec<(String, RawDocument)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;

        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of bundles")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor)
    }
}
