//! What operators may ask for, each refusal, and several servers on one database.

use super::*;
use crate::ca::local::{AuthorityState, LocalError};

async fn rejected<T: std::fmt::Debug>(call: impl Future<Output = Result<T, LocalError>>) -> String {
    call.await.unwrap_err().to_string()
}

async fn rotated(ca: &CaManager, kind: Kind) -> (AuthorityState, AuthorityState) {
    let old = ca.authorities(kind).unwrap().active;
    let prepared = ca.prepare_authority(kind, NOW).await.unwrap();
    (old, ca.activate_authority(kind, &prepared.id, NOW).await.unwrap())
}

#[tokio::test]
async fn the_whole_way_of_each_kind() {
    let world = World::new();
    let config = CaConfig { wit: Some(WitConfig::new(KeyType::EcP256)), ..config() };
    let ca = world.load(&config, NOW).await.unwrap();
    for kind in Kind::ALL {
        let first = ca.authorities(kind).unwrap();
        assert!(first.prepared.is_none() && first.old.is_none(), "{first:?}");
        let prepared = ca.prepare_authority(kind, NOW + 1).await.unwrap();
        assert_eq!(prepared.expires_at, NOW + 1 + 24 * 3600);
        assert_eq!(ca.authorities(kind).unwrap().prepared.as_ref(), Some(&prepared));
        let again = ca.prepare_authority(kind, NOW + 2).await.unwrap();
        assert_ne!(again.id, prepared.id, "the one that waits is replaced");
        let id = &again.id;
        let name = crate::ca::local::Name(kind);

        assert_eq!(rejected(ca.activate_authority(kind, "", NOW)).await, "no authority ID provided");
        assert_eq!(rejected(ca.activate_authority(kind, "x", NOW)).await, "unexpected authority ID");
        assert_eq!(rejected(ca.activate_authority(kind, &prepared.id, NOW)).await, "unexpected authority ID");
        assert_eq!(rejected(ca.taint_authority(kind, "", NOW)).await, "no authority ID provided");
        assert_eq!(rejected(ca.taint_authority(kind, "x", NOW)).await, "unexpected authority ID");
        assert_eq!(
            rejected(ca.taint_authority(kind, id, NOW)).await,
            "only Old local authorities can be tainted: unsupported local authority status: PREPARED"
        );
        assert_eq!(
            rejected(ca.taint_authority(kind, &first.active.id, NOW)).await,
            "unable to taint current local authority"
        );
        let refused = |reason: &str| format!("invalid authority ID: {reason}");
        assert_eq!(rejected(ca.revoke_authority(kind, "", NOW)).await, refused("no authority ID provided"));
        assert_eq!(
            rejected(ca.revoke_authority(kind, &first.active.id, NOW)).await,
            refused("unable to use current authority")
        );
        let (of_prepared, of_unknown) = match kind {
            Kind::X509 => {
                ("only Old local authority can be revoked", "only Old local authority can be revoked")
            }
            Kind::Jwt => {
                ("unable to use a prepared key", "no JWT authority found with provided authority ID")
            }
            Kind::Wit => {
                ("unable to use a prepared key", "no WIT authority found with provided authority ID")
            }
        };
        assert_eq!(rejected(ca.revoke_authority(kind, id, NOW)).await, refused(of_prepared));
        assert_eq!(rejected(ca.revoke_authority(kind, "x", NOW)).await, refused(of_unknown));

        let activated = ca.activate_authority(kind, id, NOW + 3).await.unwrap();
        assert_eq!(activated, again);
        let states = ca.authorities(kind).unwrap();
        assert_eq!((&states.active, states.old.as_ref()), (&again, Some(&first.active)));
        assert!(ca.signs_with(kind, id));
        let old = &first.active.id;
        assert_eq!(
            rejected(ca.activate_authority(kind, old, NOW)).await,
            "only Prepared authorities can be activated: unsupported local authority status: OLD"
        );
        let root = if kind == Kind::X509 { "root CA" } else { "key" };
        assert_eq!(
            rejected(ca.revoke_authority(kind, old, NOW)).await,
            format!("failed to revoke {name} authority: it is not possible to revoke an untainted {root}")
        );
        let sequence = world.bundle().sequence_number;
        assert_eq!(ca.taint_authority(kind, old, NOW).await.unwrap().id, *old);
        assert_eq!(world.bundle().sequence_number, sequence + 1);
        assert_eq!(
            rejected(ca.taint_authority(kind, old, NOW)).await,
            format!("failed to taint {name} authority: {root} is already tainted")
        );
        // A restart knows the old one.
        let restarted = world.load(&config, NOW + 4).await.unwrap();
        assert_eq!(restarted.authorities(kind).unwrap(), states);
        let revoked = ca.revoke_authority(kind, old, NOW).await.unwrap();
        assert_eq!((revoked.id, revoked.expires_at), (old.clone(), 0));
        assert_eq!(world.bundle().sequence_number, sequence + 2);
        assert!(ca.revoke_authority(kind, old, NOW).await.is_err(), "it is gone");
        assert_eq!(ca.authorities(kind).unwrap().old, states.old, "SPIRE goes on to show it");
    }
    assert_eq!(world.bundle().x509_authorities.len(), 2, "prepared twice, one revoked");
}

#[tokio::test]
async fn what_is_off_is_refused() {
    let world = World::new();
    let ca = world.load(&CaConfig { disable_jwt_svids: true, ..config() }, NOW).await.unwrap();
    assert_eq!(rejected(ca.prepare_authority(Kind::Jwt, NOW)).await, "JWT functionality is disabled");
    assert_eq!(rejected(ca.prepare_authority(Kind::Wit, NOW)).await, "WIT functionality is disabled");
    assert_eq!(ca.authorities(Kind::Jwt).unwrap_err().to_string(), "JWT functionality is disabled");
    assert_eq!(rejected(ca.taint_upstream("aa", NOW)).await, "upstream authority is not configured");
    assert_eq!(rejected(ca.revoke_upstream("aa", NOW)).await, "upstream authority is not configured");
}

#[tokio::test]
async fn a_store_that_fails_is_told_and_nothing_has_changed() {
    let world = World::new();
    let ca = world.load(&config(), NOW).await.unwrap();
    let before = ca.authorities(Kind::X509).unwrap();
    world.store.faults.crash_after(0, false);
    let told = rejected(ca.prepare_authority(Kind::X509, NOW)).await;
    assert!(told.starts_with("failed to prepare X.509 authority: "), "{told}");
    world.store.faults.work_again();
    assert_eq!(ca.authorities(Kind::X509).unwrap(), before);
    ca.rotate(NOW).await.unwrap();
    assert_eq!(ca.authorities(Kind::X509).unwrap(), before, "the order is not carried out later");
}

#[tokio::test]
async fn the_servers_own_svid_moves_off_a_tainted_authority() {
    let world = World::new();
    let ca = world.load(&config(), NOW).await.unwrap();
    let signed = ca.sign_server_x509(pooled_key(2).public_key(), NOW).await.unwrap();
    let chain = [Certificate::from_der(&signed.chain[0]).unwrap()];
    let (old, _) = rotated(&ca, Kind::X509).await;
    assert!(!ca.is_to_be_replaced(&chain));
    ca.taint_authority(Kind::X509, &old.id, NOW).await.unwrap();
    assert!(ca.is_to_be_replaced(&chain));
    let signed = ca.sign_server_x509(pooled_key(2).public_key(), NOW).await.unwrap();
    assert!(!ca.is_to_be_replaced(&[Certificate::from_der(&signed.chain[0]).unwrap()]));
}

#[tokio::test]
async fn two_servers_have_slots_of_their_own_and_one_bundle() {
    let world = World::new();
    let other = world.another();
    let (one, two) = (world.load(&config(), NOW).await.unwrap(), other.load(&config(), NOW).await.unwrap());
    let untouched = two.authorities(Kind::X509).unwrap();
    // Both at once.
    let (of_one, of_two) = tokio::join!(rotated(&one, Kind::Jwt), rotated(&two, Kind::Jwt));
    assert_eq!(world.bundle().jwt_authorities.len(), 4);
    let (old, _) = rotated(&one, Kind::X509).await;
    one.taint_authority(Kind::X509, &old.id, NOW).await.unwrap();
    two.rotate(NOW + 10).await.unwrap();
    assert_eq!(two.authorities(Kind::X509).unwrap(), untouched, "its own authority is not tainted");
    let tainted = two.watch_bundle().borrow().x509_authorities.iter().filter(|known| known.tainted).count();
    assert_eq!(tainted, 1, "and it has learned of the other's");
    // A key of the other server can be revoked here once it is tainted there.
    two.taint_authority(Kind::Jwt, &of_two.0.id, NOW).await.unwrap();
    one.rotate(NOW + 10).await.unwrap();
    one.revoke_authority(Kind::Jwt, &of_two.0.id, NOW).await.unwrap();
    assert!(world.bundle().find_jwt_authority(&of_two.0.id).is_none());
    assert!(world.bundle().find_jwt_authority(&of_one.0.id).is_some());
    assert_eq!(world.store.journals().len(), 2);
}

/// Whoever taints what another server signs with makes it move on by itself.
#[tokio::test]
async fn an_authority_that_another_server_taints_is_replaced() {
    let world = World::new();
    let ca = world.load(&CaConfig { wit: Some(WitConfig::new(KeyType::EcP256)), ..config() }, NOW).await;
    let ca = ca.unwrap();
    let before = Kind::ALL.map(|kind| ca.authorities(kind).unwrap().active.id);
    let mut bundle = world.bundle();
    bundle.x509_authorities[0].tainted = true;
    bundle.jwt_authorities[0].tainted = true;
    bundle.wit_authorities[0].tainted = true;
    world.store.commit_bundle(bundle).unwrap();
    ca.rotate(NOW + 10).await.unwrap();
    let after = Kind::ALL.map(|kind| ca.authorities(kind).unwrap());
    for (before, after) in before.iter().zip(&after) {
        assert_ne!(after.active.id, *before);
        assert_eq!(after.old.as_ref().unwrap().id, *before);
    }
    ca.rotate(NOW + 20).await.unwrap();
    assert_eq!(Kind::ALL.map(|kind| ca.authorities(kind).unwrap()), after, "once is enough");
    assert_eq!(world.bundle().x509_authorities.len(), 2);
}

#[tokio::test]
async fn clocks_that_step_both_ways_always_leave_an_svid_that_verifies() {
    let world = World::new();
    let ca = world.load(&CaConfig { ca_ttl: 3600, ..config() }, NOW).await.unwrap();
    for step in [0, 10, 4000, 100_000, -90_000, -100_000, 50, 1_000_000, -3600, 0] {
        let now = NOW + step;
        ca.rotate(now).await.unwrap();
        let svid = ca.sign_workload_x509(workload(60), now).await.unwrap();
        let leaf = Certificate::from_der(&svid.chain[0]).unwrap();
        x509::verify_svid(&[leaf], &world.bundle(), now).unwrap_or_else(|e| panic!("at {step}: {e}"));
        let token = ca.sign_jwt(token(60), now).await.unwrap().token;
        jwt::validate(&token, &world.bundle(), &["audience".to_owned()], now).unwrap();
    }
}
