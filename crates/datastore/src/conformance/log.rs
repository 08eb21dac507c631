//! The change log.

use super::Factory;
use super::fixtures::{NOW, agent, bundle, entry, id, made, trust_domain};
use crate::model::{CaJournal, JoinToken};
use crate::{
    AgentUpdate, BundleDeleteMode, Change, ChangedBundle, EntryMask, Error, Logged, PageRequest, Revision,
};

/// Each write is one revision, in order, with the new value.
pub async fn every_write_is_logged(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    assert_eq!(store.head().await.unwrap(), Revision(0));
    assert_eq!(store.snapshot().await.unwrap().revision, Revision(0));
    let mut expected = Vec::new();

    let one =
        made(store.create_entries(vec![entry("e", "/a", "/n", &["a:1"])], NOW).await.unwrap().pop().unwrap());
    expected.push(Change::EntrySet(Box::new(one.clone())));
    let updated = store.update_entry(one, EntryMask::ALL, NOW).await.unwrap().unwrap();
    expected.push(Change::EntrySet(Box::new(updated)));
    assert!(store.delete_entry("e").await.unwrap());
    expected.push(Change::EntryGone { id: "e".into() });

    store.put_agent(agent("/x", "k8s_psat"), NOW).await.unwrap();
    expected.push(Change::AgentSet(Box::new(agent("/x", "k8s_psat"))));
    let ban = AgentUpdate { serial_number: Some(String::new()), ..Default::default() };
    let banned = store.update_agent(&id("/x"), ban.clone(), NOW).await.unwrap().unwrap();
    expected.push(Change::AgentSet(Box::new(banned)));
    // Nothing new: no revision.
    store.update_agent(&id("/x"), ban, NOW).await.unwrap().unwrap();
    store.delete_agent(&id("/x")).await.unwrap().unwrap();
    expected.push(Change::AgentGone { id: id("/x") });

    store.create_join_token(JoinToken { token: "t".into(), expires_at: NOW }, NOW).await.unwrap();
    store.take_join_token("t").await.unwrap().unwrap();
    store.put_ca_journal(CaJournal::default(), NOW).await.unwrap();
    expected.extend([Change::Other, Change::Other, Change::Other]);

    let td = trust_domain("other.org");
    let set = |sequence_number| {
        Change::BundleSet(ChangedBundle { trust_domain: trust_domain("other.org"), sequence_number })
    };
    store.create_bundle(bundle("other.org"), NOW).await.unwrap();
    expected.push(set(1));
    let mut next = bundle("other.org");
    next.sequence_number = 5;
    store.set_bundle(next.clone(), NOW).await.unwrap();
    expected.push(set(5));
    store.set_bundle(next, NOW).await.unwrap();
    store.delete_bundle(&td, BundleDeleteMode::Restrict).await.unwrap().unwrap();
    expected.push(Change::BundleGone { trust_domain: td });

    let log = store.changes_since(Revision(0), 1000).await.unwrap();
    let revisions: Vec<u64> = log.iter().map(|logged| logged.revision.0).collect();
    assert_eq!(revisions, (1..=expected.len() as u64).collect::<Vec<_>>());
    let changes: Vec<Change> = log.into_iter().map(|logged| logged.change).collect();
    assert_eq!(changes, expected);
    let head = store.head().await.unwrap();
    assert_eq!(head.0, expected.len() as u64);
    assert_eq!(store.snapshot().await.unwrap().revision, head);
}

/// Orders to issue SVIDs again are told in the log; an agent's also to whoever starts from a snapshot.
pub async fn rotations(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    store.create_entries(vec![entry("e", "/a", "/n", &["a:1"])], NOW).await.unwrap();
    store.put_agent(agent("/x", "k8s_psat"), NOW).await.unwrap();
    store.put_agent(agent("/banned", "k8s_psat"), NOW).await.unwrap();
    let ban = AgentUpdate { serial_number: Some(String::new()), ..Default::default() };
    store.update_agent(&id("/banned"), ban, NOW).await.unwrap();
    let before = store.head().await.unwrap();

    let ids = ["e", "none", "e"].map(str::to_owned).to_vec();
    assert_eq!(store.rotate_entries(ids, NOW).await.unwrap(), [true, false, true]);
    let rotated = store.fetch_entry("e").await.unwrap().unwrap();
    assert_eq!(rotated.revision_number, 2);
    let told = store.rotate_agents(vec![id("/x"), id("/none"), id("/banned")], NOW + 7).await.unwrap();
    let known: Vec<bool> = told.iter().map(Option::is_some).collect();
    assert_eq!(known, [true, false, true]);

    let order = crate::RotatedAgent { id: id("/x"), ordered_at: NOW + 7 };
    let log = store.changes_since(before, 100).await.unwrap();
    let changes: Vec<Change> = log.into_iter().map(|logged| logged.change).collect();
    let first = Change::EntryRotated(Box::new(crate::model::Entry { revision_number: 1, ..rotated.clone() }));
    let second = Change::EntryRotated(Box::new(rotated));
    assert_eq!(changes, [first, second, Change::AgentRotated(order.clone())]);
    assert_eq!(store.snapshot().await.unwrap().rotated_agents, [order]);
}

pub async fn failures_are_not_logged(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    store.create_bundle(bundle("a.org"), NOW).await.unwrap();
    let head = store.head().await.unwrap();
    assert!(store.create_bundle(bundle("a.org"), NOW).await.is_err());
    assert!(store.create_entries(vec![entry("e", "/a", "/n", &[])], NOW).await.unwrap()[0].is_err());
    assert!(!store.delete_entry("e").await.unwrap());
    assert_eq!(store.take_join_token("t").await.unwrap(), None);
    assert_eq!(store.prune_entries(NOW).await.unwrap(), 0);
    assert_eq!(store.prune_join_tokens(NOW).await.unwrap(), 0);
    store.delete_ca_journal(5).await.unwrap();
    assert_eq!(store.head().await.unwrap(), head);
    assert_eq!(*store.watch_head().borrow(), head);
    assert!(store.changes_since(head, 10).await.unwrap().is_empty());
}

pub async fn trimmed(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    for n in 0..10 {
        let token = JoinToken { token: n.to_string(), expires_at: NOW };
        store.create_join_token(token, NOW).await.unwrap();
    }
    assert_eq!(store.trim_log(20).await.unwrap(), 0);
    assert_eq!(store.trim_log(4).await.unwrap(), 6);
    assert_eq!(store.trim_log(4).await.unwrap(), 0);
    assert_eq!(store.head().await.unwrap(), Revision(10));
    assert_eq!(store.changes_since(Revision(6), 100).await.unwrap().len(), 4);
    let error = store.changes_since(Revision(5), 100).await.unwrap_err();
    assert!(matches!(error, Error::LogTruncated(6)), "{error:?}");
    assert_eq!(store.trim_log(0).await.unwrap(), 4);
    assert!(store.changes_since(Revision(10), 100).await.unwrap().is_empty());
    store.create_join_token(JoinToken { token: "last".into(), expires_at: NOW }, NOW).await.unwrap();
    let log = store.changes_since(Revision(10), 100).await.unwrap();
    assert_eq!(log, [Logged { revision: Revision(11), change: Change::Other }]);
}

pub async fn bounds(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let all = (0..10).map(|n| entry(&format!("e{n}"), &format!("/{n}"), "/n", &["a:1"])).collect();
    store.create_entries(all, NOW).await.unwrap();
    let some = store.changes_since(Revision(3), 4).await.unwrap();
    let revisions: Vec<u64> = some.iter().map(|logged| logged.revision.0).collect();
    assert_eq!(revisions, [4, 5, 6, 7]);
    // A revision that never was: the follower's database was replaced.
    assert!(matches!(store.changes_since(Revision(11), 4).await, Err(Error::LogTruncated(_))));
    let first = store.snapshot().await.unwrap();
    assert!(!first.log_id.is_empty());
    assert_eq!(store.snapshot().await.unwrap().log_id, first.log_id);
}

pub async fn head_is_watched(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let mut watch = store.watch_head();
    assert_eq!(*watch.borrow_and_update(), Revision(0));
    let two = vec![entry("a", "/a", "/n", &["a:1"]), entry("b", "/b", "/n", &["a:1"])];
    store.create_entries(two, NOW).await.unwrap();
    // By the time a write is acknowledged its revision is announced.
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow_and_update(), Revision(2));
    store.list_entries(&crate::EntryFilter::default(), &PageRequest::default()).await.unwrap();
    assert!(!watch.has_changed().unwrap());
    assert_eq!(*store.watch_head().borrow(), Revision(2));
}
