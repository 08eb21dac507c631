mod model;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use steeple_datastore::model::Selector;

use super::*;

fn trust_domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn id(path: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap()
}

fn entry(entry_id: &str, parent: &str, spiffe_id: &str, selectors: &[&str]) -> Entry {
    Entry {
        id: entry_id.to_owned(),
        spiffe_id: id(spiffe_id),
        parent_id: id(parent),
        selectors: selectors.iter().map(|value| Selector::new("test", *value)).collect(),
        x509_svid_ttl: 0,
        jwt_svid_ttl: 0,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: 0,
        dns_names: Vec::new(),
        revision_number: 0,
        store_svid: false,
        hint: String::new(),
        created_at: 0,
        additional: None,
    }
}

fn agent(path: &str, selectors: &[&str]) -> Agent {
    Agent {
        id: id(path),
        attestation_type: "join_token".to_owned(),
        serial_number: "1".to_owned(),
        expires_at: 100,
        new_serial_number: String::new(),
        new_expires_at: 0,
        can_reattest: false,
        agent_version: String::new(),
        selectors: selectors.iter().map(|value| Selector::new("test", *value)).collect(),
    }
}

fn ids(entries: Vec<Arc<Entry>>) -> Vec<String> {
    let mut ids: Vec<String> = entries.iter().map(|entry| entry.id.clone()).collect();
    ids.sort();
    ids
}

const AGENT: &str = "/spire/agent/one";
const SERVER: &str = "/spire/server";

#[test]
fn aliases_and_descendants() {
    let mut index = EntryIndex::new(trust_domain());
    index.set_agent(agent(AGENT, &["a", "b", "c"]));
    index.set_entry(entry("direct", AGENT, "/direct", &["x"]));
    index.set_entry(entry("alias", SERVER, "/nodes", &["b", "a"]));
    index.set_entry(entry("other-alias", SERVER, "/others", &["a", "z"]));
    index.set_entry(entry("by-alias", "/nodes", "/by-alias", &["x"]));
    index.set_entry(entry("not-mine", "/others", "/not-mine", &["x"]));
    // Cilium: identities are parented to the operator's identity, which is parented to the agent.
    index.set_entry(entry("operator", AGENT, "/cilium-operator", &["k8s"]));
    index.set_entry(entry("identity", "/cilium-operator", "/identity/1", &["cilium"]));
    index.set_entry(entry("below", "/identity/1", "/below", &["x"]));
    let agent_id = id(AGENT);
    let expected = ["below", "by-alias", "direct", "identity", "operator"];
    assert_eq!(ids(index.authorized_entries(&agent_id)), expected);
    for entry_id in expected {
        assert_eq!(index.authorized_entry(&agent_id, entry_id).unwrap().id, entry_id);
    }
    for entry_id in ["alias", "other-alias", "not-mine", "unknown"] {
        assert!(index.authorized_entry(&agent_id, entry_id).is_none(), "{entry_id}");
    }
    assert!(index.authorized_entries(&id("/spire/agent/two")).is_empty());
    assert_eq!(index.entries_by_spiffe_id(&id("/nodes"))[0].id, "alias");
}

#[test]
fn an_unknown_agent_has_what_is_parented_to_it() {
    let mut index = EntryIndex::new(trust_domain());
    index.set_entry(entry("direct", AGENT, "/direct", &["x"]));
    assert_eq!(ids(index.authorized_entries(&id(AGENT))), ["direct"]);
    assert!(index.authorized_entry(&id(AGENT), "direct").is_some());
}

#[test]
fn cycles_end_and_are_left() {
    let mut index = EntryIndex::new(trust_domain());
    index.set_agent(agent(AGENT, &[]));
    index.track(&id(AGENT));
    index.set_entry(entry("self", "/loop", "/loop", &["x"]));
    index.set_entry(entry("there", "/loop", "/back", &["x"]));
    index.set_entry(entry("back", "/back", "/loop", &["x"]));
    assert!(index.authorized_entries(&id(AGENT)).is_empty());
    let deltas = index.set_entry(entry("in", AGENT, "/loop", &["x"]));
    assert_eq!(deltas.len(), 1);
    assert_eq!(ids(deltas[0].1.set.clone()), ["back", "in", "self", "there"]);
    let deltas = index.remove_entry("in");
    let mut removed = deltas[0].1.removed.clone();
    removed.sort();
    assert_eq!(removed, ["back", "in", "self", "there"]);
    assert!(index.authorized_entries(&id(AGENT)).is_empty());
}

#[test]
fn a_chain_of_a_hundred_parents_is_walked_and_cut() {
    let mut index = EntryIndex::new(trust_domain());
    index.set_agent(agent(AGENT, &[]));
    index.track(&id(AGENT));
    for n in (1..100).rev() {
        index.set_entry(entry(&format!("e{n}"), &format!("/{}", n - 1), &format!("/{n}"), &["x"]));
    }
    assert!(index.authorized_entries(&id(AGENT)).is_empty());
    let deltas = index.set_entry(entry("e0", AGENT, "/0", &["x"]));
    assert_eq!(deltas[0].1.set.len(), 100);
    let deltas = index.remove_entry("e50");
    assert_eq!(deltas[0].1.removed.len(), 50);
    assert_eq!(index.authorized_entries(&id(AGENT)).len(), 50);
}

#[test]
fn entries_of_other_trust_domains_belong_to_nobody() {
    let mut index = EntryIndex::new(trust_domain());
    index.set_agent(agent(AGENT, &[]));
    let mut foreign = entry("foreign", AGENT, "/x", &["x"]);
    foreign.spiffe_id = SpiffeId::parse("spiffe://other.org/x").unwrap();
    index.set_entry(foreign);
    let mut foreign = entry("foreign-parent", AGENT, "/x", &["x"]);
    foreign.parent_id = SpiffeId::parse(&format!("spiffe://other.org{AGENT}")).unwrap();
    index.set_entry(foreign);
    assert!(index.authorized_entries(&id(AGENT)).is_empty());
    assert!(index.authorized_entry(&id(AGENT), "foreign").is_none());
    assert_eq!(index.len(), 2);
    index.remove_entry("foreign");
    index.remove_entry("foreign-parent");
    assert_eq!((index.len(), index.nodes.len()), (0, 1), "the agent's node is left");
}

#[test]
fn one_change_touches_only_agents_that_reach_it() {
    let mut index = EntryIndex::new(trust_domain());
    for number in 0..100 {
        let path = format!("/spire/agent/{number}");
        index.set_agent(agent(&path, &[if number % 2 == 0 { "even" } else { "odd" }]));
        index.track(&id(&path));
    }
    index.set_entry(entry("odd", SERVER, "/odd", &["odd"]));
    let deltas = index.set_entry(entry("one", "/spire/agent/7", "/x", &["x"]));
    assert_eq!(deltas.iter().map(|(agent, _)| agent.clone()).collect::<Vec<_>>(), [id("/spire/agent/7")]);
    let deltas = index.set_entry(entry("half", "/odd", "/y", &["x"]));
    assert_eq!(deltas.len(), 50);
    index.untrack(&id("/spire/agent/7"));
    assert_eq!(index.remove_entry("half").len(), 49);
    assert!(index.remove_entry("one").is_empty());
}

#[test]
fn an_update_is_one_delta() {
    let mut index = EntryIndex::new(trust_domain());
    index.track(&id(AGENT));
    index.track(&id("/spire/agent/two"));
    index.set_entry(entry("e", AGENT, "/x", &["x"]));
    let mut changed = entry("e", AGENT, "/x", &["x"]);
    changed.hint = "hint".to_owned();
    let deltas = index.set_entry(changed);
    assert_eq!((deltas.len(), deltas[0].1.set[0].hint.as_str()), (1, "hint"));
    let deltas = index.set_entry(entry("e", "/spire/agent/two", "/x", &["x"]));
    let by_agent: BTreeMap<SpiffeId, AgentDelta> = deltas.into_iter().collect();
    assert_eq!(by_agent[&id(AGENT)], AgentDelta { set: vec![], removed: vec!["e".to_owned()] });
    assert_eq!(by_agent[&id("/spire/agent/two")].set.len(), 1);
    // Same agent, other identity: set, not removed.
    let deltas = index.set_entry(entry("e", "/spire/agent/two", "/y", &["x"]));
    assert_eq!((deltas[0].1.set.len(), deltas[0].1.removed.len()), (1, 0));
}

/// One change of what is stored; numbers pick from small pools so that everything meets everything.
#[derive(Clone, Debug)]
enum Op {
    SetEntry { entry: u8, parent: u8, identity: u8, selectors: u8, hint: u8 },
    RemoveEntry(u8),
    SetAgent { agent: u8, selectors: u8 },
    RemoveAgent(u8),
    Track(u8),
    Untrack(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..12_u8, 0..10_u8, 0..10_u8, 0..16_u8, 0..2_u8).prop_map(|(entry, parent, identity, selectors, hint)| {
            Op::SetEntry { entry, parent, identity, selectors, hint }
        }),
        4 => (0..12_u8).prop_map(Op::RemoveEntry),
        3 => (0..3_u8, 0..16_u8).prop_map(|(agent, selectors)| Op::SetAgent { agent, selectors }),
        1 => (0..3_u8).prop_map(Op::RemoveAgent),
        2 => (0..3_u8).prop_map(Op::Track),
        1 => (0..3_u8).prop_map(Op::Untrack),
    ]
}

/// Ids that are parents and identities: agents, the server, workloads, and a foreign one.
fn pooled_id(number: u8) -> SpiffeId {
    match number {
        0..=2 => id(&format!("/spire/agent/{number}")),
        3 | 4 => id(SERVER),
        9 => SpiffeId::parse("spiffe://other.org/x").unwrap(),
        _ => id(&format!("/w/{number}")),
    }
}

fn pooled_selectors(bits: u8) -> Vec<&'static str> {
    ["a", "b", "c", "d"]
        .into_iter()
        .enumerate()
        .filter(|(at, _)| bits & (1 << at) != 0)
        .map(|(_, name)| name)
        .collect()
}

fn play(ops: Vec<Op>) {
    let mut index = EntryIndex::new(trust_domain());
    let mut naive = model::Model::new(trust_domain());
    // What a listener knows from deltas alone.
    let mut listeners: BTreeMap<SpiffeId, BTreeMap<String, Arc<Entry>>> = BTreeMap::new();
    for op in ops {
        let deltas = match op.clone() {
            Op::SetEntry { entry: number, parent, identity, selectors, hint } => {
                let mut entry = entry(&format!("e{number}"), "/p", "/i", &pooled_selectors(selectors));
                entry.parent_id = pooled_id(parent);
                entry.spiffe_id = pooled_id(identity);
                entry.hint = hint.to_string();
                naive.entries.insert(entry.id.clone(), entry.clone());
                index.set_entry(entry)
            }
            Op::RemoveEntry(number) => {
                naive.entries.remove(&format!("e{number}"));
                index.remove_entry(&format!("e{number}"))
            }
            Op::SetAgent { agent: number, selectors } => {
                let agent = agent(&format!("/spire/agent/{number}"), &pooled_selectors(selectors));
                naive.agents.insert(agent.id.clone(), agent.clone());
                index.set_agent(agent)
            }
            Op::RemoveAgent(number) => {
                naive.agents.remove(&pooled_id(number));
                index.remove_agent(&pooled_id(number))
            }
            Op::Track(number) => {
                index.track(&pooled_id(number));
                let known = index.authorized_entries(&pooled_id(number));
                let known = known.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
                listeners.entry(pooled_id(number)).or_insert(known);
                Deltas::new()
            }
            Op::Untrack(number) => {
                index.untrack(&pooled_id(number));
                listeners.remove(&pooled_id(number));
                Deltas::new()
            }
        };
        let affected: BTreeSet<SpiffeId> = deltas.iter().map(|(agent, _)| agent.clone()).collect();
        assert_eq!(affected.len(), deltas.len(), "{op:?}: each agent once");
        for (agent, delta) in deltas {
            assert!(!delta.set.is_empty() || !delta.removed.is_empty(), "{op:?}: empty delta");
            let known =
                listeners.get_mut(&agent).unwrap_or_else(|| panic!("{op:?}: {agent} does not listen"));
            for id in delta.removed {
                assert!(known.remove(&id).is_some(), "{op:?}: {agent} did not have {id}");
            }
            known.extend(delta.set.into_iter().map(|entry| (entry.id.clone(), entry)));
        }
        for number in 0..3 {
            let agent = pooled_id(number);
            let expected = naive.authorized(&agent);
            assert_eq!(
                ids(index.authorized_entries(&agent)),
                expected.keys().cloned().collect::<Vec<_>>(),
                "{op:?}"
            );
            for entry in naive.entries.keys() {
                let found = index.authorized_entry(&agent, entry);
                assert_eq!(found.as_deref(), expected.get(entry), "{op:?}: {agent} {entry}");
            }
            if let Some(known) = listeners.get(&agent) {
                let known: BTreeMap<String, Entry> =
                    known.iter().map(|(id, entry)| (id.clone(), (**entry).clone())).collect();
                assert_eq!(known, expected, "{op:?}: what {agent} knows from deltas");
            }
            assert_eq!(index.agent(&agent).as_deref(), naive.agents.get(&agent));
        }
        for number in 0..10 {
            let identity = pooled_id(number);
            let expected = naive.entries.values().filter(|entry| entry.spiffe_id == identity);
            let mut expected: Vec<String> = expected.map(|entry| entry.id.clone()).collect();
            expected.sort();
            assert_eq!(ids(index.entries_by_spiffe_id(&identity)), expected);
        }
        assert_eq!(index.len(), naive.entries.len());
    }
    for number in 0..3 {
        index.untrack(&pooled_id(number));
        index.remove_agent(&pooled_id(number));
    }
    for entry in naive.entries.keys() {
        index.remove_entry(entry);
    }
    assert_eq!((index.nodes.len(), index.selectors.len(), index.len()), (0, 0, 0), "nothing is left behind");
    assert_eq!((index.aliases.len(), index.agents.iter().count()), (0, 0), "nothing is left behind");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: crate::fake::cases(800), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_index_equals_full_recomputation(ops in prop::collection::vec(op(), 1..30)) {
        play(ops);
    }
}

#[test]
fn the_way_from_an_entry_to_its_agents_is_told() {
    let mut index = EntryIndex::new(trust_domain());
    index.set_agent(agent(AGENT, &["a", "b"]));
    index.set_agent(agent("/spire/agent/two", &["a"]));
    index.set_entry(entry("alias", SERVER, "/nodes", &["a", "b"]));
    index.set_entry(entry("mid", "/nodes", "/mid", &["x"]));
    index.set_entry(entry("leaf", "/mid", "/leaf", &["x"]));
    index.set_entry(entry("lost", "/nowhere", "/lost", &["x"]));
    // Two that are each other's parent.
    index.set_entry(entry("round", "/about", "/round", &["x"]));
    index.set_entry(entry("about", "/round", "/about", &["x"]));
    let named = Entry {
        selectors: vec![Selector::new("spiffe_id", id(AGENT).as_str())],
        ..entry("token", AGENT, "/mine", &[])
    };
    index.set_entry(named);
    let (one, two) = (id(AGENT), id("/spire/agent/two"));
    assert_eq!(index.lineage(&one, "leaf"), Some(vec![id("/mid"), id("/nodes"), one.clone()]));
    assert_eq!(index.lineage(&one, "token"), Some(vec![one.clone()]));
    assert_eq!(index.agents_of("leaf"), std::slice::from_ref(&one));
    assert_eq!(index.agents_of("alias"), std::slice::from_ref(&one));
    for lost in ["lost", "round", "about", "alias", "no such entry"] {
        assert_eq!(index.lineage(&one, lost), None, "{lost}");
    }
    assert_eq!(index.lineage(&two, "leaf"), None);
    assert_eq!(index.agents_of("lost"), []);
    assert_eq!(index.aliases_of(&one), [id("/mine"), id("/nodes")]);
    assert_eq!(index.aliases_of(&two), []);
    assert!(index.is_alias("alias") && !index.is_alias("leaf"));
}
