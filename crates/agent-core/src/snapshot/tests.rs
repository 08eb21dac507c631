use steeple_spiffe::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use super::*;
use crate::entry::tests::entry;
use crate::entry::{Selector, SelectorSet};
use crate::jwt_cache::{Found, JwtCache};
use crate::rotation::RotationPolicy;
use crate::view::Delta;
use crate::{Cache, CacheConfig, View};

const HOUR: i64 = 3600;

fn domain() -> TrustDomain {
    TrustDomain::new("example.org").unwrap()
}

fn cache() -> Cache {
    Cache::new(CacheConfig {
        trust_domain: domain(),
        max_size: 100,
        max_bytes: usize::MAX,
        rotation: RotationPolicy::default(),
        seed: 7,
    })
}

fn svid(byte: u8, not_after: i64) -> Svid {
    Svid {
        chain: bytes::Bytes::from(vec![byte]),
        key: Zeroizing::new(vec![byte]),
        not_before: 0,
        not_after,
        authority_key_id: Box::from(&b"ca"[..]),
    }
}

fn key(path: &str) -> JwtKey {
    JwtKey::new(SpiffeId::parse(&format!("spiffe://example.org/{path}")).unwrap(), vec!["aud".into()])
}

fn token(expires_at: Millis) -> Token {
    Token { token: "t".into(), key_id: "k".into(), issued_at: 0, expires_at }
}

fn snapshot() -> Snapshot {
    let mut snapshot = Snapshot { revision: 9, log_id: "log".into(), ..Snapshot::default() };
    for id in ["1", "2", "ended"] {
        snapshot.entries.insert(id.into(), entry(id, id, &["a"]));
    }
    snapshot.bundles.insert(domain(), Bundle::new(domain()));
    let mut keep = |id: &str, of: &str, not_after, stale| {
        let spiffe_id = SpiffeId::parse(&format!("spiffe://example.org/{of}")).unwrap();
        let kept = KeptSvid { spiffe_id, svid: svid(1, not_after), due: Millis::MAX, stale };
        snapshot.svids.insert(id.into(), kept);
    };
    keep("1", "1", HOUR, false);
    keep("2", "2", HOUR, true);
    keep("ended", "ended", 10, false);
    keep("unknown", "unknown", HOUR, false);
    keep("other", "before", HOUR, false);
    snapshot.entries.insert("other".into(), entry("other", "after", &["b"]));
    snapshot.tokens.insert(key("1"), token(HOUR * 1000));
    snapshot.tokens.insert(key("ended"), token(10_000));
    snapshot
}

fn served(cache: &mut Cache, now: Millis) -> Vec<String> {
    let workload: SelectorSet = [Selector::new("t", "a")].into_iter().collect();
    let subscription = cache.subscribe(&workload, now);
    let update = subscription.updates.borrow();
    update.content.identities.iter().map(|identity| identity.entry.id.to_string()).collect()
}

#[test]
fn what_is_restored_is_served_without_a_signature_and_nothing_that_has_ended() {
    let (mut view, mut cache, mut jwt) = (View::default(), cache(), JwtCache::new(9));
    let mut kept = snapshot();
    let now = 20_000;
    let changes = view.restore(&mut kept);
    cache.apply(&changes, now);
    cache.restore(kept.svids, now);
    jwt.restore(kept.tokens, now);
    assert_eq!(cache.svid_count(), 2);
    assert_eq!(served(&mut cache, now), ["1", "2"]);
    assert_eq!(jwt.len(), 1);
    assert!(matches!(jwt.find(&key("1"), now), Found::Fresh(_)));
    let jobs: Vec<String> =
        std::iter::from_fn(|| cache.take_jobs(1, crate::cache::Priority::Prefetch, now).pop())
            .map(|job| job.entry.id.to_string())
            .collect();
    assert_eq!(
        jobs,
        ["ended", "2", "other"],
        "what is missing, then what was to be replaced, and nothing else"
    );
}

#[test]
fn an_older_view_of_the_same_log_is_refused_after_a_restart_and_another_agent_starts_over() {
    let mut view = View::default();
    view.restore(&mut snapshot());
    let older = Delta { revision: 8, log_id: "log".into(), ..Delta::default() };
    assert!(view.apply(older.clone()).is_err());
    view.start_over();
    assert_eq!((view.revision(), view.log_id(), view.entry_count()), (0, "", 4));
    let changes = view.apply(Delta { snapshot: true, ..older }).unwrap();
    assert_eq!(changes.removed.len(), 4);
}

#[test]
fn ended_svids_are_taken_from_open_streams() {
    let (mut view, mut cache) = (View::default(), cache());
    let mut kept = snapshot();
    cache.apply(&view.restore(&mut kept), 0);
    cache.restore(kept.svids, 0);
    let workload: SelectorSet = [Selector::new("t", "a")].into_iter().collect();
    let stream = cache.subscribe(&workload, 0);
    let count = || stream.updates.borrow().content.identities.len();
    assert_eq!(count(), 3);
    assert_eq!(cache.expire(9_999), Some(10_000));
    assert_eq!(count(), 3);
    assert_eq!(cache.expire(10_000), Some(HOUR * 1000));
    assert_eq!(count(), 2);
    assert_eq!(cache.expire(HOUR * 1000), None);
    assert_eq!((count(), cache.svid_count()), (0, 0));
}

#[test]
fn what_has_ended_is_left_out_with_what_hangs_on_it() {
    let mut kept = snapshot();
    kept.entries.get_mut("1").unwrap().expires_at = 15;
    kept.drop_ended(20_000);
    let mut ids: Vec<&str> = kept.svids.keys().map(|id| &**id).collect();
    ids.sort_unstable();
    assert_eq!((ids, kept.entries.len(), kept.tokens.len()), (vec!["2"], 3, 1));
}

#[test]
fn the_tracker_tells_each_change_once() {
    let (mut view, mut cache, mut jwt) = (View::default(), cache(), JwtCache::new(9));
    let mut tracker = Tracker::default();
    let mut look = |view: &View, cache: &Cache, jwt: &JwtCache| {
        let mut increment = Increment::default();
        tracker.view(view, &mut increment);
        tracker.cache(cache, &mut increment);
        tracker.jwt(jwt, &mut increment);
        increment
    };
    let mut kept = snapshot();
    cache.apply(&view.restore(&mut kept), 0);
    cache.restore(kept.svids, 0);
    jwt.restore(kept.tokens, 0);
    let all = look(&view, &cache, &jwt);
    assert_eq!(all.position, Some((9, "log".into())));
    assert_eq!((all.entries.len(), all.bundles.len(), all.svids.len(), all.tokens.len()), (4, 1, 3, 2));
    assert!(look(&view, &cache, &jwt).is_empty());

    let delta = Delta {
        revision: 10,
        log_id: "log".into(),
        removed: vec!["1".into()],
        entries: vec![entry("2", "2", &["a", "b"])],
        ..Delta::default()
    };
    cache.apply(&view.apply(delta).unwrap(), 0);
    jwt.insert(key("1"), Arc::new(token(5_000)));
    let changed = look(&view, &cache, &jwt);
    assert_eq!(changed.position, Some((10, "log".into())));
    assert_eq!((changed.entries.len(), changed.tokens.len()), (1, 1));
    assert_eq!((&*changed.removed_entries, &*changed.removed_svids), (&["1".into()][..], &["1".into()][..]));
    assert!(changed.bundles.is_empty() && changed.svids.is_empty() && changed.removed_tokens.is_empty());

    jwt.drop_signed_by(&["k"]);
    cache.expire(HOUR * 1000);
    let changed = look(&view, &cache, &jwt);
    assert_eq!((changed.removed_svids.len(), changed.removed_tokens.len()), (2, 2));
    assert!(changed.position.is_none() && changed.entries.is_empty());
}
