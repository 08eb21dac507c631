use proptest::prelude::*;

use super::*;
use crate::entry::tests::entry;

fn set(texts: &[&str]) -> SelectorSet {
    texts
        .iter()
        .map(|text| text.split_once(':').unwrap())
        .map(|(kind, value)| Selector::new(kind, value))
        .collect()
}

fn with(id: &str, selectors: &[&str]) -> Arc<Entry> {
    Arc::new(Entry { selectors: set(selectors), ..entry(id, id, &["x"]) })
}

fn ask(entries: &[Arc<Entry>], workload: &[&str], failed: &[&str], depth: Depth) -> Findings {
    let (attestors, failed) = (BTreeSet::from(["unix", "k8s"]), failed.iter().copied().collect());
    look(entries.iter(), Question { workload: &set(workload), attestors: &attestors, failed: &failed, depth })
}

fn near(findings: &Findings) -> Vec<(&str, Vec<&str>, Cause)> {
    let told = findings.near.iter();
    told.map(|n| (&*n.entry.id, n.missing.iter().map(Selector::as_str).collect(), n.cause.clone())).collect()
}

#[test]
fn each_near_miss_names_its_cause() {
    let entries = [
        with("missing", &["unix:uid:1000", "unix:path:/usr/bin/web"]),
        with("typo", &["unix:user:webservre"]),
        with("disabled", &["unix:uid:1000", "docker:label:app:web"]),
        with("failed", &["k8s:ns:web"]),
        with("other-attestor", &["docker:label:app:web"]),
        with("name-of-the-agent", &["spiffe_id:spiffe://example.org/agent"]),
        with("far", &["unix:uid:7"]),
    ];
    let workload = ["unix:uid:1000", "unix:user:webserver"];
    let found = ask(&entries, &workload, &["k8s"], Depth::Near);
    assert_eq!(
        near(&found),
        [
            ("typo", vec!["unix:user:webservre"], Cause::Typo(Selector::new("unix", "user:webserver"))),
            ("failed", vec!["k8s:ns:web"], Cause::AttestorFailed("k8s".into())),
            ("disabled", vec!["docker:label:app:web"], Cause::AttestorDisabled("docker".into())),
            ("missing", vec!["unix:path:/usr/bin/web"], Cause::Missing),
            ("other-attestor", vec!["docker:label:app:web"], Cause::AttestorDisabled("docker".into())),
        ]
    );
    // The process itself hears of entries only that it has nearly earned.
    let found = ask(&entries, &workload, &["k8s"], Depth::OneMissing);
    let ids: Vec<&str> = near(&found).iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids, ["disabled", "missing"]);
}

#[test]
fn what_matches_is_served_shadowed_or_for_a_store() {
    let hinted = |id: &str, created_at| {
        Arc::new(Entry { hint: "h".into(), created_at, ..(*with(id, &["unix:uid:1"])).clone() })
    };
    let store = Arc::new(Entry { store_svid: true, ..(*with("store", &["unix:uid:1"])).clone() });
    let entries = [hinted("young", 2), hinted("old", 1), store, with("plain", &["unix:uid:1"])];
    let found = ask(&entries, &["unix:uid:1"], &[], Depth::Near);
    let ids = |list: &[Arc<Entry>]| list.iter().map(|entry| entry.id.to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&found.matched), ["old", "plain"]);
    assert_eq!(ids(&found.shadowed), ["young"]);
    assert_eq!(ids(&found.stored), ["store"]);
    assert_eq!(found.near, []);
}

#[test]
fn an_entry_without_selectors_is_not_near() {
    assert_eq!(ask(&[with("none", &[])], &["unix:uid:1"], &[], Depth::Near), Findings::default());
}

proptest! {
    /// What is named as missing is just what completes the match.
    #[test]
    fn the_missing_selectors_complete_the_match(
        entries in prop::collection::vec(prop::collection::vec(0u8..6, 0..4), 0..12),
        workload in prop::collection::vec(0u8..6, 0..5),
        own in any::<bool>(),
    ) {
        let name = |x: &u8| format!("unix:label:{}", "abcdefgh".repeat(2 + usize::from(*x)));
        let owned = |xs: &[u8]| xs.iter().map(name).collect::<Vec<_>>();
        let entries: Vec<Arc<Entry>> = entries.iter().enumerate().map(|(i, xs)| {
            let texts = owned(xs);
            with(&format!("e{i:02}"), &texts.iter().map(String::as_str).collect::<Vec<_>>())
        }).collect();
        let texts = owned(&workload);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let depth = if own { Depth::OneMissing } else { Depth::Near };
        let found = ask(&entries, &texts, &[], depth);
        for near in &found.near {
            prop_assert!(!near.entry.matches(&set(&texts)));
            prop_assert!(!near.missing.is_empty());
            let complete: SelectorSet = set(&texts).iter().chain(&near.missing).cloned().collect();
            prop_assert!(near.entry.matches(&complete));
            // And none of them is superfluous.
            for left_out in &near.missing {
                let short: SelectorSet = complete.iter().filter(|one| *one != left_out).cloned().collect();
                prop_assert!(!near.entry.matches(&short));
            }
        }
        let matching: Vec<&Arc<Entry>> = entries.iter().filter(|entry| entry.matches(&set(&texts))).collect();
        prop_assert_eq!(found.matched.iter().collect::<Vec<_>>(), matching);
    }
}
