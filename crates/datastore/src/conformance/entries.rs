//! Registration entries.

use super::Factory;
use super::fixtures::{NOW, bundle, entry, id, made, selectors, trust_domain};
use crate::model::{AdditionalAttributes, Entry};
use crate::{Change, Created, Datastore, EntryFilter, EntryMask, Error, Match, PageRequest, Revision};

const NONE: EntryMask = EntryMask {
    spiffe_id: false,
    parent_id: false,
    selectors: false,
    x509_svid_ttl: false,
    jwt_svid_ttl: false,
    federates_with: false,
    admin: false,
    downstream: false,
    expires_at: false,
    dns_names: false,
    store_svid: false,
    hint: false,
    additional: false,
};

fn full() -> Entry {
    Entry {
        x509_svid_ttl: 300,
        jwt_svid_ttl: 120,
        federates_with: vec![
            trust_domain("other.org"),
            trust_domain("another.org"),
            trust_domain("other.org"),
        ],
        admin: true,
        downstream: true,
        expires_at: NOW + 10,
        dns_names: vec!["web.example.org".into(), "*.web.example.org".into()],
        revision_number: 7,
        hint: "external".into(),
        created_at: 1,
        additional: Some(AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: false,
        }),
        ..entry("e-full", "/full", "/node", &["unix:user:nobody", "unix:gid:9"])
    }
}

async fn create(store: &dyn Datastore, entry: Entry) -> crate::Result<Created> {
    store.create_entries(vec![entry], NOW).await.unwrap().pop().unwrap()
}

async fn list(store: &dyn Datastore, filter: EntryFilter) -> Vec<String> {
    let page = store.list_entries(&filter, &PageRequest::default()).await.unwrap();
    assert_eq!(store.count_entries(&filter).await.unwrap(), page.items.len() as u64);
    assert_eq!(page.next_token, "");
    page.items.into_iter().map(|entry| entry.id).collect()
}

/// Every field comes back; selectors and DNS names are answered sorted and stored as given; an id is made.
pub async fn created_as_given(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    for name in ["other.org", "another.org"] {
        store.create_bundle(bundle(name), NOW).await.unwrap();
    }
    let answered = made(create(store, full()).await);
    let mut expected = Entry {
        revision_number: 0,
        created_at: NOW,
        federates_with: vec![trust_domain("another.org"), trust_domain("other.org")],
        selectors: selectors(&["unix:gid:9", "unix:user:nobody"]),
        dns_names: vec!["*.web.example.org".into(), "web.example.org".into()],
        ..full()
    };
    assert_eq!(answered, expected);
    expected.selectors = full().selectors;
    expected.dns_names = full().dns_names;
    assert_eq!(store.fetch_entry("e-full").await.unwrap(), Some(expected.clone()));
    assert_eq!(store.snapshot().await.unwrap().entries, [expected]);
    assert_eq!(store.fetch_entry("e-other").await.unwrap(), None);

    let unnamed = made(create(store, entry("", "/a", "/node", &["unix:uid:1"])).await);
    assert!(uuid::Uuid::parse_str(&unnamed.id).is_ok(), "{}", unnamed.id);
    // Attributes that are all unset are none.
    let plain = Entry {
        additional: Some(AdditionalAttributes::default()),
        ..entry("e-plain", "/b", "/node", &["unix:uid:1"])
    };
    assert_eq!(made(create(store, plain).await).additional, None);
}

/// Same SPIFFE ID, parent and set of selectors: the stored entry is the answer.
pub async fn similar_is_answered(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let first = entry("first", "/a", "/node", &["unix:uid:1", "k8s:ns:x"]);
    made(create(store, first.clone()).await);
    let again = Entry { hint: "new".into(), ..entry("second", "/a", "/node", &["k8s:ns:x", "unix:uid:1"]) };
    assert_eq!(create(store, again).await.unwrap(), Created::Existing(first));
    // A subset, a superset, another parent, another ID: all new.
    made(create(store, entry("subset", "/a", "/node", &["unix:uid:1"])).await);
    made(create(store, entry("superset", "/a", "/node", &["unix:uid:1", "k8s:ns:x", "k8s:sa:y"])).await);
    made(create(store, entry("parent", "/a", "/other", &["unix:uid:1", "k8s:ns:x"])).await);
    made(create(store, entry("id", "/b", "/node", &["unix:uid:1", "k8s:ns:x"])).await);
    // Within one request too.
    let pair = vec![entry("x", "/c", "/node", &["unix:uid:1"]), entry("y", "/c", "/node", &["unix:uid:1"])];
    let created = store.create_entries(pair, NOW).await.unwrap();
    assert!(matches!(&created[1], Ok(Created::Existing(entry)) if entry.id == "x"), "{created:?}");
}

pub async fn ids_are_unique(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    made(create(store, entry("one", "/a", "/node", &["unix:uid:1"])).await);
    let error = create(store, entry("one", "/b", "/node", &["unix:uid:1"])).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}");
    assert!(error.to_string().starts_with("datastore-sql: UNIQUE constraint failed"), "{error}");
    assert_eq!(list(store, EntryFilter::default()).await, ["one"]);
}

/// Wording is SPIRE's.
pub async fn refusals(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let base = || entry("e", "/a", "/node", &["unix:uid:1"]);
    let long = "x".repeat(256);
    let cases = [
        (Entry { selectors: Vec::new(), ..base() }, "invalid registration entry: missing selector list"),
        (Entry { id: long, ..base() }, "invalid registration entry: entry ID too long"),
        (
            Entry { id: "a/b".into(), ..base() },
            "invalid registration entry: entry ID contains invalid characters",
        ),
        (
            Entry { id: "é".into(), ..base() },
            "invalid registration entry: entry ID contains invalid characters",
        ),
        (Entry { x509_svid_ttl: -1, ..base() }, "invalid registration entry: X509SvidTtl is not set"),
        (Entry { jwt_svid_ttl: -1, ..base() }, "invalid registration entry: JwtSvidTtl is not set"),
        (
            Entry { store_svid: true, selectors: selectors(&["a:1", "b:1"]), ..base() },
            "invalid registration entry: selector types must be the same when store SVID is enabled",
        ),
        (
            Entry {
                store_svid: true,
                additional: Some(AdditionalAttributes {
                    disable_x509_svid_prefetch: true,
                    ..Default::default()
                }),
                ..base()
            },
            "specifying cache behaviour is incompatible with storable SVIDs",
        ),
    ];
    for (entry, text) in cases {
        let error = create(store, entry).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert_eq!(error.to_string(), format!("datastore-validation: {text}"));
    }
    // At the limits.
    made(create(store, Entry { id: "x".repeat(255), ..base() }).await);
    made(create(store, Entry { id: "a-b.c_D9".into(), ..entry("", "/b", "/node", &["unix:uid:1"]) }).await);
    // The same selector or DNS name twice.
    let twice = entry("e2", "/c", "/node", &["unix:uid:1", "unix:uid:1"]);
    assert!(matches!(create(store, twice).await, Err(Error::AlreadyExists(_))));
    let twice =
        Entry { dns_names: vec!["a".into(), "a".into()], ..entry("e3", "/c", "/node", &["unix:uid:1"]) };
    assert!(matches!(create(store, twice).await, Err(Error::AlreadyExists(_))));
    assert_eq!(list(store, EntryFilter::default()).await.len(), 2);
}

pub async fn federates_with_needs_a_bundle(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let federated = Entry {
        federates_with: vec![trust_domain("other.org")],
        ..entry("e", "/a", "/node", &["unix:uid:1"])
    };
    let error = create(store, federated.clone()).await.unwrap_err();
    assert!(matches!(error, Error::UnknownFederatedBundle(_)), "{error:?}");
    assert_eq!(error.to_string(), "unable to find federated bundle \"spiffe://other.org\"");
    assert_eq!(store.fetch_entry("e").await.unwrap(), None);
    store.create_bundle(bundle("other.org"), NOW).await.unwrap();
    made(create(store, federated.clone()).await);
    let elsewhere = Entry { federates_with: vec![trust_domain("third.org")], ..federated };
    let error = store.update_entry(elsewhere, EntryMask::ALL, NOW).await.unwrap_err();
    assert!(matches!(error, Error::UnknownFederatedBundle(_)), "{error:?}");
    let stored = store.fetch_entry("e").await.unwrap().unwrap();
    assert_eq!((stored.revision_number, stored.federates_with), (0, vec![trust_domain("other.org")]));
}

/// Results come in order, and what fails leaves no trace.
pub async fn a_failed_item_is_alone(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let items = vec![
        entry("one", "/a", "/node", &["unix:uid:1"]),
        Entry { selectors: Vec::new(), ..entry("none", "/b", "/node", &["unix:uid:1"]) },
        Entry {
            federates_with: vec![trust_domain("other.org")],
            ..entry("federated", "/c", "/node", &["unix:uid:1"])
        },
        entry("one", "/d", "/node", &["unix:uid:1"]),
        entry("twice", "/d", "/node", &["unix:uid:1", "unix:uid:1"]),
        entry("two", "/d", "/node", &["unix:uid:1"]),
    ];
    let results = store.create_entries(items, NOW).await.unwrap();
    let worked: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(worked, [true, false, false, false, false, true]);
    assert_eq!(list(store, EntryFilter::default()).await, ["one", "two"]);
    assert_eq!(store.head().await.unwrap().0, 2);
    assert!(store.create_entries(Vec::new(), NOW).await.unwrap().is_empty());
}

pub async fn update_takes_the_mask(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    for name in ["other.org", "another.org"] {
        store.create_bundle(bundle(name), NOW).await.unwrap();
    }
    made(create(store, entry("e-full", "/a", "/node", &["unix:uid:1"])).await);
    let before = store.fetch_entry("e-full").await.unwrap().unwrap();
    // Nothing but the revision number.
    let after = store.update_entry(full(), NONE, NOW + 5).await.unwrap().unwrap();
    assert_eq!(after, Entry { revision_number: 1, ..before.clone() });
    // One field.
    let hint = EntryMask { hint: true, ..NONE };
    let after = store.update_entry(full(), hint, NOW + 5).await.unwrap().unwrap();
    assert_eq!(after, Entry { revision_number: 2, hint: "external".into(), ..before });
    // All.
    store.update_entry(full(), EntryMask::ALL, NOW + 5).await.unwrap().unwrap();
    let after = store.fetch_entry("e-full").await.unwrap().unwrap();
    let expected = Entry {
        revision_number: 3,
        created_at: NOW,
        federates_with: vec![trust_domain("another.org"), trust_domain("other.org")],
        ..full()
    };
    assert_eq!(after, expected);
    // Children are replaced, not added to.
    let fewer = Entry {
        federates_with: vec![trust_domain("other.org")],
        dns_names: vec!["web.example.org".into()],
        selectors: selectors(&["unix:gid:9"]),
        ..full()
    };
    store.update_entry(fewer.clone(), EntryMask::ALL, NOW).await.unwrap().unwrap();
    let after = store.fetch_entry("e-full").await.unwrap().unwrap();
    assert_eq!(after, Entry { revision_number: 4, created_at: NOW, ..fewer });
    let unknown = entry("nobody", "/a", "/node", &["unix:uid:1"]);
    assert_eq!(store.update_entry(unknown, EntryMask::ALL, NOW).await.unwrap(), None);
}

pub async fn update_refusals(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let base = || entry("e", "/a", "/node", &["a:1", "b:1"]);
    made(create(store, base()).await);
    let cases = [
        (Entry { selectors: Vec::new(), ..base() }, EntryMask::ALL, "missing selector list"),
        (Entry { x509_svid_ttl: -1, ..base() }, EntryMask::ALL, "X509SvidTtl is not set"),
        (Entry { jwt_svid_ttl: -1, ..base() }, EntryMask::ALL, "JwtSvidTtl is not set"),
        // The stored selectors are of two kinds.
        (
            Entry { store_svid: true, ..base() },
            EntryMask { store_svid: true, ..NONE },
            "selector types must be the same when store SVID is enabled",
        ),
    ];
    for (entry, mask, text) in cases {
        let error = store.update_entry(entry, mask, NOW).await.unwrap_err();
        assert_eq!(error.to_string(), format!("datastore-validation: invalid registration entry: {text}"));
    }
    // What is not in the mask is not looked at.
    let careless = Entry { selectors: Vec::new(), x509_svid_ttl: -1, ..base() };
    assert!(store.update_entry(careless, EntryMask { hint: true, ..NONE }, NOW).await.unwrap().is_some());
    assert_eq!(store.fetch_entry("e").await.unwrap().unwrap().revision_number, 1);
}

pub async fn deleted_and_pruned(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    for (name, expires_at) in
        [("never", 0), ("old", NOW - 1), ("older", NOW - 2), ("now", NOW), ("later", NOW + 1)]
    {
        let path = format!("/{name}");
        made(create(store, Entry { expires_at, ..entry(name, &path, "/node", &["unix:uid:1"]) }).await);
    }
    assert_eq!(store.prune_entries(NOW).await.unwrap(), 2);
    assert_eq!(store.prune_entries(NOW).await.unwrap(), 0);
    assert_eq!(list(store, EntryFilter::default()).await, ["never", "now", "later"]);
    assert!(store.delete_entry("now").await.unwrap());
    assert!(!store.delete_entry("now").await.unwrap());
    // Its place is free again, and nothing of it is left.
    made(create(store, entry("now", "/now", "/node", &["unix:uid:2"])).await);
    assert_eq!(store.fetch_entry("now").await.unwrap().unwrap().selectors, selectors(&["unix:uid:2"]));
}

/// Each id is told of in its place; one given twice was there once.
pub async fn deleted_together(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let all = (0..600).map(|n| entry(&format!("e{n}"), &format!("/{n}"), "/node", &["unix:uid:1"]));
    store.create_entries(all.collect(), NOW).await.unwrap();
    assert!(store.delete_entries(Vec::new()).await.unwrap().is_empty());
    let head = store.head().await.unwrap();
    assert_eq!(store.delete_entries(vec!["E1".into(), String::new()]).await.unwrap(), [false, false]);
    assert_eq!(store.head().await.unwrap(), head);
    let some = ["e5", "none", "e3", "e5", "e4"].map(String::from).to_vec();
    assert_eq!(store.delete_entries(some).await.unwrap(), [true, false, true, false, true]);
    let log = store.changes_since(head, 10).await.unwrap();
    let gone = |id: &str| Change::EntryGone { id: id.into() };
    assert_eq!(log.into_iter().map(|l| l.change).collect::<Vec<_>>(), [gone("e5"), gone("e3"), gone("e4")]);
    let rest: Vec<String> = (1..600).map(|n| format!("e{n}")).collect();
    let were_there = store.delete_entries(rest).await.unwrap();
    assert_eq!(were_there.iter().filter(|was_there| **was_there).count(), 596);
    assert_eq!(were_there[2..6], [false, false, false, true]);
    assert_eq!(list(store, EntryFilter::default()).await, ["e0"]);
    assert_eq!(store.head().await.unwrap(), Revision(head.0 + 599));
}

pub async fn filters(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    made(create(store, Entry { hint: "h".into(), ..entry("a", "/x", "/n1", &["unix:uid:1"]) }).await);
    made(create(store, Entry { downstream: true, ..entry("b", "/x", "/n2", &["unix:uid:1"]) }).await);
    made(create(store, entry("c", "/y", "/n1", &["unix:uid:1"])).await);
    let any = EntryFilter::default;
    assert_eq!(list(store, any()).await, ["a", "b", "c"]);
    assert_eq!(list(store, EntryFilter { spiffe_id: Some(id("/x")), ..any() }).await, ["a", "b"]);
    assert_eq!(list(store, EntryFilter { parent_id: Some(id("/n1")), ..any() }).await, ["a", "c"]);
    assert_eq!(list(store, EntryFilter { hint: Some("h".into()), ..any() }).await, ["a"]);
    assert_eq!(list(store, EntryFilter { hint: Some(String::new()), ..any() }).await, ["b", "c"]);
    assert_eq!(list(store, EntryFilter { downstream: Some(true), ..any() }).await, ["b"]);
    assert_eq!(list(store, EntryFilter { downstream: Some(false), ..any() }).await, ["a", "b", "c"]);
    let both = EntryFilter { spiffe_id: Some(id("/x")), parent_id: Some(id("/n1")), ..any() };
    assert_eq!(list(store, both).await, ["a"]);
    let nothing = EntryFilter { selectors: Some((Vec::new(), Match::Any)), ..any() };
    assert!(matches!(store.count_entries(&nothing).await, Err(Error::Invalid(_))));
    let nothing = EntryFilter { federates_with: Some((Vec::new(), Match::Any)), ..any() };
    assert!(matches!(store.list_entries(&nothing, &PageRequest::default()).await, Err(Error::Invalid(_))));
}

pub async fn selector_matches(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    for (name, with) in [
        ("a", &["t:1"][..]),
        ("b", &["t:2"]),
        ("ab", &["t:1", "t:2"]),
        ("abc", &["t:1", "t:2", "t:3"]),
        ("z", &["u:1"]),
    ] {
        made(create(store, entry(name, &format!("/{name}"), "/node", with)).await);
    }
    let asked: &[(&[&str], Match, &[&str])] = &[
        (&["t:1", "t:2"], Match::Exact, &["ab"]),
        (&["t:2", "t:1", "t:2"], Match::Exact, &["ab"]),
        (&["t:1", "t:2"], Match::Superset, &["ab", "abc"]),
        (&["t:1", "t:2"], Match::Subset, &["a", "b", "ab"]),
        (&["t:1", "t:2"], Match::Any, &["a", "b", "ab", "abc"]),
        (&["t:1"], Match::Exact, &["a"]),
        (&["t:1"], Match::Superset, &["a", "ab", "abc"]),
        (&["t:3"], Match::Subset, &[]),
        (&["u:1", "t:3"], Match::Any, &["abc", "z"]),
        (&["t:9"], Match::Any, &[]),
        (&["T:1"], Match::Any, &[]),
    ];
    for (with, how, expected) in asked {
        let filter = EntryFilter { selectors: Some((selectors(with), *how)), ..Default::default() };
        assert_eq!(list(store, filter).await, *expected, "{with:?} {how:?}");
    }
    // Far more than SQL's expression depth allows to be chained.
    let many: Vec<_> = (0..2000).map(|n| crate::model::Selector::new("t", n.to_string())).collect();
    for (how, expected) in [(Match::Subset, &["a", "b", "ab", "abc"][..]), (Match::Superset, &[])] {
        let filter = EntryFilter { selectors: Some((many.clone(), how)), ..Default::default() };
        assert_eq!(list(store, filter).await, expected);
    }
}

pub async fn federates_with_matches(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let domains = |names: &[&str]| names.iter().map(|name| trust_domain(name)).collect::<Vec<_>>();
    for name in ["a.org", "b.org", "c.org"] {
        store.create_bundle(bundle(name), NOW).await.unwrap();
    }
    for (name, with) in [
        ("none", &[][..]),
        ("a", &["a.org"]),
        ("ab", &["a.org", "b.org"]),
        ("abc", &["a.org", "b.org", "c.org"]),
    ] {
        let federated = Entry {
            federates_with: domains(with),
            ..entry(name, &format!("/{name}"), "/node", &["unix:uid:1"])
        };
        made(create(store, federated).await);
    }
    let asked: &[(&[&str], Match, &[&str])] = &[
        (&["a.org", "b.org"], Match::Exact, &["ab"]),
        (&["a.org", "b.org"], Match::Superset, &["ab", "abc"]),
        (&["a.org", "b.org"], Match::Subset, &["a", "ab"]),
        (&["b.org"], Match::Any, &["ab", "abc"]),
        (&["x.org"], Match::Any, &[]),
    ];
    for (with, how, expected) in asked {
        let filter = EntryFilter { federates_with: Some((domains(with), *how)), ..Default::default() };
        assert_eq!(list(store, filter).await, *expected, "{with:?} {how:?}");
    }
}

pub async fn pages(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let all: Vec<Entry> = (0..25)
        .map(|n| entry(&format!("e{n}"), &format!("/{n}"), "/node", &["unix:uid:1", "unix:gid:1"]))
        .collect();
    store.create_entries(all.clone(), NOW).await.unwrap();
    store.delete_entry("e7").await.unwrap();
    let expected: Vec<Entry> = all.into_iter().filter(|entry| entry.id != "e7").collect();
    for (size, pages) in [(5, 5), (24, 1), (23, 2), (100, 1), (0, 1), (8, 3)] {
        let (mut token, mut seen, mut count) = (String::new(), Vec::new(), 0);
        loop {
            let page = PageRequest { token, size };
            let ids = store.list_entry_ids(&EntryFilter::default(), &page).await.unwrap().unwrap().page;
            let page = store.list_entries(&EntryFilter::default(), &page).await.unwrap();
            assert!(ids.items.iter().eq(page.items.iter().map(|entry| &entry.id)));
            assert_eq!(ids.next_token, page.next_token);
            count += 1;
            seen.extend(page.items);
            token = page.next_token;
            if token.is_empty() {
                break;
            }
            assert!(token.bytes().all(|c| c.is_ascii_digit()));
        }
        assert_eq!(seen, expected);
        assert_eq!(count, pages, "pages of {size}");
    }
    for (token, wrong) in [
        ("abc", true),
        ("-1", true),
        ("+1", true),
        ("9223372036854775807", false),
        ("9223372036854775808", true),
        ("18446744073709551615", true),
        ("1x", true),
    ] {
        let page = PageRequest { token: token.into(), size: 5 };
        match store.list_entries(&EntryFilter::default(), &page).await {
            Err(error) if wrong => assert_eq!(error.to_string(), format!("could not parse token '{token}'")),
            // Past the end.
            Ok(page) if !wrong => assert!(page.items.is_empty()),
            other => panic!("{token}: {other:?}"),
        }
    }
}

/// Thousands in one request, listed in steps.
pub async fn many_at_once(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let all: Vec<Entry> = (0..5000)
        .map(|n| entry(&format!("e{n}"), &format!("/{n}"), "/node", &["k8s:ns:x", "k8s:sa:y"]))
        .collect();
    let results = store.create_entries(all.clone(), NOW).await.unwrap();
    assert!(results.into_iter().all(|result| matches!(result, Ok(Created::New(_)))));
    assert_eq!(store.snapshot().await.unwrap().entries, all);
    let page = PageRequest { token: String::new(), size: 4999 };
    let page = store.list_entries(&EntryFilter::default(), &page).await.unwrap();
    assert_eq!(page.items, all[..4999]);
}
