//! Registration entries as the agent knows them, and the selectors they are matched by.

use std::fmt;
use std::sync::Arc;

use steeple_spiffe::{SpiffeId, TrustDomain};

/// `type:value`. A type holds no `:`, so one string is unambiguous.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector(Arc<str>);

impl Selector {
    pub fn new(kind: &str, value: &str) -> Self {
        Self(format!("{kind}:{value}").into())
    }

    /// `type:value`
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the first `:`.
    pub fn kind(&self) -> &str {
        self.0.split_once(':').map_or(&*self.0, |(kind, _)| kind)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Selectors, sorted and without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SelectorSet(Arc<[Selector]>);

impl SelectorSet {
    pub fn new(mut selectors: Vec<Selector>) -> Self {
        selectors.sort();
        selectors.dedup();
        Self(selectors.into())
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Selector> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Both are sorted: one walk.
    pub fn is_subset_of(&self, other: &SelectorSet) -> bool {
        let mut others = other.0.iter();
        self.0.iter().all(|mine| others.by_ref().find(|theirs| *theirs >= mine) == Some(mine))
    }
}

impl<'a> IntoIterator for &'a SelectorSet {
    type Item = &'a Selector;
    type IntoIter = std::slice::Iter<'a, Selector>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Selector> for SelectorSet {
    fn from_iter<I: IntoIterator<Item = Selector>>(selectors: I) -> Self {
        Self::new(selectors.into_iter().collect())
    }
}

/// An entry that this agent may serve. Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: Arc<str>,
    pub spiffe_id: SpiffeId,
    pub selectors: SelectorSet,
    pub x509_svid_ttl: i32,
    pub jwt_svid_ttl: i32,
    /// Foreign trust domains whose bundles the workload receives.
    pub federates_with: Vec<TrustDomain>,
    pub dns_names: Vec<String>,
    pub hint: String,
    /// 0 = never.
    pub expires_at: i64,
    pub revision_number: i64,
    pub created_at: i64,
    pub admin: bool,
    pub downstream: bool,
    /// For an SVID store, never for the Workload API.
    pub store_svid: bool,
    pub disable_x509_svid_prefetch: bool,
    pub jwt_svid_include_jti: bool,
}

impl Entry {
    /// Whether an SVID that was issued under `other` may still be served under this entry.
    pub fn keeps_identity_of(&self, other: &Entry) -> bool {
        self.spiffe_id == other.spiffe_id
    }

    /// Whether an SVID that was issued under `other` already is what this entry asks for.
    pub fn same_certificate_as(&self, other: &Entry) -> bool {
        self.keeps_identity_of(other)
            && self.dns_names == other.dns_names
            && self.x509_svid_ttl == other.x509_svid_ttl
    }

    /// Whether its SVIDs are to be issued again: a new revision that changes nothing else is an order to do so
    /// (SPIRE's agents take each new revision for one), and where several were missed, one of them may have been.
    pub fn is_rotation_of(&self, before: &Entry) -> bool {
        let newer = self.revision_number.saturating_sub(before.revision_number);
        newer > 1 || (newer == 1 && *self == Self { revision_number: self.revision_number, ..before.clone() })
    }

    /// An entry without selectors would match everything; SPIRE never creates one, and it matches nothing here.
    pub fn matches(&self, workload: &SelectorSet) -> bool {
        !self.selectors.is_empty() && self.selectors.is_subset_of(workload)
    }
}

/// Keeps one entry of each non-empty hint: the oldest, on a tie the smaller id (SPIRE).
/// `entries` are in entry id order and stay so.
pub fn unique_hints(entries: &mut Vec<Arc<Entry>>) {
    let loses = |entry: &Entry, other: &Entry| {
        entry.hint == other.hint && (other.created_at, &other.id) < (entry.created_at, &entry.id)
    };
    let dropped: Vec<Arc<str>> = entries
        .iter()
        .filter(|entry| !entry.hint.is_empty() && entries.iter().any(|other| loses(entry, other)))
        .map(|entry| entry.id.clone())
        .collect();
    if !dropped.is_empty() {
        entries.retain(|entry| !dropped.contains(&entry.id));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A plain entry for tests: id, last path segment, selectors `t:<x>`.
    pub(crate) fn entry(id: &str, path: &str, selectors: &[&str]) -> Entry {
        Entry {
            id: id.into(),
            spiffe_id: SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap(),
            selectors: selectors.iter().map(|s| Selector::new("t", s)).collect(),
            x509_svid_ttl: 0,
            jwt_svid_ttl: 0,
            federates_with: vec![],
            dns_names: vec![],
            hint: String::new(),
            expires_at: 0,
            revision_number: 0,
            created_at: 0,
            admin: false,
            downstream: false,
            store_svid: false,
            disable_x509_svid_prefetch: false,
            jwt_svid_include_jti: false,
        }
    }

    #[test]
    fn the_oldest_entry_keeps_a_hint_and_the_smaller_id_breaks_a_tie() {
        let make = |id: &str, hint: &str, created_at| {
            Arc::new(Entry { hint: hint.into(), created_at, ..entry(id, id, &["a"]) })
        };
        let mut entries = vec![
            make("a", "x", 20),
            make("b", "x", 10),
            make("c", "x", 10),
            make("d", "", 1),
            make("e", "", 1),
            make("f", "y", 5),
        ];
        unique_hints(&mut entries);
        let ids: Vec<&str> = entries.iter().map(|e| &*e.id).collect();
        assert_eq!(ids, ["b", "d", "e", "f"]);
    }

    #[test]
    fn a_revision_that_changes_nothing_is_an_order_to_rotate() {
        let before = entry("e", "e", &["a"]);
        let at = |revision_number, hint: &str| Entry { revision_number, hint: hint.into(), ..before.clone() };
        assert!(at(1, "").is_rotation_of(&before));
        assert!(!at(1, "new").is_rotation_of(&before), "an update");
        assert!(at(2, "new").is_rotation_of(&before), "an update and something that was missed");
        assert!(!at(0, "new").is_rotation_of(&before), "a replaced database");
        assert!(!before.is_rotation_of(&at(3, "")), "an older one");
    }

    #[test]
    fn an_entry_without_selectors_matches_nothing() {
        let workload: SelectorSet = [Selector::new("t", "a")].into_iter().collect();
        assert!(!entry("e", "e", &[]).matches(&workload));
        assert!(entry("e", "e", &["a"]).matches(&workload));
        assert!(!entry("e", "e", &["a", "b"]).matches(&workload));
    }

    proptest! {
        #[test]
        fn subset_agrees_with_the_definition(mine in prop::collection::vec(0u8..12, 0..8), theirs in prop::collection::vec(0u8..12, 0..8)) {
            let set = |xs: &[u8]| xs.iter().map(|x| Selector::new("t", &x.to_string())).collect::<SelectorSet>();
            let expected = mine.iter().all(|x| theirs.contains(x));
            prop_assert_eq!(set(&mine).is_subset_of(&set(&theirs)), expected);
        }
    }
}
