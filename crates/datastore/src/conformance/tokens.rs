//! Join tokens and CA journals.

use super::Factory;
use super::fixtures::{NOW, agent};
use crate::model::{Agent, CaJournal, JoinToken};
use crate::{AgentUpdate, Change, Error};

fn token(name: &str, expires_at: i64) -> JoinToken {
    JoinToken { token: name.into(), expires_at }
}

pub async fn single_use(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    store.create_join_token(token("t", NOW + 60), NOW).await.unwrap();
    assert_eq!(store.take_join_token("u").await.unwrap(), None);
    assert_eq!(store.take_join_token("t").await.unwrap(), Some(token("t", NOW + 60)));
    assert_eq!(store.take_join_token("t").await.unwrap(), None);
}

/// Both or neither.
pub async fn an_agent_comes_with_its_token(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    for name in ["t", "u"] {
        store.create_join_token(token(name, NOW + 60), NOW).await.unwrap();
    }
    assert_eq!(store.fetch_join_token("t").await.unwrap(), Some(token("t", NOW + 60)));
    assert_eq!(store.fetch_join_token("T").await.unwrap(), None);
    let first = agent("/spire/agent/join_token/t", "join_token");
    let head = store.head().await.unwrap();
    assert!(!store.put_agent_for_token("none", first.clone(), NOW).await.unwrap());
    assert_eq!(store.head().await.unwrap(), head);
    assert!(store.put_agent_for_token("t", first.clone(), NOW).await.unwrap());
    let log = store.changes_since(head, 10).await.unwrap();
    let mut changes: Vec<Change> = log.into_iter().map(|logged| logged.change).collect();
    assert_eq!(changes.len(), 2);
    changes.retain(|change| *change != Change::Other);
    assert_eq!(changes, [Change::AgentSet(Box::new(first.clone()))]);
    assert_eq!(store.fetch_join_token("t").await.unwrap(), None);
    // The second agent with the token changes nothing.
    let late = Agent { serial_number: "99".into(), ..first.clone() };
    assert!(!store.put_agent_for_token("t", late, NOW).await.unwrap());
    assert_eq!(store.fetch_agent(&first.id).await.unwrap(), Some(first.clone()));
    // Nor does one that is banned; the token stays.
    let ban = AgentUpdate { serial_number: Some(String::new()), ..Default::default() };
    store.update_agent(&first.id, ban, NOW).await.unwrap().unwrap();
    let head = store.head().await.unwrap();
    assert!(matches!(store.put_agent_for_token("u", first, NOW).await, Err(Error::AgentBanned)));
    assert!(store.fetch_join_token("u").await.unwrap().is_some());
    assert_eq!(store.head().await.unwrap(), head);
}

pub async fn refusals(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    for wrong in [token("", NOW), token("t", 0)] {
        let error = store.create_join_token(wrong, NOW).await.unwrap_err();
        assert!(error.to_string().contains("token and expiry are required"), "{error}");
    }
    store.create_join_token(token("t", NOW + 60), NOW).await.unwrap();
    let error = store.create_join_token(token("t", NOW + 90), NOW).await.unwrap_err();
    assert!(matches!(error, Error::AlreadyExists(_)), "{error:?}");
    assert_eq!(store.take_join_token("t").await.unwrap(), Some(token("t", NOW + 60)));
}

pub async fn pruned(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    for (name, expires_at) in [("old", NOW - 1), ("now", NOW), ("later", NOW + 1)] {
        store.create_join_token(token(name, expires_at), NOW).await.unwrap();
    }
    assert_eq!(store.prune_join_tokens(NOW).await.unwrap(), 1);
    assert_eq!(store.take_join_token("old").await.unwrap(), None);
    assert!(store.take_join_token("now").await.unwrap().is_some());
}

pub async fn journals(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let journal = |id, data: &[u8]| CaJournal {
        id,
        data: data.into(),
        active_x509_authority_id: "aa".into(),
        active_jwt_authority_id: "bb".into(),
    };
    let first = store.put_ca_journal(journal(0, b"one"), NOW).await.unwrap();
    let second = store.put_ca_journal(journal(0, b"two"), NOW).await.unwrap();
    assert!(first.id > 0 && second.id > first.id);
    let first = store.put_ca_journal(journal(first.id, b"three"), NOW).await.unwrap();
    assert_eq!(store.list_ca_journals().await.unwrap(), [first.clone(), second.clone()]);
    store.delete_ca_journal(first.id).await.unwrap();
    store.delete_ca_journal(first.id).await.unwrap();
    assert_eq!(store.list_ca_journals().await.unwrap(), [second]);
    let error = store.put_ca_journal(journal(first.id, b"four"), NOW).await.unwrap_err();
    assert!(matches!(error, Error::NotFound(_)), "{error:?}");
}
