use std::sync::Arc;

use steeple_spiffe::{SpiffeId, TrustDomain};
use zeroize::Zeroizing;

use super::*;
use crate::cache::{Priority, Svid};
use crate::entry::tests::entry;
use crate::jwt_cache::{Found, JwtKey, Token};
use crate::rotation::RotationPolicy;
use crate::{CacheConfig, Changes, Entry, Selector, SelectorSet};

fn svid() -> Svid {
    Svid {
        chain: bytes::Bytes::from(vec![0; 700]),
        key: Zeroizing::new(vec![1; 138]),
        not_before: 0,
        not_after: 3600,
        authority_key_id: Box::from([1; 20]),
    }
}

fn key(n: usize) -> JwtKey {
    JwtKey::new(SpiffeId::parse("spiffe://example.org/jwt").unwrap(), vec![n.to_string()])
}

fn token() -> Arc<Token> {
    let token = "t".repeat(600);
    Arc::new(Token { token, key_id: "k".repeat(32), issued_at: 0, expires_at: 1 << 40 })
}

fn caches(max_bytes: usize) -> (Cache, JwtCache) {
    let cache = Cache::new(CacheConfig {
        trust_domain: TrustDomain::new("example.org").unwrap(),
        max_size: 1000,
        max_bytes,
        rotation: RotationPolicy::default(),
        seed: 3,
    });
    let jwt = JwtCache::new(1000).counting(cache.uses());
    (cache, jwt)
}

fn workload(n: usize) -> SelectorSet {
    [Selector::new("t", &n.to_string())].into_iter().collect()
}

fn add(cache: &mut Cache, n: usize) {
    let id = n.to_string();
    let entry = Entry { disable_x509_svid_prefetch: true, ..entry(&id, &id, &[&id]) };
    cache.apply(&Changes { entries: vec![Arc::new(entry)], ..Changes::default() }, 0);
}

/// A workload that comes, is served, and leaves.
fn visit(cache: &mut Cache, n: usize) {
    let open = cache.subscribe(&workload(n), 0);
    for job in cache.take_jobs(10, Priority::Waiting, 0) {
        cache.issued(&job, svid(), 0);
    }
    assert!(cache.has_svid(&n.to_string()));
    cache.unsubscribe(open.group, 0);
}

#[test]
fn of_both_kinds_the_least_recently_used_goes_first() {
    let one_token = {
        let (_, mut jwt) = caches(1);
        jwt.insert(key(0), token());
        jwt.bytes()
    };
    let budget = 2 * svid().size() + one_token;
    let (mut cache, mut jwt) = caches(budget);
    for n in 0..3 {
        add(&mut cache, n);
    }
    visit(&mut cache, 0);
    jwt.insert(key(0), token());
    visit(&mut cache, 1);
    assert!(keep(&mut cache, &mut jwt, 0) <= budget);
    assert_eq!((cache.svid_count(), jwt.len()), (2, 1), "all fits");
    jwt.find(&key(0), 0);
    visit(&mut cache, 2);
    assert!(keep(&mut cache, &mut jwt, 0) <= budget);
    assert_eq!((cache.has_svid("0"), cache.has_svid("1"), jwt.len()), (false, true, 1));
    for n in 1..6 {
        jwt.insert(key(n), token());
        assert!(keep(&mut cache, &mut jwt, 0) <= budget);
    }
    assert!(!cache.has_svid("1") && !matches!(jwt.find(&key(5), 0), Found::Nothing));
}

#[test]
fn what_is_in_use_stays_and_the_rest_gives_way() {
    let (mut cache, mut jwt) = caches(1);
    add(&mut cache, 0);
    let open = cache.subscribe(&workload(0), 0);
    for job in cache.take_jobs(10, Priority::Waiting, 0) {
        cache.issued(&job, svid(), 0);
    }
    jwt.insert(key(0), token());
    let held = keep(&mut cache, &mut jwt, 0);
    assert_eq!((held, cache.svid_count(), jwt.len(), jwt.bytes()), (svid().size(), 1, 0, 0));
    cache.unsubscribe(open.group, 0);
    assert_eq!(keep(&mut cache, &mut jwt, 0), 0);
}

/// Bytes counted are bytes held, after any mixture of visits.
#[test]
fn bytes_are_counted_exactly() {
    let mut rng = fastrand::Rng::with_seed(5);
    let (mut cache, mut jwt) = caches(20_000);
    for n in 0..30 {
        add(&mut cache, n);
    }
    for _ in 0..5_000 {
        match rng.u8(..4) {
            0 => visit(&mut cache, rng.usize(..30)),
            1 => jwt.insert(key(rng.usize(..40)), token()),
            2 => drop(jwt.find(&key(rng.usize(..40)), 0)),
            _ => {
                keep(&mut cache, &mut jwt, 0);
            }
        }
        assert_eq!(cache.bytes(), cache.svid_count() * svid().size());
        assert!(jwt.is_empty() == (jwt.bytes() == 0));
    }
    assert!(keep(&mut cache, &mut jwt, 0) <= 20_000);
    assert!(jwt.drop_signed_by(&["k".repeat(32).as_str()]) > 0);
    assert_eq!(jwt.bytes(), 0);
}
