//! A CA under an upstream authority.

use std::time::Duration;

use super::*;
use crate::ca::state::hex;

const DAY: i64 = 24 * 3600;

async fn svid(ca: &CaManager, now: i64) -> Vec<Certificate> {
    let signed = ca.sign_workload_x509(workload(60), now).await.unwrap();
    signed.chain.iter().map(|der| Certificate::from_der(der).unwrap()).collect()
}

fn verifies(world: &World, chain: &[Certificate], now: i64) {
    x509::verify_svid(chain, &world.bundle(), now).unwrap();
}

fn key_id(certificate: &Certificate) -> String {
    hex(&certificate.subject_key_id().unwrap())
}

#[tokio::test]
async fn its_root_is_in_the_bundle_and_its_chain_in_svids() {
    for chained in [false, true] {
        let world = World::new();
        let upstream = Arc::new(FakeUpstream::new(6, NOW));
        if chained {
            upstream.chains(7, NOW);
        }
        let ca = world.load_under(&upstream, &config(), NOW).await.unwrap();
        let roots: Vec<_> =
            world.bundle().x509_authorities.into_iter().map(|root| root.certificate).collect();
        assert_eq!(roots, [upstream.root()], "only the upstream root");
        let chain = svid(&ca, NOW).await;
        assert_eq!(chain.len(), if chained { 3 } else { 2 }, "leaf, our CA, what is between");
        verifies(&world, &chain, NOW);
        assert_eq!(chain[1].uri_sans(), ["spiffe://example.org"]);
        assert!(!chain[1].subject().serial_number.is_empty());
        let state = ca.authorities(Kind::X509).unwrap().active;
        assert_eq!(
            (state.id, state.upstream_id),
            (key_id(&chain[1]), hex(&chain[1].authority_key_id().unwrap()))
        );

        // A downstream server's CA hangs below.
        let params = DownstreamCaParams { public_key: pooled_key(4).public_key(), ttl: 0 };
        let signed = ca.sign_downstream_ca(params, NOW).await.unwrap();
        assert_eq!(signed.chain.len(), chain.len());
        let below = Certificate::from_der(&signed.chain[0]).unwrap();
        let unit = if chained { "DOWNSTREAM-2" } else { "DOWNSTREAM-1" };
        assert_eq!(below.subject().organizational_unit, [unit]);
        below.verify_signature_by(&chain[1].public_key()).unwrap();

        // The journal has the chain: a restart asks for nothing.
        upstream.feels(Mood::Fails);
        let again = world.load_under(&upstream, &config(), NOW + 60).await.unwrap();
        assert_eq!(again.x509_authority_id(), ca.x509_authority_id());
        assert_eq!(svid(&again, NOW + 60).await[1..], chain[1..]);
    }
}

#[tokio::test]
async fn without_the_upstream_a_server_starts_over_and_with_it_a_root_of_its_own_goes_on() {
    let world = World::new();
    let upstream = Arc::new(FakeUpstream::new(6, NOW));
    let under = world.load_under(&upstream, &config(), NOW).await.unwrap();
    let alone = world.load(&config(), NOW).await.unwrap();
    assert_ne!(alone.x509_authority_id(), under.x509_authority_id());
    verifies(&world, &svid(&alone, NOW).await, NOW);
    let again = world.load_under(&upstream, &config(), NOW).await.unwrap();
    assert_eq!(again.x509_authority_id(), alone.x509_authority_id(), "until its time has come");
    let next = again.prepare_authority(Kind::X509, NOW).await.unwrap();
    assert!(!next.upstream_id.is_empty());
}

#[tokio::test]
async fn what_it_sends_is_checked_before_it_is_believed() {
    for (mood, reason) in [
        (Mood::Fails, "unable to sign CSR: it is in a bad mood"),
        (Mood::Nothing, "X509 CA minted by upstream authority is invalid: no certificate was returned"),
        (Mood::Garbage, "the certificate is of another key than was asked for"),
        (
            Mood::OtherTrustDomain,
            "invalid X509 CA: expected URI SAN \"spiffe://example.org\" but got \"spiffe://other.org\"",
        ),
        (Mood::Expired, "invalid X509 CA: already expired as of 2027-01-15T07:59:00Z"),
        (Mood::NotYetValid, "invalid X509 CA: not yet valid until 2027-01-15T08:01:00Z"),
        (Mood::OtherRoots, "X509 CA produced an invalid X509-SVID chain: "),
    ] {
        let world = World::new();
        let upstream = Arc::new(FakeUpstream::new(6, NOW));
        upstream.feels(mood);
        let refused = world.load_under(&upstream, &config(), NOW).await.err().unwrap().to_string();
        assert!(refused.contains(reason), "{mood:?}: {refused}");
        assert!(world.store.bundle(&trust_domain()).is_none(), "nothing is published");

        // One that goes bad later keeps nobody from signing; it gets another chance at each rotation.
        upstream.feels(Mood::Signs);
        let ca = world.load_under(&upstream, &config(), NOW).await.unwrap();
        let signs = ca.x509_authority_id();
        upstream.feels(mood);
        let half = NOW + DAY / 2;
        ca.rotate(half).await.unwrap_err();
        verifies(&world, &svid(&ca, half).await, half);
        assert_eq!(ca.x509_authority_id(), signs);
        assert!(ca.jwt_authority_id().is_some());
        upstream.feels(Mood::Signs);
        ca.rotate(half + 10).await.unwrap();
        assert!(ca.authorities(Kind::X509).unwrap().prepared.is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_answer_is_given_up() {
    let world = World::new();
    let upstream = Arc::new(FakeUpstream::new(6, NOW));
    upstream.feels(Mood::Silent);
    let start = tokio::time::Instant::now();
    let refused = world.load_under(&upstream, &config(), NOW).await.err().unwrap();
    assert!(matches!(refused, CaError::UpstreamSlow(30)), "{refused}");
    assert_eq!(start.elapsed(), Duration::from_secs(30));
}

#[tokio::test]
async fn short_lives_make_early_rotations() {
    let world = World::new();
    let upstream = Arc::new(FakeUpstream::new(6, NOW));
    upstream.caps(600);
    let ca = world.load_under(&upstream, &config(), NOW).await.unwrap();
    let mut seen = std::collections::HashSet::new();
    for now in (NOW..NOW + 3000).step_by(10) {
        ca.rotate(now).await.unwrap();
        seen.insert(ca.x509_authority_id());
        let chain = svid(&ca, now).await;
        verifies(&world, &chain, now);
        assert!(chain[0].not_after() <= chain[1].not_after(), "nothing outlives its CA");
    }
    assert_eq!(seen.len(), 10, "one is prepared at half of the life of the one before");
    assert_eq!(world.bundle().x509_authorities.len(), 1);
}

/// The seconds that SPIRE would give a CA that lives no time at all must not keep the server busy.
#[tokio::test]
async fn a_life_of_one_second_is_no_loop() {
    let world = World::new();
    let upstream = Arc::new(FakeUpstream::new(6, NOW));
    upstream.caps(1);
    let ca = world.load_under(&upstream, &config(), NOW).await.unwrap();
    ca.rotate(NOW + 10).await.unwrap();
    verifies(&world, &svid(&ca, NOW + 10).await, NOW + 10);
    upstream.caps(0);
    ca.rotate(NOW + 20).await.unwrap_err();
}

#[tokio::test]
async fn new_roots_join_the_bundle_and_old_ones_stay() {
    let world = World::new();
    let upstream = Arc::new(FakeUpstream::new(6, NOW));
    let ca = world.load_under(&upstream, &config(), NOW).await.unwrap();
    let before = svid(&ca, NOW).await;
    let added = upstream.adds_root(7, NOW);
    ca.rotate(NOW + 10).await.unwrap();
    assert!(world.bundle().has_x509_authority(&added), "without a rotation");
    let changed = upstream.changes_root(8, NOW);
    ca.rotate(NOW + 20).await.unwrap();
    assert_eq!(world.bundle().x509_authorities.len(), 3);
    verifies(&world, &before, NOW + 20);
    let prepared = ca.prepare_authority(Kind::X509, NOW + 30).await.unwrap();
    assert_eq!(prepared.upstream_id, key_id(&changed));
    ca.activate_authority(Kind::X509, &prepared.id, NOW + 30).await.unwrap();
    verifies(&world, &svid(&ca, NOW + 30).await, NOW + 30);
    verifies(&world, &before, NOW + 30);
}

#[tokio::test]
async fn a_tainted_upstream_is_left_by_every_server() {
    let world = World::new();
    let other = world.another();
    let upstream = Arc::new(FakeUpstream::new(6, NOW));
    let ca = world.load_under(&upstream, &config(), NOW).await.unwrap();
    let elsewhere = other.load_under(&upstream, &config(), NOW).await.unwrap();
    let old_root = key_id(&upstream.root());
    let refused = |call: Result<_, crate::ca::local::LocalError>| call.unwrap_err().to_string();

    // Local authorities are not tainted under an upstream authority.
    let own = ca.x509_authority_id().unwrap();
    assert_eq!(
        refused(ca.taint_authority(Kind::X509, &own, NOW).await.map(|_| String::new())),
        "local authority can't be tainted if there is an upstream authority"
    );
    assert_eq!(
        refused(ca.revoke_authority(Kind::X509, &own, NOW).await.map(|_| String::new())),
        "local authority can't be revoked if there is an upstream authority"
    );
    let invalid = |reason: &str| format!("provided subject key id is not valid: {reason}");
    assert_eq!(refused(ca.taint_upstream("", NOW).await), invalid("no subject key ID provided"));
    assert_eq!(
        refused(ca.taint_upstream(&old_root, NOW).await),
        invalid("unable to use upstream authority singing current authority")
    );
    assert_eq!(
        refused(ca.taint_upstream("aa", NOW).await),
        invalid("upstream authority didn't sign the old local authority")
    );
    assert_eq!(
        refused(ca.revoke_upstream("aa", NOW).await),
        "invalid subject key ID: upstream authority didn't sign the old local authority"
    );

    let new_root = key_id(&upstream.changes_root(8, NOW));
    let prepared = ca.prepare_authority(Kind::X509, NOW).await.unwrap();
    assert_eq!(
        refused(ca.taint_upstream(&new_root, NOW).await),
        invalid("only upstream authorities signing an old authority can be used")
    );
    ca.activate_authority(Kind::X509, &prepared.id, NOW).await.unwrap();
    assert_eq!(
        refused(ca.revoke_upstream(&old_root, NOW).await),
        "failed to revoke X.509 upstream authority: it is not possible to revoke an untainted root CA"
    );
    let before = elsewhere.x509_authority_id();
    assert_eq!(ca.taint_upstream(&old_root.to_uppercase(), NOW).await.unwrap(), old_root);
    assert_eq!(
        refused(ca.taint_upstream(&old_root, NOW).await),
        "failed to taint upstream authority: root CA is already tainted"
    );
    // The other server finds out and moves by itself, and so do the servers' own SVIDs.
    let chain = svid(&elsewhere, NOW).await;
    elsewhere.rotate(NOW + 10).await.unwrap();
    assert_ne!(elsewhere.x509_authority_id(), before);
    assert!(elsewhere.is_to_be_replaced(&chain));
    let moved = svid(&elsewhere, NOW + 10).await;
    assert!(!elsewhere.is_to_be_replaced(&moved));
    ca.revoke_upstream(&old_root, NOW).await.unwrap();
    verifies(&world, &moved, NOW + 10);
    assert_eq!(world.bundle().x509_authorities.len(), 1);
    // The look at the roots does not bring it back.
    elsewhere.rotate(NOW + 20).await.unwrap();
    assert_eq!(world.bundle().x509_authorities.len(), 1);
}

/// A server whose upstream still signs under a tainted root keeps what it has instead of going round in circles.
#[tokio::test]
async fn an_upstream_that_stays_tainted_does_not_end_service() {
    let world = World::new();
    let upstream = Arc::new(FakeUpstream::new(6, NOW));
    let ca = world.load_under(&upstream, &config(), NOW).await.unwrap();
    let mut bundle = world.bundle();
    bundle.x509_authorities[0].tainted = true;
    world.store.commit_bundle(bundle).unwrap();
    let before = ca.x509_authority_id();
    for tick in 1..4 {
        let refused = ca.rotate(NOW + 10 * tick).await.unwrap_err();
        assert!(matches!(refused, CaError::TaintedUpstream(_)), "{refused}");
    }
    assert_eq!(ca.x509_authority_id(), before);
    verifies(&world, &svid(&ca, NOW + 40).await, NOW + 40);
    // At its end, one under a tainted root is better than none.
    let late = NOW + DAY - 10;
    ca.rotate(late).await.unwrap();
    assert_ne!(ca.x509_authority_id(), before);
    upstream.changes_root(8, NOW);
    ca.rotate(late + 10).await.unwrap();
    let state = ca.authorities(Kind::X509).unwrap();
    assert_eq!(state.active.upstream_id, key_id(&upstream.root()));
}

#[tokio::test]
async fn two_servers_rotate_at_once_under_one_upstream() {
    let world = World::new();
    let other = world.another();
    let upstream = Arc::new(FakeUpstream::new(6, NOW));
    let config = config();
    let (one, two) =
        tokio::join!(world.load_under(&upstream, &config, NOW), other.load_under(&upstream, &config, NOW));
    let (one, two) = (one.unwrap(), two.unwrap());
    for now in (NOW..NOW + 3 * DAY).step_by(3600) {
        let (first, second) = tokio::join!(one.rotate(now), two.rotate(now));
        first.unwrap();
        second.unwrap();
        for ca in [&one, &two] {
            verifies(&world, &svid(ca, now).await, now);
        }
        assert_ne!(one.x509_authority_id(), two.x509_authority_id());
    }
    assert_eq!(world.bundle().x509_authorities.len(), 1);
    assert_eq!(world.store.journals().len(), 2);
}
