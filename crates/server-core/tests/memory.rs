//! Memory per entry is a budget (DESIGN §3.5): measured on the whole process, so this file holds one test only.
#![cfg(test)]

use std::fs;

use steeple_datastore::model::{Entry, Selector};
use steeple_server_core::index::EntryIndex;
use steeple_spiffe::{SpiffeId, TrustDomain};

/// What the binaries use.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES: usize = 50_000;
const BUDGET: usize = 700;

fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}

/// As a Kubernetes cluster registers: an agent for each node, two selectors, a UUID.
fn entry(number: usize) -> Entry {
    let id = |path: String| SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap();
    Entry {
        id: format!("{number:08x}-1111-4222-8333-444444444444"),
        spiffe_id: id(format!("/ns/production/sa/service-{number}")),
        parent_id: id(format!("/spire/agent/k8s_psat/cluster/node-{}", number % 100)),
        selectors: vec![
            Selector::new("k8s", format!("ns:production-{}", number % 50)),
            Selector::new("k8s", format!("sa:service-{number}")),
        ],
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

#[test]
fn bytes_for_each_entry() {
    let mut index = EntryIndex::new(TrustDomain::new("example.org").unwrap());
    for number in 0..100 {
        index.track(&entry(number).parent_id);
    }
    let before = resident_bytes();
    for number in 0..ENTRIES {
        index.set_entry(entry(number));
    }
    let bytes = resident_bytes().saturating_sub(before) / ENTRIES;
    println!("{bytes} bytes for each of {ENTRIES} entries");
    assert_eq!(index.authorized_entries(&entry(7).parent_id).len(), ENTRIES / 100);
    assert!(bytes <= BUDGET, "{bytes} bytes for each entry, the budget is {BUDGET}");
}
