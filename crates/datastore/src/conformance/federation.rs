//! Federation relationships.

use super::Factory;
use super::fixtures::{NOW, authority, bundle, trust_domain};
use crate::{
    Change, Datastore, EndpointProfile, Error, FederationMask, FederationRelationship, PageRequest,
    RefreshedBundle,
};

fn web(name: &str) -> FederationRelationship {
    FederationRelationship {
        trust_domain: trust_domain(name),
        bundle_endpoint_url: format!("https://{name}/bundle"),
        profile: EndpointProfile::HttpsWeb,
        bundle: None,
    }
}

fn spiffe(name: &str) -> FederationRelationship {
    let endpoint_spiffe_id = format!("spiffe://{name}/spire/server").parse().unwrap();
    FederationRelationship { profile: EndpointProfile::HttpsSpiffe { endpoint_spiffe_id }, ..web(name) }
}

async fn log(store: &dyn Datastore, after: crate::Revision) -> Vec<Change> {
    store.changes_since(after, 100).await.unwrap().into_iter().map(|logged| logged.change).collect()
}

pub async fn relationships_come_and_go(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let td = trust_domain("one.org");
    let told = || Change::Federation { trust_domain: trust_domain("one.org") };
    assert_eq!(store.fetch_federation_relationship(&td).await.unwrap(), None);
    assert_eq!(
        store.update_federation_relationship(web("one.org"), FederationMask::ALL, NOW).await.unwrap(),
        None
    );
    assert!(!store.delete_federation_relationship(&td).await.unwrap());

    let head = store.head().await.unwrap();
    let made = store.create_federation_relationship(spiffe("one.org"), NOW).await.unwrap();
    assert_eq!(made, spiffe("one.org"));
    assert_eq!(store.fetch_federation_relationship(&td).await.unwrap(), Some(spiffe("one.org")));
    let again = store.create_federation_relationship(web("one.org"), NOW).await.unwrap_err();
    assert!(matches!(again, Error::AlreadyExists(_)), "{again:?}");
    assert_eq!(log(store, head).await, [told()]);

    let head = store.head().await.unwrap();
    let none = FederationMask { bundle_endpoint_url: false, profile: false, bundle: false };
    let other =
        FederationRelationship { bundle_endpoint_url: "https://new.one.org".into(), ..web("one.org") };
    let url = FederationMask { bundle_endpoint_url: true, ..none };
    for (mask, expected) in [
        (none, spiffe("one.org")),
        (url, FederationRelationship { profile: spiffe("one.org").profile, ..other.clone() }),
        (FederationMask { profile: true, ..none }, other.clone()),
        (FederationMask::ALL, other.clone()),
    ] {
        let updated = store.update_federation_relationship(other.clone(), mask, NOW).await.unwrap();
        assert_eq!(updated, Some(expected.clone()), "{mask:?}");
        assert_eq!(store.fetch_federation_relationship(&td).await.unwrap(), Some(expected));
    }
    assert_eq!(log(store, head).await, [told(), told()], "what changes nothing is not told");

    let head = store.head().await.unwrap();
    assert!(store.delete_federation_relationship(&td).await.unwrap());
    assert!(!store.delete_federation_relationship(&td).await.unwrap());
    assert_eq!(store.fetch_federation_relationship(&td).await.unwrap(), None);
    assert_eq!(log(store, head).await, [told()]);
}

/// A bundle given with a relationship replaces the stored one; one that is not given leaves it.
pub async fn bundles_of_relationships(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let td = trust_domain("one.org");
    let with = |bundle| FederationRelationship { bundle: Some(bundle), ..web("one.org") };
    let first = bundle("one.org");
    let made = store.create_federation_relationship(with(first.clone()), NOW).await.unwrap();
    assert_eq!(made, with(first.clone()));
    assert_eq!(store.fetch_bundle(&td).await.unwrap(), Some(first.clone()));
    assert_eq!(store.fetch_federation_relationship(&td).await.unwrap(), Some(with(first.clone())));

    let mut second = first.clone();
    second.x509_authorities.push(authority(1, NOW + 86_400));
    // A duplicate does not touch the bundle.
    assert!(store.create_federation_relationship(with(second.clone()), NOW).await.is_err());
    let no_bundle = FederationMask { bundle: false, ..FederationMask::ALL };
    store.update_federation_relationship(with(second.clone()), no_bundle, NOW).await.unwrap();
    assert_eq!(store.fetch_bundle(&td).await.unwrap(), Some(first.clone()));
    let kept = store.update_federation_relationship(web("one.org"), FederationMask::ALL, NOW).await.unwrap();
    assert_eq!(kept, Some(with(first)));
    let updated =
        store.update_federation_relationship(with(second.clone()), FederationMask::ALL, NOW).await.unwrap();
    assert_eq!(updated, Some(with(second.clone())));

    // The bundle outlives the relationship, as in SPIRE.
    assert!(store.delete_federation_relationship(&td).await.unwrap());
    assert_eq!(store.fetch_bundle(&td).await.unwrap(), Some(second));
}

/// A bundle that an endpoint served takes the stored one's place unless it is older.
pub async fn refreshed_bundles(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let td = trust_domain("one.org");
    let numbered = |sequence_number| {
        let mut bundle = bundle("one.org");
        bundle.sequence_number = sequence_number;
        bundle
    };
    let refresh = |sequence_number| store.refresh_bundle(numbered(sequence_number), NOW);
    assert_eq!(refresh(7).await.unwrap(), RefreshedBundle::Stored);
    let head = store.head().await.unwrap();
    assert_eq!(refresh(7).await.unwrap(), RefreshedBundle::Unchanged);
    assert_eq!(refresh(6).await.unwrap(), RefreshedBundle::Older { stored: 7 });
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(store.fetch_bundle(&td).await.unwrap(), Some(numbered(7)));
    assert_eq!(refresh(8).await.unwrap(), RefreshedBundle::Stored);
    assert_eq!(log(store, head).await, [Change::bundle_set(&numbered(8))]);
    assert_eq!(refresh(0).await.unwrap(), RefreshedBundle::Stored);
    assert_eq!(store.fetch_bundle(&td).await.unwrap(), Some(numbered(0)));
}

pub async fn pages(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let all = [web("c.org"), spiffe("a.org"), web("b.org")];
    for relationship in all.clone() {
        store.create_federation_relationship(relationship, NOW).await.unwrap();
    }
    store.create_bundle(bundle("a.org"), NOW).await.unwrap();
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let page = store.list_federation_relationships(&PageRequest { token, size: 2 }, false).await.unwrap();
        seen.extend(page.items);
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, all);
    let listed = store.list_federation_relationships(&PageRequest::default(), true).await.unwrap();
    let bundles: Vec<_> = listed.items.into_iter().map(|one| one.bundle).collect();
    assert_eq!(bundles, [None, Some(bundle("a.org")), None]);
    let wrong = PageRequest { token: "x".into(), size: 2 };
    let refused = store.list_federation_relationships(&wrong, false).await;
    assert!(matches!(refused, Err(Error::BadPageToken(_))));
}
