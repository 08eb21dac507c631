//! A datastore and a key manager in memory, for tests: what they hold survives a "crash" of the engine, and they
//! fail where they are told to.

mod keys;
mod store;
mod upstream;

use std::sync::Mutex;

use steeple_plugin::conformance::pooled_key;
use steeple_spiffe::x509::{self, CaTemplate, Certificate, DistinguishedName, SerialNumber};
use steeple_spiffe::{PublicKey, TrustDomain};

pub use keys::FakeKeys;
pub use store::FakeStore;
pub use upstream::{FakeUpstream, Mood};

/// How many cases a random test plays: `STEEPLE_CASES` if it is set, for long runs, else what takes a second or two.
pub fn cases(usual: u32) -> u32 {
    std::env::var("STEEPLE_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// When effects fail. Shared by a [`FakeStore`] and a [`FakeKeys`] to crash a process at one point of its work.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Plan>);

#[derive(Debug, Default)]
enum Plan {
    #[default]
    Work,
    /// So many effects are left; the last one takes place or not.
    CrashAfter {
        effects: u32,
        takes_place: bool,
    },
    Crashed,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Works,
    FailsAfterwards,
    Fails,
}

impl Faults {
    pub fn crash_after(&self, effects: u32, takes_place: bool) {
        *self.0.lock().unwrap() = Plan::CrashAfter { effects, takes_place };
    }

    pub fn work_again(&self) {
        *self.0.lock().unwrap() = Plan::Work;
    }

    pub fn has_crashed(&self) -> bool {
        matches!(*self.0.lock().unwrap(), Plan::Crashed)
    }

    /// Asked once by each effect.
    pub fn effect(&self) -> Outcome {
        let mut plan = self.0.lock().unwrap();
        match &mut *plan {
            Plan::Work => Outcome::Works,
            Plan::Crashed => Outcome::Fails,
            Plan::CrashAfter { effects: 0, takes_place } => {
                let outcome = if *takes_place { Outcome::FailsAfterwards } else { Outcome::Fails };
                *plan = Plan::Crashed;
                outcome
            }
            Plan::CrashAfter { effects, .. } => {
                *effects -= 1;
                Outcome::Works
            }
        }
    }
}

/// A root certificate of a key from the pool.
pub fn root(public_key: &PublicKey, not_after: i64, now: i64) -> Certificate {
    let key = (0..16).map(pooled_key).find(|key| key.public_key() == *public_key).unwrap();
    let template = CaTemplate {
        trust_domain: TrustDomain::new("example.org").unwrap(),
        public_key: public_key.clone(),
        subject: DistinguishedName::default_ca(),
        not_before: now - 10,
        not_after,
        serial: SerialNumber::random().unwrap(),
    };
    let algorithm = key.key_type().x509_signature_algorithm();
    let tbs = x509::ca_tbs_self_signed(&template, algorithm).unwrap();
    Certificate::from_der(&x509::assemble(&tbs, algorithm, &key.sign(algorithm, &tbs).unwrap())).unwrap()
}
