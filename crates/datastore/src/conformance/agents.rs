//! Attested nodes.

use super::Factory;
use super::fixtures::{NOW, agent, entry, id, made, selectors};
use crate::model::{Agent, Entry};
use crate::{AgentFilter, AgentUpdate, Change, Datastore, Error, Match, PageRequest, Revision};

async fn list(store: &dyn Datastore, filter: AgentFilter) -> Vec<String> {
    let page = store.list_agents(&filter, &PageRequest::default()).await.unwrap();
    assert_eq!(store.count_agents(&filter).await.unwrap(), page.items.len() as u64);
    page.items.into_iter().map(|agent| agent.id.path().to_owned()).collect()
}

pub async fn put_fetch_update(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let full = Agent {
        new_serial_number: "5678".into(),
        new_expires_at: NOW + 7200,
        can_reattest: true,
        selectors: selectors(&["b:2", "a:1"]),
        ..agent("/spire/agent/x", "k8s_psat")
    };
    store.put_agent(full.clone(), NOW).await.unwrap();
    assert_eq!(store.fetch_agent(&full.id).await.unwrap(), Some(full.clone()));
    assert_eq!(store.fetch_agent(&id("/spire/agent/y")).await.unwrap(), None);
    assert_eq!(store.snapshot().await.unwrap().agents, std::slice::from_ref(&full));
    let ban = AgentUpdate {
        serial_number: Some(String::new()),
        new_serial_number: Some(String::new()),
        new_expires_at: Some(0),
        ..Default::default()
    };
    let banned = store.update_agent(&full.id, ban, NOW).await.unwrap().unwrap();
    assert!(banned.is_banned());
    let expected = Agent {
        serial_number: String::new(),
        new_serial_number: String::new(),
        new_expires_at: 0,
        ..full.clone()
    };
    assert_eq!(banned, expected);
    assert_eq!(store.fetch_agent(&full.id).await.unwrap(), Some(expected));
    let version = AgentUpdate { agent_version: Some("2".into()), ..Default::default() };
    assert_eq!(store.update_agent(&id("/spire/agent/y"), version, NOW).await.unwrap(), None);
}

pub async fn replaced_on_attestation(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let first = Agent { selectors: selectors(&["a:1", "b:2"]), ..agent("/spire/agent/x", "k8s_psat") };
    store.put_agent(first.clone(), NOW).await.unwrap();
    store.put_agent(agent("/spire/agent/y", "k8s_psat"), NOW).await.unwrap();
    let second = Agent { serial_number: "99".into(), selectors: selectors(&["b:2", "c:3"]), ..first };
    store.put_agent(second.clone(), NOW + 1).await.unwrap();
    assert_eq!(store.fetch_agent(&second.id).await.unwrap(), Some(second));
    // It keeps its place, and what it reported.
    let silent = Agent { agent_version: String::new(), ..agent("/spire/agent/x", "k8s_psat") };
    let version = AgentUpdate { agent_version: Some("2".into()), ..Default::default() };
    store.update_agent(&silent.id, version, NOW).await.unwrap().unwrap();
    store.put_agent(silent.clone(), NOW + 1).await.unwrap();
    let kept = Agent { agent_version: "2".into(), ..silent };
    assert_eq!(store.fetch_agent(&kept.id).await.unwrap(), Some(kept));
    assert_eq!(list(store, AgentFilter::default()).await, ["/spire/agent/x", "/spire/agent/y"]);
    let twice = Agent { selectors: selectors(&["a:1", "a:1"]), ..agent("/spire/agent/z", "k8s_psat") };
    assert!(matches!(store.put_agent(twice, NOW).await, Err(Error::AlreadyExists(_))));
    assert_eq!(store.fetch_agent(&id("/spire/agent/z")).await.unwrap(), None);
}

/// A renewed serial becomes current once, and never on a row that a ban reached first.
pub async fn renewed_serial_is_promoted(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let renewed = Agent {
        new_serial_number: "5678".into(),
        new_expires_at: NOW + 7200,
        selectors: selectors(&["a:1"]),
        ..agent("/spire/agent/x", "k8s_psat")
    };
    store.put_agent(renewed.clone(), NOW).await.unwrap();
    let head = store.head().await.unwrap();
    for serial in ["1234", "9", ""] {
        assert_eq!(store.promote_agent_serial(&renewed.id, serial, NOW).await.unwrap(), None, "{serial}");
    }
    assert_eq!(store.promote_agent_serial(&id("/spire/agent/y"), "5678", NOW).await.unwrap(), None);
    assert_eq!(store.head().await.unwrap(), head);
    let promoted = Agent {
        serial_number: "5678".into(),
        expires_at: NOW + 7200,
        new_serial_number: String::new(),
        new_expires_at: 0,
        ..renewed.clone()
    };
    let answer = store.promote_agent_serial(&renewed.id, "5678", NOW).await.unwrap();
    assert_eq!(answer, Some(promoted.clone()));
    assert_eq!(store.fetch_agent(&renewed.id).await.unwrap(), Some(promoted.clone()));
    let log = store.changes_since(head, 10).await.unwrap();
    assert_eq!(log.into_iter().map(|l| l.change).collect::<Vec<_>>(), [Change::AgentSet(Box::new(promoted))]);
    assert_eq!(store.promote_agent_serial(&renewed.id, "5678", NOW).await.unwrap(), None);
}

/// Nothing but deleting its row lifts a ban: no renewal that was under way, and no attestation.
pub async fn a_ban_stays(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let first = agent("/spire/agent/x", "k8s_psat");
    store.put_agent(first.clone(), NOW).await.unwrap();
    let ban = AgentUpdate { serial_number: Some(String::new()), ..Default::default() };
    store.update_agent(&first.id, ban, NOW).await.unwrap().unwrap();
    let renewal = AgentUpdate {
        new_serial_number: Some("5678".into()),
        new_expires_at: Some(NOW + 7200),
        ..Default::default()
    };
    store.update_agent(&first.id, renewal, NOW).await.unwrap().unwrap();
    let head = store.head().await.unwrap();
    assert_eq!(store.promote_agent_serial(&first.id, "5678", NOW).await.unwrap(), None);
    assert!(matches!(store.put_agent(first.clone(), NOW).await, Err(Error::AgentBanned)));
    assert!(store.fetch_agent(&first.id).await.unwrap().unwrap().is_banned());
    assert_eq!(store.head().await.unwrap(), head);
    store.delete_agent(&first.id).await.unwrap().unwrap();
    store.put_agent(first.clone(), NOW).await.unwrap();
    assert_eq!(store.fetch_agent(&first.id).await.unwrap(), Some(first));
}

pub async fn filters(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let a = Agent { can_reattest: true, selectors: selectors(&["t:1"]), ..agent("/a", "k8s_psat") };
    let b = Agent { serial_number: String::new(), expires_at: NOW - 1, ..agent("/b", "join_token") };
    let c = Agent { expires_at: NOW, selectors: selectors(&["t:1", "t:2"]), ..agent("/c", "join_token") };
    for agent in [a, b, c] {
        store.put_agent(agent, NOW).await.unwrap();
    }
    let any = AgentFilter::default;
    assert_eq!(list(store, any()).await, ["/a", "/b", "/c"]);
    let kind = AgentFilter { attestation_type: Some("join_token".into()), ..any() };
    assert_eq!(list(store, kind).await, ["/b", "/c"]);
    assert_eq!(list(store, AgentFilter { banned: Some(true), ..any() }).await, ["/b"]);
    assert_eq!(list(store, AgentFilter { banned: Some(false), ..any() }).await, ["/a", "/c"]);
    assert_eq!(list(store, AgentFilter { can_reattest: Some(true), ..any() }).await, ["/a"]);
    assert_eq!(list(store, AgentFilter { can_reattest: Some(false), ..any() }).await, ["/b", "/c"]);
    assert_eq!(list(store, AgentFilter { expires_before: Some(NOW), ..any() }).await, ["/b"]);
    let asked: &[(&[&str], Match, &[&str])] = &[
        (&["t:1"], Match::Exact, &["/a"]),
        (&["t:1"], Match::Superset, &["/a", "/c"]),
        (&["t:1", "t:3"], Match::Subset, &["/a"]),
        (&["t:2", "t:3"], Match::Any, &["/c"]),
    ];
    for (with, how, expected) in asked {
        let filter = AgentFilter { selectors: Some((selectors(with), *how)), ..any() };
        assert_eq!(list(store, filter).await, *expected, "{with:?} {how:?}");
    }
    let nothing = AgentFilter { selectors: Some((Vec::new(), Match::Any)), ..any() };
    assert!(matches!(store.count_agents(&nothing).await, Err(Error::Invalid(_))));
}

/// SPIRE since 1.15.2: the alias that a join token made goes with its agent, a workload's entry stays.
pub async fn deleted_with_alias_entries(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let alias_of = |path: &str| format!("spiffe_id:{}", id(path));
    let (token, other) = ("/spire/agent/join_token/t", "/spire/agent/k8s_psat/n");
    store
        .put_agent(Agent { selectors: selectors(&["a:1"]), ..agent(token, "join_token") }, NOW)
        .await
        .unwrap();
    store.put_agent(agent(other, "k8s_psat"), NOW).await.unwrap();
    let alias = alias_of(token);
    for made_entry in [
        entry("alias", "/node1", token, &[&alias]),
        entry("workload", "/w", token, &["unix:uid:1"]),
        entry("more", "/m", token, &[&alias, "unix:uid:1"]),
        entry("elsewhere", "/e", other, &[&alias]),
        entry("not-a-token", "/n", other, &[&alias_of(other)]),
    ] {
        made(store.create_entries(vec![made_entry], NOW).await.unwrap().pop().unwrap());
    }
    let head = store.head().await.unwrap();
    let gone = store.delete_agent(&id(token)).await.unwrap().unwrap();
    assert_eq!(gone.selectors, selectors(&["a:1"]));
    let log = store.changes_since(head, 10).await.unwrap();
    let changes: Vec<Change> = log.into_iter().map(|logged| logged.change).collect();
    assert_eq!(changes, [Change::EntryGone { id: "alias".into() }, Change::AgentGone { id: id(token) }]);
    assert_eq!(store.delete_agent(&id(token)).await.unwrap(), None);
    store.delete_agent(&id(other)).await.unwrap().unwrap();
    let left: Vec<String> =
        store.snapshot().await.unwrap().entries.into_iter().map(|entry: Entry| entry.id).collect();
    assert_eq!(left, ["workload", "more", "elsewhere", "not-a-token"]);
    // An agent that comes back does not find its old selectors.
    store.put_agent(agent(token, "join_token"), NOW).await.unwrap();
    assert_eq!(store.fetch_agent(&id(token)).await.unwrap().unwrap().selectors, []);
    assert_eq!(store.head().await.unwrap(), Revision(head.0 + 4));
}

pub async fn pruned(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let expired = |path| Agent { expires_at: NOW - 1, can_reattest: true, ..agent(path, "k8s_psat") };
    store.put_agent(expired("/a"), NOW).await.unwrap();
    store.put_agent(Agent { serial_number: String::new(), ..expired("/banned") }, NOW).await.unwrap();
    store.put_agent(Agent { can_reattest: false, ..expired("/tofu") }, NOW).await.unwrap();
    store.put_agent(expired("/b"), NOW).await.unwrap();
    store.put_agent(Agent { expires_at: NOW, ..expired("/fresh") }, NOW).await.unwrap();
    assert_eq!(store.prune_agents(NOW, false, 1).await.unwrap(), 1);
    assert_eq!(list(store, AgentFilter::default()).await, ["/banned", "/tofu", "/b", "/fresh"]);
    assert_eq!(store.prune_agents(NOW, false, 10).await.unwrap(), 1);
    assert_eq!(store.prune_agents(NOW, false, 10).await.unwrap(), 0);
    assert_eq!(store.prune_agents(NOW, true, 10).await.unwrap(), 1);
    assert_eq!(list(store, AgentFilter::default()).await, ["/banned", "/fresh"]);
}

pub async fn pages(fresh: Factory) {
    let fresh = fresh();
    let store = &*fresh.store;
    let all: Vec<Agent> = (0..7)
        .map(|n| Agent { selectors: selectors(&["a:1", "b:2"]), ..agent(&format!("/{n}"), "k8s_psat") })
        .collect();
    for agent in &all {
        store.put_agent(agent.clone(), NOW).await.unwrap();
    }
    let (mut token, mut seen) = (String::new(), Vec::new());
    loop {
        let page = store.list_agents(&AgentFilter::default(), &PageRequest { token, size: 3 }).await.unwrap();
        seen.extend(page.items);
        token = page.next_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, all);
    let wrong = PageRequest { token: "x".into(), size: 3 };
    assert!(matches!(store.list_agents(&AgentFilter::default(), &wrong).await, Err(Error::BadPageToken(_))));
}
