use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;
use crate::entry::Selector;
use crate::entry::tests::entry;

fn domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn cache(max_size: usize) -> Cache {
    bounded(max_size, usize::MAX)
}

fn bounded(max_size: usize, max_bytes: usize) -> Cache {
    let rotation = RotationPolicy::default();
    Cache::new(CacheConfig { trust_domain: domain(), max_size, max_bytes, rotation, seed: 7 })
}

fn selectors(values: &[&str]) -> SelectorSet {
    values.iter().map(|value| Selector::new("t", value)).collect()
}

fn set(entries: Vec<Entry>) -> Changes {
    Changes { entries: entries.into_iter().map(Arc::new).collect(), ..Changes::default() }
}

fn gone(ids: &[&str]) -> Changes {
    Changes { removed: ids.iter().map(|id| (*id).into()).collect(), ..Changes::default() }
}

fn svid(now: Millis) -> Svid {
    Svid {
        chain: bytes::Bytes::from_static(b"chain"),
        key: Zeroizing::new(vec![1]),
        not_before: now / 1000,
        not_after: now / 1000 + 3600,
        authority_key_id: Box::from(&b"ca"[..]),
    }
}

/// Everything that is ready, in order.
fn take(cache: &mut Cache, now: Millis) -> Vec<SignJob> {
    let mut jobs = Vec::new();
    loop {
        let more = cache.take_jobs(500, Priority::Prefetch, now);
        if more.is_empty() {
            return jobs;
        }
        assert!(more.iter().all(|job| job.priority == more[0].priority));
        jobs.extend(more);
    }
}

fn sign_all(cache: &mut Cache, now: Millis) -> Vec<String> {
    let jobs = take(cache, now);
    jobs.iter()
        .map(|job| {
            cache.issued(job, svid(now), now);
            job.entry.id.to_string()
        })
        .collect()
}

fn served(subscription: &mut Subscription) -> Vec<String> {
    let update = subscription.updates.borrow_and_update();
    update.content.identities.iter().map(|identity| identity.entry.id.to_string()).collect()
}

#[test]
fn an_entry_reaches_an_open_subscription_and_leaves_it() {
    let mut cache = cache(10);
    let mut workload = cache.subscribe(&selectors(&["a", "b"]), 0);
    let mut stranger = cache.subscribe(&selectors(&["c"]), 0);
    assert!(served(&mut workload).is_empty() && served(&mut stranger).is_empty());
    cache.apply(&set(vec![entry("1", "one", &["a"])]), 0);
    assert!(workload.updates.borrow_and_update().pending);
    let jobs = take(&mut cache, 0);
    assert_eq!(jobs[0].priority, Priority::Waiting);
    cache.issued(&jobs[0], svid(0), 0);
    assert!(workload.updates.has_changed().unwrap());
    assert_eq!(served(&mut workload), ["1"]);
    cache.apply(&gone(&["1"]), 0);
    assert!(served(&mut workload).is_empty());
    assert!(workload.updates.borrow().matched.is_empty());
    assert_eq!(cache.svid_count(), 0);
    assert!(!stranger.updates.has_changed().unwrap());
    assert!(served(&mut stranger).is_empty());
}

#[test]
fn the_waiting_go_before_the_expiring_and_prefetch_comes_last() {
    let mut cache = cache(10);
    cache.apply(&set(vec![entry("old", "old", &["o"])]), 0);
    sign_all(&mut cache, 0);
    let later = 3_600_000;
    cache.apply(&set(vec![entry("ahead", "ahead", &["x"])]), later);
    cache.apply(&set(vec![entry("wanted", "wanted", &["w"])]), later);
    let _workload = cache.subscribe(&selectors(&["w"]), later);
    let jobs = take(&mut cache, later);
    let order: Vec<&str> = jobs.iter().map(|job| &*job.entry.id).collect();
    assert_eq!(order, ["wanted", "old", "ahead"]);
    assert!(take(&mut cache, later).is_empty(), "one request per entry at a time");
}

#[test]
fn a_rotation_has_it_signed_again_and_what_is_under_way_counts_as_old() {
    let mut cache = cache(10);
    let one = entry("e", "e", &["a"]);
    cache.apply(&set(vec![one.clone()]), 0);
    assert_eq!(sign_all(&mut cache, 0), ["e"]);
    let order = Changes { rotated: vec![Arc::new(one)], ..Changes::default() };
    cache.apply(&order, 1);
    let jobs = take(&mut cache, 1);
    assert_eq!(jobs.len(), 1);
    cache.apply(&order, 2);
    assert!(!cache.issued(&jobs[0], svid(2), 2), "asked for before the second order");
    assert_eq!(sign_all(&mut cache, 2), ["e"]);
    assert!(take(&mut cache, 3).is_empty());
}

#[test]
fn rotates_once_due_and_serves_the_old_one_until_then() {
    let mut cache = cache(10);
    cache.apply(&set(vec![entry("1", "one", &["a"])]), 0);
    let mut workload = cache.subscribe(&selectors(&["a"]), 0);
    sign_all(&mut cache, 0);
    assert_eq!(served(&mut workload), ["1"]);
    let first = workload.updates.borrow().content.clone();
    let due = cache.next_wake(Priority::Prefetch).unwrap();
    assert!((1_620_000..=1_980_000).contains(&due), "half of an hour, ten percent either way: {due}");
    assert!(take(&mut cache, due - 1).is_empty());
    assert_eq!(sign_all(&mut cache, due), ["1"]);
    let second = workload.updates.borrow_and_update().content.clone();
    assert!(!Arc::ptr_eq(&first, &second));
}

#[test]
fn a_changed_certificate_is_signed_again_and_a_changed_identity_is_withdrawn_at_once() {
    let mut cache = cache(10);
    cache.apply(&set(vec![entry("1", "one", &["a"])]), 0);
    let mut workload = cache.subscribe(&selectors(&["a"]), 0);
    sign_all(&mut cache, 0);
    let dns = Entry { dns_names: vec!["x".into()], ..entry("1", "one", &["a"]) };
    cache.apply(&set(vec![dns]), 0);
    assert_eq!(served(&mut workload), ["1"], "the old one serves until the new one is there");
    assert_eq!(sign_all(&mut cache, 0), ["1"]);
    cache.apply(&set(vec![entry("1", "two", &["a"])]), 0);
    assert!(served(&mut workload).is_empty());
    assert!(workload.updates.borrow().pending);
    assert_eq!(sign_all(&mut cache, 0), ["1"]);
    let update = workload.updates.borrow().clone();
    assert_eq!(update.content.identities[0].entry.spiffe_id.path(), "/two");
}

#[test]
fn an_answer_for_an_entry_that_changed_meanwhile_is_void() {
    let mut cache = cache(10);
    cache.apply(&set(vec![entry("1", "one", &["a"])]), 0);
    let mut workload = cache.subscribe(&selectors(&["a"]), 0);
    let jobs = take(&mut cache, 0);
    cache.apply(&set(vec![entry("1", "two", &["a"])]), 0);
    cache.issued(&jobs[0], svid(0), 0);
    assert!(served(&mut workload).is_empty());
    assert_eq!(sign_all(&mut cache, 0), ["1"]);
    assert_eq!(served(&mut workload), ["1"]);
}

#[test]
fn a_refused_entry_does_not_hold_back_the_others_and_is_tried_again() {
    let mut cache = cache(10);
    cache.apply(&set(vec![entry("1", "one", &["a"]), entry("2", "two", &["a"])]), 0);
    let mut workload = cache.subscribe(&selectors(&["a"]), 0);
    let jobs = take(&mut cache, 0);
    cache.issued(&jobs[0], svid(0), 0);
    assert!(workload.updates.borrow().pending);
    cache.failed(&jobs[1], "refused", 0);
    assert_eq!(served(&mut workload).len(), 1);
    let update = workload.updates.borrow().clone();
    assert!(!update.pending);
    assert_eq!(update.error.as_deref(), Some("refused"));
    let wake = cache.next_wake(Priority::Prefetch).unwrap();
    assert!((450..=550).contains(&wake), "{wake}");
    assert_eq!(sign_all(&mut cache, wake).len(), 1);
    assert_eq!(served(&mut workload).len(), 2);
}

#[test]
fn the_size_is_a_soft_cap_and_the_least_recently_used_goes_first() {
    let mut cache = cache(2);
    let many = ["1", "2", "3"].map(|id| entry(id, id, &[id])).to_vec();
    cache.apply(&set(many), 0);
    assert_eq!(sign_all(&mut cache, 0), ["1", "2"]);
    assert_eq!(cache.svid_count(), 2);
    let mut third = cache.subscribe(&selectors(&["3"]), 0);
    assert_eq!(sign_all(&mut cache, 0), ["3"]);
    assert_eq!(cache.svid_count(), 2, "1 was used longest ago");
    assert_eq!(served(&mut third), ["3"]);
    let _first = cache.subscribe(&selectors(&["1"]), 0);
    let _second = cache.subscribe(&selectors(&["2"]), 0);
    sign_all(&mut cache, 0);
    assert_eq!(cache.svid_count(), 3, "all have subscribers");
    cache.unsubscribe(third.group, 0);
    assert_eq!(cache.svid_count(), 2);
}

#[test]
fn room_that_frees_is_used_to_sign_ahead() {
    let mut cache = cache(1);
    cache.apply(&set(vec![entry("1", "1", &["1"]), entry("2", "2", &["2"])]), 0);
    assert_eq!(sign_all(&mut cache, 0), ["1"]);
    cache.apply(&gone(&["1"]), 0);
    assert_eq!(sign_all(&mut cache, 0), ["2"]);
}

#[test]
fn entries_without_prefetch_or_for_stores_are_not_signed_ahead() {
    let mut cache = cache(10);
    let lazy = Entry { disable_x509_svid_prefetch: true, ..entry("1", "1", &["a"]) };
    let store = Entry { store_svid: true, ..entry("2", "2", &["a"]) };
    cache.apply(&set(vec![lazy, store]), 0);
    assert!(take(&mut cache, 0).is_empty());
    let mut workload = cache.subscribe(&selectors(&["a"]), 0);
    assert_eq!(sign_all(&mut cache, 0), ["1"]);
    assert_eq!(served(&mut workload), ["1"]);
}

#[test]
fn groups_with_the_same_identities_share_one_content_and_it_is_encoded_once() {
    let mut cache = cache(10);
    cache.apply(&set(vec![entry("1", "1", &["a"])]), 0);
    let one = cache.subscribe(&selectors(&["a", "x"]), 0);
    let two = cache.subscribe(&selectors(&["a", "y"]), 0);
    let same = cache.subscribe(&selectors(&["a", "y"]), 0);
    assert_eq!(two.group, same.group);
    sign_all(&mut cache, 0);
    let (one, two) = (one.updates.borrow().clone(), two.updates.borrow().clone());
    assert!(Arc::ptr_eq(&one.content, &two.content));
    one.content.x509_svid(|_| bytes::Bytes::from_static(b"once"));
    assert_eq!(two.content.x509_svid(|_| unreachable!()), "once".as_bytes());
}

/// Most workloads fetch and leave: the next finds what the last was sent, until anything changes.
#[test]
fn what_the_last_caller_was_sent_is_kept_for_the_next_and_outlasts_no_change() {
    let mut cache = cache(10);
    cache.apply(&set(vec![entry("1", "1", &["a"])]), 0);
    let first = cache.subscribe(&selectors(&["a"]), 0);
    sign_all(&mut cache, 0);
    let fetch = |cache: &mut Cache, encoded: &'static [u8]| {
        let caller = cache.subscribe(&selectors(&["a"]), 0);
        let content = caller.updates.borrow().content.clone();
        let bytes = content.x509_svid(|_| bytes::Bytes::from_static(encoded)).clone();
        cache.unsubscribe(caller.group, 0);
        (bytes, Arc::downgrade(&content))
    };
    cache.unsubscribe(first.group, 0);
    drop(first);
    let (sent, held) = fetch(&mut cache, b"once");
    assert_eq!(fetch(&mut cache, b"again").0, sent, "not encoded again");
    assert!(held.upgrade().is_some());

    cache.apply(&Changes { rotated: vec![Arc::new(entry("1", "1", &["a"]))], ..Changes::default() }, 0);
    assert!(held.upgrade().is_none(), "keys in it are gone with the change");
    sign_all(&mut cache, 0);
    let (sent, held) = fetch(&mut cache, b"new");
    assert_eq!(sent, "new".as_bytes());
    cache.apply(&Changes { removed: vec!["1".into()], ..Changes::default() }, 0);
    assert!(held.upgrade().is_none());

    let mut counted = Cache::new(CacheConfig { max_bytes: 1 << 20, ..cache.config.clone() });
    counted.apply(&set(vec![entry("1", "1", &["a"])]), 0);
    let first = counted.subscribe(&selectors(&["a"]), 0);
    sign_all(&mut counted, 0);
    cache = counted;
    cache.unsubscribe(first.group, 0);
    drop(first);
    let (_, held) = fetch(&mut cache, b"counted");
    assert!(held.upgrade().is_none(), "bytes that nobody counts are not kept");
}

#[test]
fn federated_bundles_come_with_entries_that_federate_only() {
    let mut cache = cache(10);
    let other = TrustDomain::new("other.org").unwrap();
    let bundle = |td: &TrustDomain| Arc::new(Bundle::new(td.clone()));
    let changes = Changes { bundles: vec![bundle(&domain()), bundle(&other)], ..Changes::default() };
    cache.apply(&changes, 0);
    let federating = Entry { federates_with: vec![other.clone()], ..entry("1", "1", &["a"]) };
    cache.apply(&set(vec![federating, entry("2", "2", &["b"])]), 0);
    let with = cache.subscribe(&selectors(&["a"]), 0);
    let mut without = cache.subscribe(&selectors(&["b"]), 0);
    sign_all(&mut cache, 0);
    assert_eq!(with.updates.borrow().content.federated.len(), 1);
    assert!(without.updates.borrow_and_update().content.federated.is_empty());
    let changes = Changes { removed_bundles: vec![other], ..Changes::default() };
    cache.apply(&changes, 0);
    assert!(with.updates.borrow().content.federated.is_empty());
    assert!(!without.updates.has_changed().unwrap());
}

#[test]
fn whoever_wants_no_x509_svid_costs_none() {
    let mut cache = cache(10);
    let lazy = Entry { disable_x509_svid_prefetch: true, ..entry("1", "1", &["a"]) };
    let mut jwt_only = cache.watch(&selectors(&["a"]), 0);
    cache.apply(&set(vec![lazy]), 0);
    let update = jwt_only.updates.borrow_and_update().clone();
    assert_eq!((update.matched.len(), update.pending), (1, false));
    assert!(take(&mut cache, 0).is_empty());
    let with_svid = cache.subscribe(&selectors(&["a"]), 0);
    assert_eq!(sign_all(&mut cache, 0), ["1"], "now somebody asks");
    assert!(!jwt_only.updates.has_changed().unwrap(), "a signature is no news to it");
    cache.unsubscribe(with_svid.group, 0);
    cache.unsubscribe(jwt_only.group, 0);
    assert!(cache.groups.is_empty() && cache.group_ids.is_empty());
}

#[test]
fn an_svid_that_nobody_asks_for_any_more_is_not_renewed_without_prefetch() {
    let mut cache = cache(10);
    let lazy = Entry { disable_x509_svid_prefetch: true, ..entry("1", "1", &["a"]) };
    cache.apply(&set(vec![lazy, entry("2", "2", &["b"])]), 0);
    let once = cache.subscribe(&selectors(&["a"]), 0);
    assert_eq!(sign_all(&mut cache, 0).len(), 2);
    cache.unsubscribe(once.group, 0);
    let due = 2_000_000;
    assert_eq!(sign_all(&mut cache, due), ["2"]);
    assert_eq!(cache.svid_count(), 2, "still there for whoever asks while the server is away");
    let mut again = cache.subscribe(&selectors(&["a"]), due);
    assert_eq!(served(&mut again), ["1"]);
    assert_eq!(sign_all(&mut cache, due), ["1"]);
    cache.unsubscribe(again.group, due);
    sign_all(&mut cache, due + 3_700_000);
    assert!(!cache.has_svid("1"), "over");
}

#[test]
fn room_is_filled_with_what_was_used_last_before_what_never_was() {
    let mut cache = cache(1);
    cache.apply(&set(vec![entry("1", "1", &["1"]), entry("2", "2", &["2"]), entry("3", "3", &["3"])]), 0);
    sign_all(&mut cache, 0);
    for id in ["2", "3"] {
        let open = cache.subscribe(&selectors(&[id]), 0);
        sign_all(&mut cache, 0);
        cache.unsubscribe(open.group, 0);
        assert!(cache.has_svid(id));
    }
    cache.apply(&gone(&["3"]), 0);
    assert_eq!(sign_all(&mut cache, 0), ["2"]);
}

#[test]
fn nothing_is_signed_ahead_past_the_budget_and_what_is_in_use_stays() {
    let size = svid(0).size();
    let mut cache = bounded(100, size * 5 / 2);
    cache.apply(&set((0..9).map(|n| entry(&n.to_string(), "w", &[&n.to_string()])).collect()), 0);
    let first = take(&mut cache, 0);
    for job in &first {
        cache.issued(job, svid(0), 0);
    }
    assert_eq!(first.len(), 1, "how large one is was not known before");
    cache.leave_room_for(0, 0);
    sign_all(&mut cache, 0);
    assert_eq!((cache.svid_count(), cache.bytes()), (2, 2 * size));
    let open: Vec<_> = (0..9).map(|n| cache.subscribe(&selectors(&[&n.to_string()]), 0)).collect();
    sign_all(&mut cache, 0);
    crate::budget::keep(&mut cache, &mut crate::jwt_cache::JwtCache::new(1), 0);
    assert_eq!(cache.svid_count(), 9, "all have subscribers");
    for workload in open {
        cache.unsubscribe(workload.group, 0);
    }
    crate::budget::keep(&mut cache, &mut crate::jwt_cache::JwtCache::new(1), 0);
    let held: Vec<u8> = (0..9).filter(|n| cache.has_svid(&n.to_string())).collect();
    assert_eq!(held, [7, 8]);
    assert!(take(&mut cache, 0).is_empty(), "dropping does not make room to sign ahead what was dropped");
}

/// What is held without subscriber is what was used last, and a workload that asks is always served, whatever happens
/// before (a million operations, for entries that nothing signs ahead).
#[test]
fn the_least_recently_used_goes_first_exactly() {
    const ENTRIES: usize = 40;
    const SIZE: usize = 8;
    let steps = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
    let mut rng = fastrand::Rng::with_seed(11);
    let mut cache = cache(SIZE);
    let lazy = |n: usize| Entry {
        disable_x509_svid_prefetch: true,
        ..entry(&n.to_string(), "w", &[&n.to_string()])
    };
    cache.apply(&set((0..ENTRIES).map(lazy).collect()), 0);
    let mut open: Vec<(usize, Subscription)> = Vec::new();
    // Oldest use first.
    let mut model: Vec<usize> = Vec::new();
    let sets: Vec<SelectorSet> = (0..ENTRIES).map(|n| selectors(&[&n.to_string()])).collect();
    for step in 0..steps {
        let now = step / 100;
        if open.len() > 12 || !open.is_empty() && rng.bool() {
            let (n, left) = open.swap_remove(rng.usize(..open.len()));
            cache.unsubscribe(left.group, now);
            if open.iter().all(|(other, _)| *other != n) {
                model.push(n);
            }
        } else {
            let n = rng.usize(..ENTRIES);
            let mut subscription = cache.subscribe(&sets[n], now);
            sign_all(&mut cache, now);
            assert_eq!(served(&mut subscription).len(), 1);
            open.push((n, subscription));
            model.retain(|idle| *idle != n);
        }
        let busy: HashSet<usize> = open.iter().map(|(n, _)| *n).collect();
        let most = SIZE.saturating_sub(busy.len());
        model.drain(..model.len().saturating_sub(most));
        assert_eq!(cache.svid_count(), busy.len() + model.len());
        assert!(model.iter().all(|n| cache.has_svid(&n.to_string())), "at step {step}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Set(u8, u8, u8, u8),
    Gone(u8),
    Subscribe(u8),
    Unsubscribe(u8),
    Take(u8),
    Issue,
    Fail,
    Wait(u32),
    Rotate(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..8, 0u8..3, 1u8..16, 0u8..2).prop_map(|(id, path, sel, dns)| Step::Set(id, path, sel, dns)),
        (0u8..8).prop_map(Step::Gone),
        (0u8..16).prop_map(Step::Subscribe),
        (0u8..8).prop_map(Step::Unsubscribe),
        (1u8..4).prop_map(Step::Take),
        Just(Step::Issue),
        Just(Step::Fail),
        (0u32..4_000_000).prop_map(Step::Wait),
        (0u8..8).prop_map(Step::Rotate),
    ]
}

/// The four selectors that a bit mask names.
fn masked(mask: u8) -> Vec<String> {
    (0..4).filter(|bit| mask & (1 << bit) != 0).map(|bit| bit.to_string()).collect()
}

fn masked_set(mask: u8) -> SelectorSet {
    masked(mask).iter().map(|value| Selector::new("t", value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Against a naive model: every subscriber is offered exactly the entries whose selectors it has; what it is
    /// served is always under such an entry's present SPIFFE ID; the counters agree with a recount; and once all
    /// requests are answered nobody who is entitled goes without.
    #[test]
    fn agrees_with_a_naive_model(max in 0usize..6, steps in prop::collection::vec(step(), 0..120)) {
        let mut cache = cache(max);
        let mut model: HashMap<String, Entry> = HashMap::new();
        let mut subscriptions: Vec<(u8, Subscription)> = Vec::new();
        let mut jobs: Vec<SignJob> = Vec::new();
        let mut now: Millis = 0;
        for step in steps {
            match step {
                Step::Set(id, path, mask, dns) => {
                    let values = masked(mask);
                    let values: Vec<&str> = values.iter().map(String::as_str).collect();
                    let mut new = entry(&id.to_string(), &format!("p{path}"), &values);
                    new.dns_names = vec!["d".repeat(usize::from(dns) + 1)];
                    cache.apply(&set(vec![new.clone()]), now);
                    model.insert(id.to_string(), new);
                }
                Step::Gone(id) => {
                    cache.apply(&gone(&[&id.to_string()]), now);
                    model.remove(&id.to_string());
                }
                Step::Subscribe(mask) => subscriptions.push((mask, cache.subscribe(&masked_set(mask), now))),
                Step::Unsubscribe(index) => {
                    if !subscriptions.is_empty() {
                        let (_, left) = subscriptions.swap_remove(usize::from(index) % subscriptions.len());
                        cache.unsubscribe(left.group, now);
                    }
                }
                Step::Take(count) => jobs.extend(cache.take_jobs(usize::from(count), Priority::Prefetch, now)),
                Step::Issue => if let Some(job) = jobs.pop() { { cache.issued(&job, svid(now), now); } },
                Step::Fail => if let Some(job) = jobs.pop() { cache.failed(&job, "no", now) },
                Step::Wait(span) => now += Millis::from(span),
                Step::Rotate(id) => {
                    let entry = Arc::new(entry(&id.to_string(), "x", &["a"]));
                    cache.apply(&Changes { rotated: vec![entry], ..Changes::default() }, now);
                }
            }
            check(&cache, &model, &subscriptions);
        }
        for job in std::mem::take(&mut jobs) {
            cache.issued(&job, svid(now), now);
        }
        for _ in 0..8 {
            now += 240_000 * 2;
            sign_all(&mut cache, now);
        }
        check(&cache, &model, &subscriptions);
        for (_, subscription) in &subscriptions {
            let update = subscription.updates.borrow();
            prop_assert_eq!(update.content.identities.len(), update.matched.len());
            prop_assert!(!update.pending);
        }
        let wanted = cache.records.values().filter(|record| record.subscribers > 0).count();
        prop_assert!(cache.signed <= max.max(wanted));
    }
}

fn check(cache: &Cache, model: &HashMap<String, Entry>, subscriptions: &[(u8, Subscription)]) {
    for (mask, subscription) in subscriptions {
        let workload = masked_set(*mask);
        let mut expected: Vec<String> = model
            .values()
            .filter(|entry| entry.matches(&workload))
            .map(|entry| entry.id.to_string())
            .collect();
        expected.sort();
        let update = subscription.updates.borrow();
        let matched: Vec<String> = update.matched.iter().map(|entry| entry.id.to_string()).collect();
        assert_eq!(matched, expected);
        for identity in &update.content.identities {
            assert_eq!(*identity.entry, model[&*identity.entry.id]);
        }
    }
    let signed = cache.records.values().filter(|record| record.svid.is_some()).count();
    let flying = cache.records.values().filter(|record| record.in_flight && record.svid.is_none()).count();
    assert_eq!((cache.signed, cache.in_flight_unsigned), (signed, flying));
    let idle =
        cache.records.values().filter(|record| record.svid.is_some() && record.subscribers == 0).count();
    assert_eq!(cache.idle.len(), idle);
    let bytes: usize =
        cache.records.values().filter_map(|record| record.svid.as_ref()).map(|svid| svid.size()).sum();
    assert_eq!(cache.bytes, bytes);
}

#[test]
fn a_closed_cache_ends_its_subscriptions_old_and_new() {
    let mut cache = cache(10);
    cache.apply(&set(vec![entry("1", "one", &["a"])]), 0);
    let open = cache.subscribe(&selectors(&["a"]), 0);
    assert!(open.updates.has_changed().is_ok());
    cache.close();
    assert!(open.updates.has_changed().is_err());
    for late in ["a", "b"] {
        let late = cache.subscribe(&selectors(&[late]), 0);
        assert!(late.updates.has_changed().is_err());
    }
    // What it matched is told all the same.
    assert_eq!(cache.subscribe(&selectors(&["a"]), 0).updates.borrow().matched.len(), 1);
}

#[test]
fn a_job_says_what_it_replaces_and_why() {
    let mut cache = cache(10);
    cache.apply(&set(vec![entry("1", "one", &["a"])]), 0);
    let first = take(&mut cache, 0);
    assert_eq!((first[0].replaces, first[0].expiring), (None, false));
    assert!(cache.issued(&first[0], svid(0), 0));
    assert!(!cache.issued(&first[0], svid(0), 0), "answered already");
    let changed = Entry { dns_names: vec!["one.example".into()], ..entry("1", "one", &["a"]) };
    cache.apply(&set(vec![changed]), 1000);
    let outdated = take(&mut cache, 1000);
    assert_eq!((outdated[0].replaces, outdated[0].expiring), (Some(3600), false));
    cache.issued(&outdated[0], svid(1000), 1000);
    let due = take(&mut cache, 3_000_000);
    assert_eq!((due[0].replaces, due[0].expiring), (Some(3601), true));
}

/// A CA certificate that only its key id matters of.
fn authority(tainted: bool, key: &steeple_spiffe::PrivateKey) -> steeple_spiffe::bundle::X509Authority {
    use steeple_spiffe::x509::{self, CaTemplate, DistinguishedName, SerialNumber};
    let template = CaTemplate {
        trust_domain: TrustDomain::new("example.org").unwrap(),
        public_key: key.public_key(),
        subject: DistinguishedName::default_ca(),
        not_before: 0,
        not_after: 1 << 33,
        serial: SerialNumber::random().unwrap(),
    };
    let algorithm = key.key_type().x509_signature_algorithm();
    let tbs = x509::ca_tbs_self_signed(&template, algorithm).unwrap();
    let der = x509::assemble(&tbs, algorithm, &key.sign(algorithm, &tbs).unwrap());
    let certificate = steeple_spiffe::Certificate::from_der(&der).unwrap();
    steeple_spiffe::bundle::X509Authority { certificate, tainted }
}

fn own_bundle(authorities: Vec<steeple_spiffe::bundle::X509Authority>) -> Changes {
    let mut bundle = Bundle::new(TrustDomain::new("example.org").unwrap());
    bundle.x509_authorities = authorities;
    Changes { bundles: vec![Arc::new(bundle)], ..Changes::default() }
}

#[test]
fn svids_of_a_tainted_authority_are_replaced_a_batch_at_a_time() {
    let keys: Vec<_> = (0..2)
        .map(|_| steeple_spiffe::PrivateKey::generate(steeple_spiffe::KeyType::EcP256).unwrap())
        .collect();
    let id = |n: usize| -> Box<[u8]> { keys[n].public_key().subject_key_id().to_vec().into() };
    let mut cache = cache(1000);
    cache.apply(&own_bundle(vec![authority(false, &keys[0]), authority(false, &keys[1])]), 0);
    cache.apply(&set((0..250).map(|n| entry(&format!("e{n}"), "w", &["unix:uid:1"])).collect()), 0);
    for job in take(&mut cache, 0) {
        // Every tenth is of the other authority.
        let by = usize::from(job.entry.id.ends_with('0'));
        cache.issued(&job, Svid { authority_key_id: id(by), ..svid(0) }, 0);
    }
    assert!(take(&mut cache, 1000).is_empty());
    let tainted = |now: Millis, cache: &mut Cache| {
        cache.apply(&own_bundle(vec![authority(true, &keys[0]), authority(false, &keys[1])]), now);
    };
    tainted(1000, &mut cache);
    assert_eq!((cache.take_distrusted(), cache.take_distrusted()), (225, 0));
    let mut replaced = Vec::new();
    for (now, count) in [(1000, 100), (5999, 0), (6000, 100), (11_000, 25), (60_000, 0)] {
        let jobs = take(&mut cache, now);
        assert_eq!(jobs.len(), count, "at {now}");
        for job in &jobs {
            cache.issued(job, Svid { authority_key_id: id(1), ..svid(now) }, now);
        }
        replaced.extend(jobs.into_iter().map(|job| job.entry.id.clone()));
        // The same bundle again starts nothing over.
        tainted(now, &mut cache);
    }
    assert!(replaced.iter().all(|id| !id.ends_with('0')));
}

#[test]
fn a_server_that_stays_under_a_tainted_authority_is_asked_ever_more_rarely() {
    let key = steeple_spiffe::PrivateKey::generate(steeple_spiffe::KeyType::EcP256).unwrap();
    let id: Box<[u8]> = key.public_key().subject_key_id().to_vec().into();
    let mut cache = cache(1000);
    cache.apply(&own_bundle(vec![authority(false, &key)]), 0);
    cache.apply(&set(vec![entry("one", "w", &["unix:uid:1"])]), 0);
    let mut asked = Vec::new();
    for now in (0..1_000_000).step_by(1000) {
        if now == 10_000 {
            cache.apply(&own_bundle(vec![authority(true, &key)]), now);
        }
        for job in take(&mut cache, now) {
            cache.issued(&job, Svid { authority_key_id: id.clone(), ..svid(now) }, now);
            asked.push(now / 1000);
        }
    }
    assert_eq!(asked, [0, 10, 15, 25, 45, 85, 165, 325, 625, 925]);
}

const DAYS: Millis = 72 * 3600 * 1000;

#[test]
fn a_clock_set_back_by_days_replaces_svids_of_the_future_and_ends_pauses() {
    let mut cache = cache(10);
    let now = 10 * DAYS;
    let _workload = cache.subscribe(&selectors(&["a"]), now);
    cache.apply(&set(vec![entry("1", "one", &["a"]), entry("2", "two", &["a"])]), now);
    let jobs = take(&mut cache, now);
    cache.issued(&jobs[0], svid(now), now);
    cache.failed(&jobs[1], "away", now);
    let back = now - DAYS;
    assert!(take(&mut cache, back).is_empty());
    cache.clock_turned(back);
    assert_eq!(take(&mut cache, back).len(), 2);
    // The server's clock was not turned: what it issues is of the future again, and falls due in time all the same.
    for job in &jobs {
        cache.clock_turned(back);
        let again = take(&mut cache, back);
        assert!(again.is_empty(), "{job:?} is under way");
    }
}

#[test]
fn an_svid_of_a_server_far_ahead_falls_due_by_its_life_and_one_of_a_server_far_behind_does_not_spin() {
    for (skew, latest) in [(DAYS, 3_600_000), (-DAYS, 300_000)] {
        let mut cache = cache(10);
        let _workload = cache.subscribe(&selectors(&["a"]), 0);
        let mut now = 10 * DAYS;
        cache.apply(&set(vec![entry("1", "one", &["a"])]), now);
        for _ in 0..10 {
            let jobs = take(&mut cache, now);
            cache.issued(&jobs[0], svid(now + skew), now);
            let next = cache.next_wake(Priority::Prefetch).unwrap();
            assert!((now + 5_000..=now + latest).contains(&next), "{skew}: in {} ms", next - now);
            now = next;
        }
        cache.clock_turned(now);
    }
}
