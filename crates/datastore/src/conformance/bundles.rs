//! Bundles.

use steeple_spiffe::bundle::Bundle;

use super::Factory;
use super::fixtures::{NOW, authority, bundle, entry, jwt_authority, made, trust_domain};
use crate::model::Entry;
use crate::{
    AuthorityAction, AuthorityChange, AuthorityKind, BundleDeleteMode, BundleMask, Change, Error,
    PageRequest, authority as authorities_of,
};

const DAY: i64 = 86_400;

pub async fn created_updated_set(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let mut first = bundle("example.org");
    first.x509_authorities.push(authority(1, NOW + 2 * DAY));
    first.x509_authorities[1].tainted = true;
    first.wit_authorities.push(jwt_authority(2, 0));
    assert_eq!(store.create_bundle(first.clone(), NOW).await.unwrap(), first);
    assert_eq!(store.fetch_bundle(&first.trust_domain).await.unwrap(), Some(first.clone()));
    let error = store.create_bundle(first.clone(), NOW).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}");

    let none = BundleMask {
        x509_authorities: false,
        jwt_authorities: false,
        refresh_hint: false,
        sequence_number: false,
        wit_authorities: false,
    };
    let mut other = Bundle::new(first.trust_domain.clone());
    other.x509_authorities.push(authority(3, NOW + DAY));
    other.sequence_number = 9;
    let hint = BundleMask { refresh_hint: true, ..none };
    let after = store.update_bundle(other.clone(), hint, NOW).await.unwrap().unwrap();
    assert_eq!(after, Bundle { refresh_hint: None, ..first.clone() });
    let x509 = BundleMask { x509_authorities: true, sequence_number: true, ..none };
    let after = store.update_bundle(other.clone(), x509, NOW).await.unwrap().unwrap();
    assert_eq!((&after.x509_authorities, after.sequence_number), (&other.x509_authorities, 9));
    assert_eq!(after.jwt_authorities, first.jwt_authorities);
    assert_eq!(store.fetch_bundle(&first.trust_domain).await.unwrap(), Some(after));
    assert_eq!(store.update_bundle(bundle("none.org"), BundleMask::ALL, NOW).await.unwrap(), None);

    assert_eq!(store.set_bundle(first.clone(), NOW).await.unwrap(), first);
    assert_eq!(store.set_bundle(bundle("none.org"), NOW).await.unwrap(), bundle("none.org"));
    assert_eq!(store.fetch_bundle(&first.trust_domain).await.unwrap(), Some(first));
    assert_eq!(store.count_bundles().await.unwrap(), 2);
    assert_eq!(store.fetch_bundle(&trust_domain("missing.org")).await.unwrap(), None);
}

/// New authorities come last, known ones change nothing.
pub async fn appended(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let td = trust_domain("example.org");
    let mut more = bundle("example.org");
    assert_eq!(store.append_bundle(more.clone(), NOW).await.unwrap(), more);
    let head = store.head().await.unwrap();
    assert_eq!(store.append_bundle(more.clone(), NOW).await.unwrap().sequence_number, 1);
    assert_eq!(store.head().await.unwrap(), head, "nothing changed");
    more.x509_authorities.insert(0, authority(1, NOW + DAY));
    more.jwt_authorities.insert(0, jwt_authority(1, NOW + DAY));
    more.sequence_number = 77;
    let after = store.append_bundle(more, NOW).await.unwrap();
    assert_eq!(after.x509_authorities, [authority(0, NOW + DAY), authority(1, NOW + DAY)]);
    assert_eq!(after.jwt_authorities, [jwt_authority(0, NOW + DAY), jwt_authority(1, NOW + DAY)]);
    assert_eq!(after.sequence_number, 2);
    // A tainted authority is not added again untainted.
    let mut tainted = after.clone();
    tainted.x509_authorities[0].tainted = true;
    store.set_bundle(tainted.clone(), NOW).await.unwrap();
    let mut again = Bundle::new(td.clone());
    again.x509_authorities.push(authority(0, NOW + DAY));
    assert_eq!(store.append_bundle(again, NOW).await.unwrap(), tainted);
    assert_eq!(store.fetch_bundle(&td).await.unwrap(), Some(tainted));
}

pub async fn pruned(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let td = trust_domain("example.org");
    assert!(!store.prune_bundle(&td, NOW, NOW).await.unwrap().changed);
    let mut stored = bundle("example.org");
    stored.x509_authorities.insert(0, authority(1, NOW));
    stored.jwt_authorities.push(jwt_authority(1, NOW - 1));
    stored.jwt_authorities.push(jwt_authority(2, 0));
    store.create_bundle(stored, NOW).await.unwrap();
    assert!(!store.prune_bundle(&td, NOW - 10, NOW).await.unwrap().changed);
    assert!(store.prune_bundle(&td, NOW, NOW).await.unwrap().changed);
    let left = store.fetch_bundle(&td).await.unwrap().unwrap();
    assert_eq!(left.x509_authorities, [authority(0, NOW + DAY)]);
    assert_eq!(left.jwt_authorities, [jwt_authority(0, NOW + DAY), jwt_authority(2, 0)]);
    assert_eq!(left.sequence_number, 2);
    // Never the last ones.
    assert!(!store.prune_bundle(&td, NOW + 10 * DAY, NOW).await.unwrap().changed);
    assert_eq!(store.fetch_bundle(&td).await.unwrap(), Some(left));
}

pub async fn delete_modes(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let federated = |name: &str, with: &[&str]| Entry {
        federates_with: with.iter().map(|name| trust_domain(name)).collect(),
        ..entry(name, &format!("/{name}"), "/node", &["unix:uid:1"])
    };
    for name in ["a.org", "b.org", "c.org"] {
        store.create_bundle(bundle(name), NOW).await.unwrap();
    }
    for (name, with) in [("one", &["a.org"][..]), ("two", &["a.org", "b.org"]), ("three", &["b.org"])] {
        made(store.create_entries(vec![federated(name, with)], NOW).await.unwrap().pop().unwrap());
    }
    let td = trust_domain;
    let error = store.delete_bundle(&td("a.org"), BundleDeleteMode::Restrict).await.unwrap_err();
    assert!(matches!(error, Error::FailedPrecondition(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "datastore-sql: cannot delete bundle; federated with 2 registration entries"
    );
    assert!(store.delete_bundle(&td("c.org"), BundleDeleteMode::Restrict).await.unwrap().is_some());
    assert_eq!(store.delete_bundle(&td("c.org"), BundleDeleteMode::Restrict).await.unwrap(), None);

    let head = store.head().await.unwrap();
    store.delete_bundle(&td("a.org"), BundleDeleteMode::Dissociate).await.unwrap().unwrap();
    let two = store.fetch_entry("two").await.unwrap().unwrap();
    assert_eq!((two.federates_with.clone(), two.revision_number), (vec![td("b.org")], 1));
    let log: Vec<Change> =
        store.changes_since(head, 10).await.unwrap().into_iter().map(|logged| logged.change).collect();
    let one = store.fetch_entry("one").await.unwrap().unwrap();
    let gone = Change::BundleGone { trust_domain: td("a.org") };
    assert_eq!(log, [Change::EntrySet(Box::new(one)), Change::EntrySet(Box::new(two)), gone]);

    store.delete_bundle(&td("b.org"), BundleDeleteMode::Delete).await.unwrap().unwrap();
    let left: Vec<String> =
        store.snapshot().await.unwrap().entries.into_iter().map(|entry| entry.id).collect();
    assert_eq!(left, ["one"]);
    // A bundle that comes back is not linked to anything.
    store.create_bundle(bundle("a.org"), NOW).await.unwrap();
    assert_eq!(store.fetch_entry("one").await.unwrap().unwrap().federates_with, []);
}

/// Only a tainted authority can be revoked; each step is logged and raises the sequence number, refusals change nothing.
pub async fn tainted_and_revoked(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let mut stored = bundle("example.org");
    stored.x509_authorities.push(authority(1, NOW + DAY));
    stored.jwt_authorities.push(jwt_authority(1, NOW + DAY));
    stored.wit_authorities.push(jwt_authority(2, NOW + DAY));
    store.create_bundle(stored.clone(), NOW).await.unwrap();
    let td = stored.trust_domain.clone();
    let x509_id = authorities_of::hex(&stored.x509_authorities[1].certificate.subject_key_id().unwrap());
    let mut sequence = stored.sequence_number;
    for (kind, id, none, again, untainted) in [
        (
            AuthorityKind::X509,
            x509_id,
            ["no ca found with provided subject key ID", "no root CA found with provided subject key ID"],
            "root CA is already tainted",
            "it is not possible to revoke an untainted root CA",
        ),
        (
            AuthorityKind::Jwt,
            stored.jwt_authorities[1].key_id.clone(),
            ["no JWT Key found with provided key ID"; 2],
            "key is already tainted",
            "it is not possible to revoke an untainted key",
        ),
        (
            AuthorityKind::Wit,
            stored.wit_authorities[0].key_id.clone(),
            ["no WIT Key found with provided key ID"; 2],
            "key is already tainted",
            "it is not possible to revoke an untainted key",
        ),
    ] {
        let change = |action| AuthorityChange { kind, id: id.clone(), action };
        let unknown = |action| AuthorityChange { kind, id: "0b".to_owned(), action };
        let head = store.head().await.unwrap();
        for (refused, text) in [
            (unknown(AuthorityAction::Taint), none[0]),
            (unknown(AuthorityAction::Revoke), none[1]),
            (change(AuthorityAction::Revoke), untainted),
        ] {
            let error = store.change_authority(&td, refused, NOW).await.unwrap_err();
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(store.head().await.unwrap(), head, "a refusal changes nothing");

        let after = store.change_authority(&td, change(AuthorityAction::Taint), NOW).await.unwrap().unwrap();
        sequence += 1;
        assert_eq!(after.sequence_number, sequence);
        assert_eq!(store.fetch_bundle(&td).await.unwrap(), Some(after.clone()));
        let tainted = after.x509_authorities.iter().filter(|known| known.tainted).count()
            + after
                .jwt_authorities
                .iter()
                .chain(&after.wit_authorities)
                .filter(|known| known.tainted)
                .count();
        assert_eq!(tainted, 1);
        let error = store.change_authority(&td, change(AuthorityAction::Taint), NOW).await.unwrap_err();
        assert_eq!(error.to_string(), again);

        let after = store.change_authority(&td, change(AuthorityAction::Revoke), NOW).await.unwrap().unwrap();
        sequence += 1;
        assert_eq!(after.sequence_number, sequence);
        let log = store.changes_since(head, 10).await.unwrap();
        assert_eq!(log.len(), 2, "{log:?}");
        assert_eq!(log[1].change, Change::bundle_set(&after));
    }
    let left = store.fetch_bundle(&td).await.unwrap().unwrap();
    assert_eq!(left.x509_authorities, stored.x509_authorities[..1]);
    assert_eq!(left.jwt_authorities, stored.jwt_authorities[..1]);
    assert!(left.wit_authorities.is_empty());
    let none =
        AuthorityChange { kind: AuthorityKind::Jwt, id: "x".to_owned(), action: AuthorityAction::Taint };
    assert_eq!(store.change_authority(&trust_domain("none.org"), none, NOW).await.unwrap(), None);
}

pub async fn pages(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let names = ["c.org", "a.org", "b.org"];
    for name in names {
        store.create_bundle(bundle(name), NOW).await.unwrap();
    }
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let page = store.list_bundles(&PageRequest { token, size: 2 }).await.unwrap();
        seen.extend(page.items.into_iter().map(|bundle| bundle.trust_domain.name().to_owned()));
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, names);
    let wrong = PageRequest { token: "x".into(), size: 2 };
    assert!(matches!(store.list_bundles(&wrong).await, Err(Error::BadPageToken(_))));
}
