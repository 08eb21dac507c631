use super::*;
use crate::convert::entry_to_proto;
use prost::Message;
use steeple_datastore::model::{Entry, Selector};

fn entry(n: usize, bytes: usize) -> Arc<Entry> {
    Arc::new(Entry {
        id: format!("e{n}"),
        spiffe_id: "spiffe://example.org/w".parse().unwrap(),
        parent_id: "spiffe://example.org/p".parse().unwrap(),
        selectors: vec![Selector::new("x", "v".repeat(bytes))],
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
    })
}

fn delta(entries: Vec<Arc<Entry>>) -> Delta {
    Delta { revision: Revision(5), log_id: "log".to_owned(), snapshot: true, entries, ..Delta::default() }
}

/// As an agent reads them.
fn messages(delta: Delta) -> Vec<pb::WatchResponse> {
    super::messages(delta).map(|message| pb::WatchResponse::decode(message.bytes()).unwrap()).collect()
}

#[test]
fn messages_are_bounded_in_entries_and_bytes() {
    let many = messages(delta((0..1_001).map(|n| entry(n, 1)).collect()));
    let sizes: Vec<_> = many.iter().map(|m| (m.entries.len(), m.more)).collect();
    assert_eq!(sizes, [(500, true), (500, true), (1, false)]);
    assert!(many.iter().all(|m| m.snapshot && m.revision == 5 && m.log_id == "log"));

    let large = messages(delta((0..50).map(|n| entry(n, 100_000)).collect()));
    assert!(large.iter().all(|m| m.encoded_len() < 2 * MAX_BYTES));
    assert_eq!(large.iter().map(|m| m.entries.len()).sum::<usize>(), 50);
    assert!(large.len() > 3);
}

#[test]
fn a_delta_without_entries_is_one_message() {
    let delta = Delta { removed: vec!["gone".to_owned()], ..delta(Vec::new()) };
    let messages = messages(delta);
    assert_eq!((messages.len(), messages[0].more), (1, false));
    assert_eq!(messages[0].removed_entry_ids, ["gone"]);
}

#[test]
fn a_message_is_what_prost_would_write() {
    let entries: Vec<_> = (0..3).map(|n| entry(n, 10)).collect();
    let expected = pb::WatchResponse {
        revision: 5,
        log_id: "log".to_owned(),
        snapshot: true,
        more: false,
        entries: entries.iter().map(|entry| entry_to_proto(entry)).collect(),
        removed_entry_ids: vec!["gone".to_owned()],
        bundles: Vec::new(),
        removed_bundles: vec!["other.org".to_owned()],
        rotate_entry_ids: vec!["e1".to_owned()],
        rotate_agent: true,
    };
    let delta = Delta {
        removed: vec!["gone".to_owned()],
        removed_bundles: vec!["other.org".parse().unwrap()],
        rotated: vec!["e1".to_owned()],
        rotate_agent: true,
        ..delta(entries)
    };
    let messages: Vec<_> = super::messages(delta).collect();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].bytes(), expected.encode_to_vec());
    assert_eq!(messages[0].encode_to_vec(), expected.encode_to_vec());
}

/// A server holds one for each agent, and most of them wait for most of their life: what stands around it is the
/// libraries' matter (docs/benchmarks.md), this is ours.
#[test]
fn a_waiting_agent_costs_little() {
    let bytes = size_of::<Watch>() + size_of::<Sleep>();
    assert!(bytes <= 400, "{bytes} bytes for each agent");
}
