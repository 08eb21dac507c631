//! The engine may stop after any effect, whether it took place or not. Whatever happens: no authority that signed
//! an SVID which is still valid is missing from the bundle, none is lost, none signs before it is published, there
//! is always one to sign with, and the journal does not grow.

use std::collections::HashMap;

use super::*;

/// A small generator: the seed names the run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Until when SVIDs of each authority live.
#[derive(Default)]
struct Issued {
    x509: HashMap<String, i64>,
    jwt: HashMap<String, i64>,
}

impl Issued {
    async fn sign(&mut self, world: &World, ca: &CaManager, now: i64, context: &str) {
        let svid = ca.sign_workload_x509(workload(0), now).await;
        let svid = svid.unwrap_or_else(|error| panic!("{context}: no X.509 signer: {error}"));
        let leaf = Certificate::from_der(&svid.chain[0]).unwrap();
        let verified = x509::verify_svid(std::slice::from_ref(&leaf), &world.bundle(), now);
        assert!(verified.is_ok(), "{context}: fresh SVID: {verified:?}");
        let authority = crate::ca::state::hex(&leaf.authority_key_id().unwrap());
        let until = self.x509.entry(authority).or_default();
        *until = svid.expires_at.max(*until);
        let token = ca.sign_jwt(token(0), now).await;
        let token = token.unwrap_or_else(|error| panic!("{context}: no JWT signer: {error}"));
        let svid = jwt::validate(&token.token, &world.bundle(), &["audience".to_owned()], now);
        let kid = svid.unwrap_or_else(|error| panic!("{context}: fresh token: {error}")).key_id.unwrap();
        let until = self.jwt.entry(kid).or_default();
        *until = token.expires_at.max(*until);
    }

    /// What ended a day ago may be pruned, and stays so when the clock is set back.
    fn forget_expired(&mut self, now: i64) {
        self.x509.retain(|_, until| *until + BUNDLE_SAFETY > now);
        self.jwt.retain(|_, until| *until + BUNDLE_SAFETY > now);
    }

    fn all_verify(&self, world: &World, now: i64, context: &str) {
        let Some(bundle) = world.store.bundle(&trust_domain()) else { return };
        for (authority, _) in self.x509.iter().filter(|(_, until)| **until > now) {
            let known = bundle.x509_authorities.iter().any(|known| {
                crate::ca::state::hex(&known.certificate.subject_key_id().unwrap()) == *authority
            });
            assert!(known, "{context}: X.509 authority {authority} is gone");
        }
        for (kid, _) in self.jwt.iter().filter(|(_, until)| **until > now) {
            assert!(bundle.find_jwt_authority(kid).is_some(), "{context}: JWT authority {kid} is gone");
        }
    }
}

async fn journals_are_sound(world: &World, now: i64, context: &str) {
    let journals = world.store.journals();
    assert!(journals.len() <= 1, "{context}: {} journals of one server", journals.len());
    for stored in journals {
        let journal = Journal::decode(&stored).unwrap();
        for kind in Kind::ALL {
            assert!(journal.len(kind) <= 10, "{context}: journal grows");
        }
        let keys = world.keys.public_keys().await.unwrap();
        let bundle = world.store.bundle(&trust_domain());
        let around = Surroundings { keys: &keys, bundle: bundle.as_ref(), upstream: false, now };
        let loaded = journal::load(&journal, around);
        let unknown = loaded.unusable.iter().find(|(_, _, reason)| *reason == journal::Unusable::NotInBundle);
        // Long after its end an authority may be pruned before the journal is written again.
        if let Some((_, id, _)) = unknown {
            assert!(
                loaded.slots[0].current.as_ref().is_none_or(|current| current.id != *id),
                "{context}: {id} signs unpublished"
            );
        }
    }
}

/// What an operator may ask for. A refusal is no failure; what it meant to change is another matter.
async fn order(ca: &CaManager, random: &mut Random, issued: &mut Issued, now: i64) -> Result<(), CaError> {
    use crate::ca::local::LocalError;
    let kind = if random.below(2) == 0 { Kind::X509 } else { Kind::Jwt };
    let Ok(states) = ca.authorities(kind) else { return Ok(()) };
    let id = |state: &Option<crate::ca::local::AuthorityState>| {
        state.as_ref().map(|state| state.id.clone()).unwrap_or_default()
    };
    let (prepared, old) = (id(&states.prepared), id(&states.old));
    let outcome = match random.below(4) {
        0 => ca.prepare_authority(kind, now).await.map(drop),
        1 => ca.activate_authority(kind, &prepared, now).await.map(drop),
        2 => ca.taint_authority(kind, &old, now).await.map(drop),
        _ => {
            let outcome = ca.revoke_authority(kind, &old, now).await.map(drop);
            // Whether it took place or not: what it signed is no longer promised to verify.
            if matches!(outcome, Ok(()) | Err(LocalError::Store(..))) {
                issued.x509.remove(&old);
                issued.jwt.remove(&old);
            }
            outcome
        }
    };
    match outcome {
        Err(LocalError::Prepare(_, reason) | LocalError::Activate(_, reason)) => Err(reason),
        Err(LocalError::Store(_, steeple_datastore::Error::Authority(_))) => Ok(()),
        Err(LocalError::Store(_, reason)) => Err(reason.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Enough for an authority to be prepared, activated and replaced around a crash.
const STEPS: usize = 8;

async fn run(seed: u64) {
    let mut random = Random(seed);
    let ttl = [60, 3600, 24 * 3600, 90 * 24 * 3600][random.below(4) as usize];
    let config = CaConfig { ca_ttl: ttl, default_x509_svid_ttl: (ttl / 6).max(1), ..config() };
    let world = World::new();
    let faults = Arc::clone(&world.store.faults);
    let mut issued = Issued::default();
    let mut now = NOW;
    let mut running: Option<CaManager> = None;
    for step in 0..STEPS {
        let context = format!("seed {seed} step {step} ttl {ttl}");
        match random.below(7) {
            0 | 1 => now += random.below(ttl.unsigned_abs() / 6 + 1) as i64,
            2 | 3 => now += random.below(ttl.unsigned_abs() + 1) as i64,
            // The clock is set back.
            4 => now -= random.below(ttl.unsigned_abs() / 2 + 1) as i64,
            _ => {}
        }
        issued.forget_expired(now);
        if random.below(2) == 0 {
            faults.crash_after(random.below(7) as u32, random.below(2) == 0);
        }
        let before = running.as_ref().and_then(CaManager::x509_authority_id);
        let left = running.as_ref().and_then(|ca| ca.x509.load_full()).map(|signer| signer.not_after - now);
        let ordered = random.below(3) == 0;
        let result = match &running {
            Some(ca) if ordered => match order(ca, &mut random, &mut issued, now).await {
                Ok(()) => ca.rotate(now).await,
                failed => failed,
            },
            Some(ca) => ca.rotate(now).await,
            None => world.load(&config, now).await.map(|ca| running = Some(ca)),
        };
        issued.all_verify(&world, now, &context);
        if let Err(error) = result {
            assert!(faults.has_crashed(), "{context}: {error}");
            // Half of the time only the effect failed and the engine goes on; else it starts again.
            faults.work_again();
            if random.below(2) == 0 || running.is_none() {
                let restarted = world.load(&config, now).await;
                running = Some(restarted.unwrap_or_else(|error| panic!("{context}: restart: {error}")));
            } else if let Some(ca) = &running {
                ca.rotate(now).await.unwrap_or_else(|error| panic!("{context}: retry: {error}"));
            }
            let is_due = left.is_none_or(|left| left <= crate::ca::state::activation_threshold(ttl));
            let went_back = left.is_some_and(|left| left > ttl);
            if !ordered && !is_due && !went_back {
                let after = running.as_ref().and_then(CaManager::x509_authority_id);
                assert_eq!(before, after, "{context}: a good authority was lost");
            }
        }
        faults.work_again();
        if let Some(ca) = &running {
            issued.sign(&world, ca, now, &context).await;
        }
        issued.all_verify(&world, now, &context);
        journals_are_sound(&world, now, &context).await;
    }
}

/// A thousand at least, whatever `STEEPLE_CASES` says.
fn seeds() -> u64 {
    crate::fake::cases(1_000).max(1_000).into()
}

#[tokio::test]
async fn even_seeds() {
    for seed in (0..seeds()).step_by(2) {
        run(seed).await;
    }
}

#[tokio::test]
async fn odd_seeds() {
    for seed in (1..seeds()).step_by(2) {
        run(seed).await;
    }
}
