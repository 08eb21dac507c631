//! The order `entry show` prints in: by SPIFFE ID, parent, TTLs, then selectors (few before many).

use steeple_proto::spire::api::types::{Entry, Selector, Spiffeid};

pub fn sort(entries: &mut [Entry]) {
    for entry in entries.iter_mut() {
        entry.selectors.sort_by(|a, b| selector_key(a).cmp(&selector_key(b)));
    }
    entries.sort_by(|a, b| {
        id_key(a.spiffe_id.as_ref())
            .cmp(&id_key(b.spiffe_id.as_ref()))
            .then_with(|| id_key(a.parent_id.as_ref()).cmp(&id_key(b.parent_id.as_ref())))
            .then_with(|| a.x509_svid_ttl.cmp(&b.x509_svid_ttl))
            .then_with(|| a.jwt_svid_ttl.cmp(&b.jwt_svid_ttl))
            .then_with(|| a.selectors.len().cmp(&b.selectors.len()))
            .then_with(|| a.selectors.iter().map(selector_key).cmp(b.selectors.iter().map(selector_key)))
    });
}

fn id_key(id: Option<&Spiffeid>) -> Option<(&str, &str)> {
    id.map(|id| (id.trust_domain.as_str(), id.path.as_str()))
}

fn selector_key(selector: &Selector) -> (&str, &str) {
    (&selector.r#type, &selector.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, path: &str, ttl: i32, selectors: &[&str]) -> Entry {
        let selectors =
            selectors.iter().map(|&value| Selector { r#type: "unix".into(), value: value.into() });
        Entry {
            id: id.into(),
            spiffe_id: Some(Spiffeid { trust_domain: "td".into(), path: path.into() }),
            x509_svid_ttl: ttl,
            selectors: selectors.collect(),
            ..Default::default()
        }
    }

    #[test]
    fn order() {
        let mut entries = [
            entry("5", "/b", 0, &["a"]),
            entry("3", "/a", 1, &["z"]),
            entry("4", "/a", 1, &["b", "a"]),
            entry("2", "/a", 1, &["a"]),
            entry("1", "/a", 0, &["z"]),
        ];
        sort(&mut entries);
        assert_eq!(entries.iter().map(|e| e.id.as_str()).collect::<Vec<_>>(), ["1", "2", "3", "4", "5"]);
        assert_eq!(entries[3].selectors[0].value, "a");
    }
}
