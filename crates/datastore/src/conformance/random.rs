//! Random operations on a store and on the naive model, which must agree on every answer, on the log and on what is
//! stored in the end.

use std::fmt::Debug;

use fastrand::Rng;
use steeple_spiffe::bundle::Bundle;

use super::fixtures::{NOW, agent, authority, entry, id, jwt_authority, selectors, trust_domain};
use super::{Factory, Replica};
use crate::memory::MemoryStore;
use crate::model::{AdditionalAttributes, Agent, CaJournal, Entry, JoinToken, Selector};
use crate::{
    AgentFilter, AgentUpdate, BundleDeleteMode, BundleMask, Datastore, EntryFilter, EntryMask, Match,
    PageRequest, Revision,
};

const SEEDS: u64 = 24;
const STEPS: usize = 120;

pub async fn agrees_with_the_model(fresh: Factory) {
    for seed in 0..SEEDS {
        let fresh = fresh();
        let model = MemoryStore::new();
        let mut rng = Rng::with_seed(seed);
        let start = Replica::of(fresh.store.snapshot().await.unwrap());
        for step in 0..STEPS {
            let op = Op::pick(&mut rng);
            let expected = run(&model, &op).await;
            let got = run(&*fresh.store, &op).await;
            assert_eq!(got, expected, "seed {seed}, step {step}: {op:?}");
        }
        same_state(&*fresh.store, &model, start, seed).await;
    }
}

async fn same_state(store: &dyn Datastore, model: &MemoryStore, start: Replica, seed: u64) {
    let (ours, theirs) = (store.snapshot().await.unwrap(), model.snapshot().await.unwrap());
    assert_eq!(ours.revision, theirs.revision, "seed {seed}");
    assert_eq!(ours.entries, theirs.entries, "seed {seed}");
    assert_eq!(ours.agents, theirs.agents, "seed {seed}");
    assert_eq!(ours.bundles, theirs.bundles, "seed {seed}");
    let log = store.changes_since(Revision(0), usize::MAX).await.unwrap();
    assert_eq!(log, model.changes_since(Revision(0), usize::MAX).await.unwrap(), "seed {seed}");
    let mut replica = start;
    for logged in log {
        replica.apply(logged);
    }
    assert_eq!(replica, Replica::of(ours), "seed {seed}: the log does not lead to what is stored");
}

#[derive(Debug)]
enum Op {
    CreateEntries(Vec<Entry>),
    UpdateEntry(Entry, EntryMask),
    DeleteEntries(Vec<String>),
    PruneEntries(i64),
    ListEntries(EntryFilter, u32),
    PutAgent(Agent),
    UpdateAgent(Agent, AgentUpdate),
    Promote(Agent, String),
    DeleteAgent(Agent),
    PruneAgents(i64, bool, u32),
    ListAgents(AgentFilter, u32),
    CreateToken(JoinToken),
    TakeToken(String),
    Join(String, Agent),
    PruneTokens(i64),
    CreateBundle(Bundle),
    UpdateBundle(Bundle, BundleMask),
    SetBundle(Bundle),
    AppendBundle(Bundle),
    DeleteBundle(Bundle, BundleDeleteMode),
    PruneBundle(Bundle, i64),
    ListBundles(u32),
    PutJournal(CaJournal),
}

impl Op {
    fn pick(rng: &mut Rng) -> Self {
        match rng.u32(0..35) {
            0..=6 => Self::CreateEntries((0..rng.u32(1..4)).map(|_| some_entry(rng)).collect()),
            7..=9 => Self::UpdateEntry(some_entry(rng), some_mask(rng)),
            10..=11 => Self::DeleteEntries(vec![some_entry(rng).id, some_entry(rng).id]),
            12 => Self::PruneEntries(NOW + rng.i64(-3..3)),
            13..=15 => Self::ListEntries(some_filter(rng), rng.u32(0..4)),
            16..=18 => Self::PutAgent(some_agent(rng)),
            19 => Self::UpdateAgent(some_agent(rng), some_update(rng)),
            20 => Self::DeleteAgent(some_agent(rng)),
            21 => Self::PruneAgents(NOW + rng.i64(-3..3), rng.bool(), rng.u32(0..3)),
            22..=23 => Self::ListAgents(some_agent_filter(rng), rng.u32(0..4)),
            24 => Self::CreateToken(JoinToken { token: some_name(rng), expires_at: NOW + rng.i64(-3..3) }),
            25 if rng.bool() => Self::TakeToken(some_name(rng)),
            25 => Self::Join(some_name(rng), some_agent(rng)),
            26 => Self::PruneTokens(NOW + rng.i64(-3..3)),
            27 => Self::CreateBundle(some_bundle(rng)),
            28 => Self::UpdateBundle(some_bundle(rng), some_bundle_mask(rng)),
            29 => Self::SetBundle(some_bundle(rng)),
            30 => Self::AppendBundle(some_bundle(rng)),
            31 => Self::DeleteBundle(some_bundle(rng), some_mode(rng)),
            32 => Self::PruneBundle(some_bundle(rng), NOW + rng.i64(-3..3)),
            33 => Self::Promote(some_agent(rng), rng.u32(0..3).to_string()),
            _ if rng.bool() => Self::ListBundles(rng.u32(0..3)),
            _ => Self::PutJournal(CaJournal { data: vec![rng.u8(..)], ..Default::default() }),
        }
    }
}

/// The answer as text; row ids and page tokens, which may differ, are left out.
async fn run(store: &dyn Datastore, op: &Op) -> String {
    match op {
        Op::CreateEntries(entries) => text(store.create_entries(entries.clone(), NOW).await),
        Op::UpdateEntry(entry, mask) => text(store.update_entry(entry.clone(), *mask, NOW).await),
        Op::DeleteEntries(ids) => text(store.delete_entries(ids.clone()).await),
        Op::PruneEntries(before) => text(store.prune_entries(*before).await),
        Op::ListEntries(filter, size) => {
            let mut all = Vec::new();
            let mut page = PageRequest { token: String::new(), size: *size };
            loop {
                let ids = store.list_entry_ids(filter, &page).await;
                match store.list_entries(filter, &page).await {
                    Ok(found) => {
                        let ids = ids.unwrap().expect("nobody else writes");
                        assert!(ids.page.items.iter().eq(found.items.iter().map(|entry| &entry.id)));
                        assert_eq!(ids.page.next_token, found.next_token);
                        assert_eq!(ids.revision, store.head().await.unwrap());
                        all.push(found.items);
                        page.token = found.next_token;
                    }
                    Err(error) => {
                        assert_eq!(ids.unwrap_err().to_string(), error.to_string());
                        return error.to_string();
                    }
                }
                if page.token.is_empty() {
                    return text((all, store.count_entries(filter).await));
                }
            }
        }
        Op::PutAgent(agent) => text(store.put_agent(agent.clone(), NOW).await),
        Op::UpdateAgent(agent, update) => text(store.update_agent(&agent.id, update.clone(), NOW).await),
        Op::Promote(agent, serial) => text(store.promote_agent_serial(&agent.id, serial, NOW).await),
        Op::DeleteAgent(agent) => {
            text((store.fetch_agent(&agent.id).await, store.delete_agent(&agent.id).await))
        }
        Op::PruneAgents(before, all, limit) => text(store.prune_agents(*before, *all, *limit).await),
        Op::ListAgents(filter, size) => {
            let page = PageRequest { token: String::new(), size: *size };
            let found =
                store.list_agents(filter, &page).await.map(|page| (page.items, page.next_token.is_empty()));
            text((found, store.count_agents(filter).await))
        }
        Op::CreateToken(token) => text(store.create_join_token(token.clone(), NOW).await),
        Op::Join(token, agent) => {
            let fetched = store.fetch_join_token(token).await;
            text((fetched, store.put_agent_for_token(token, agent.clone(), NOW).await))
        }
        Op::TakeToken(token) => text(store.take_join_token(token).await),
        Op::PruneTokens(before) => text(store.prune_join_tokens(*before).await),
        Op::CreateBundle(bundle) => text(store.create_bundle(bundle.clone(), NOW).await),
        Op::UpdateBundle(bundle, mask) => text(store.update_bundle(bundle.clone(), *mask, NOW).await),
        Op::SetBundle(bundle) => text(store.set_bundle(bundle.clone(), NOW).await),
        Op::AppendBundle(bundle) => text(store.append_bundle(bundle.clone(), NOW).await),
        Op::DeleteBundle(bundle, mode) => text(store.delete_bundle(&bundle.trust_domain, *mode).await),
        Op::PruneBundle(bundle, before) => text(store.prune_bundle(&bundle.trust_domain, *before, NOW).await),
        Op::ListBundles(size) => {
            let page = PageRequest { token: String::new(), size: *size };
            text((store.list_bundles(&page).await.map(|page| page.items), store.count_bundles().await))
        }
        Op::PutJournal(journal) => {
            store.put_ca_journal(journal.clone(), NOW).await.unwrap();
            let journals = store.list_ca_journals().await.unwrap();
            text(journals.into_iter().map(|journal| journal.data).collect::<Vec<_>>())
        }
    }
}

fn text(value: impl Debug) -> String {
    format!("{value:?}")
}

fn some_name(rng: &mut Rng) -> String {
    format!("n{}", rng.u32(0..8))
}

fn some_selectors(rng: &mut Rng, at_least: usize) -> Vec<Selector> {
    let count = rng.usize(at_least..4);
    // Sometimes the same twice.
    (0..count).map(|_| Selector::new("t", rng.u32(0..4).to_string())).collect()
}

fn some_domains(rng: &mut Rng, at_least: usize) -> Vec<steeple_spiffe::TrustDomain> {
    (0..rng.usize(at_least..3)).map(|_| trust_domain(["a.org", "b.org", "c.org"][rng.usize(0..3)])).collect()
}

fn some_entry(rng: &mut Rng) -> Entry {
    let alias = format!("spiffe_id:{}", id("/agent/1"));
    let parent = format!("/agent/{}", rng.u32(0..3));
    Entry {
        selectors: if rng.u32(0..8) == 0 { selectors(&[&alias]) } else { some_selectors(rng, 0) },
        x509_svid_ttl: rng.i32(-1..60),
        federates_with: if rng.bool() { some_domains(rng, 0) } else { Vec::new() },
        admin: rng.bool(),
        downstream: rng.bool(),
        expires_at: if rng.bool() { 0 } else { NOW + rng.i64(-3..3) },
        dns_names: (0..rng.u32(0..3)).map(|n| format!("d{n}{}", rng.u32(0..2))).collect(),
        revision_number: rng.i64(0..9),
        store_svid: rng.u32(0..5) == 0,
        hint: ["", "h1", "h2"][rng.usize(0..3)].into(),
        additional: rng.bool().then(|| AdditionalAttributes {
            disable_x509_svid_prefetch: rng.bool(),
            jwt_svid_include_jti: rng.bool(),
        }),
        ..entry(&some_name(rng), &format!("/w/{}", rng.u32(0..3)), &parent, &[])
    }
}

fn some_mask(rng: &mut Rng) -> EntryMask {
    EntryMask {
        spiffe_id: rng.bool(),
        parent_id: rng.bool(),
        selectors: rng.bool(),
        x509_svid_ttl: rng.bool(),
        jwt_svid_ttl: rng.bool(),
        federates_with: rng.bool(),
        admin: rng.bool(),
        downstream: rng.bool(),
        expires_at: rng.bool(),
        dns_names: rng.bool(),
        store_svid: rng.bool(),
        hint: rng.bool(),
        additional: rng.bool(),
    }
}

fn some_match(rng: &mut Rng) -> Match {
    [Match::Exact, Match::Subset, Match::Superset, Match::Any][rng.usize(0..4)]
}

fn some_filter(rng: &mut Rng) -> EntryFilter {
    let one = |rng: &mut Rng| rng.u32(0..3) == 0;
    EntryFilter {
        spiffe_id: one(rng).then(|| some_entry(rng).spiffe_id),
        parent_id: one(rng).then(|| some_entry(rng).parent_id),
        selectors: one(rng).then(|| (some_selectors(rng, 0), some_match(rng))),
        federates_with: one(rng).then(|| (some_domains(rng, 0), some_match(rng))),
        hint: one(rng).then(|| some_entry(rng).hint),
        downstream: one(rng).then(|| rng.bool()),
    }
}

fn some_agent(rng: &mut Rng) -> Agent {
    Agent {
        serial_number: if rng.u32(0..4) == 0 { String::new() } else { rng.u32(..).to_string() },
        expires_at: NOW + rng.i64(-3..3),
        new_serial_number: if rng.bool() { String::new() } else { rng.u32(0..3).to_string() },
        new_expires_at: if rng.bool() { 0 } else { NOW + rng.i64(0..9) },
        can_reattest: rng.bool(),
        selectors: some_selectors(rng, 0),
        ..agent(&format!("/agent/{}", rng.u32(0..4)), ["join_token", "k8s_psat"][rng.usize(0..2)])
    }
}

fn some_update(rng: &mut Rng) -> AgentUpdate {
    let other = some_agent(rng);
    AgentUpdate {
        attestation_type: rng.bool().then_some(other.attestation_type),
        serial_number: rng.bool().then_some(other.serial_number),
        expires_at: rng.bool().then_some(other.expires_at),
        new_serial_number: rng.bool().then_some(other.new_serial_number),
        new_expires_at: rng.bool().then_some(other.new_expires_at),
        can_reattest: rng.bool().then_some(other.can_reattest),
        agent_version: rng.bool().then_some(other.agent_version),
    }
}

fn some_agent_filter(rng: &mut Rng) -> AgentFilter {
    let one = |rng: &mut Rng| rng.u32(0..3) == 0;
    AgentFilter {
        attestation_type: one(rng).then(|| some_agent(rng).attestation_type),
        selectors: one(rng).then(|| (some_selectors(rng, 0), some_match(rng))),
        banned: one(rng).then(|| rng.bool()),
        can_reattest: one(rng).then(|| rng.bool()),
        expires_before: one(rng).then(|| NOW + rng.i64(-3..3)),
    }
}

fn some_bundle(rng: &mut Rng) -> Bundle {
    let mut bundle = Bundle::new(some_domains(rng, 1).remove(0));
    for _ in 0..rng.u32(0..3) {
        let mut one = authority(rng.u32(0..3), NOW + rng.i64(-1..2));
        one.tainted = rng.u32(0..4) == 0;
        bundle.x509_authorities.push(one);
    }
    for _ in 0..rng.u32(0..3) {
        let expires_at = if rng.bool() { 0 } else { NOW + rng.i64(-1..2) };
        bundle.jwt_authorities.push(jwt_authority(rng.u32(0..3), expires_at));
    }
    bundle.refresh_hint = rng.bool().then(|| rng.i64(1..9));
    bundle.sequence_number = rng.u64(0..9);
    bundle
}

fn some_bundle_mask(rng: &mut Rng) -> BundleMask {
    BundleMask {
        x509_authorities: rng.bool(),
        jwt_authorities: rng.bool(),
        refresh_hint: rng.bool(),
        sequence_number: rng.bool(),
        wit_authorities: rng.bool(),
    }
}

fn some_mode(rng: &mut Rng) -> BundleDeleteMode {
    [BundleDeleteMode::Restrict, BundleDeleteMode::Delete, BundleDeleteMode::Dissociate][rng.usize(0..3)]
}
