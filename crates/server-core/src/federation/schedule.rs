//! When each relationship is due.

use std::collections::BTreeMap;

use steeple_datastore::EndpointProfile;
use steeple_spiffe::{Bundle, TrustDomain};

/// How often within a refresh hint the endpoint is asked (SPIRE).
const ASKS_PER_HINT: i64 = 4;
/// A shorter refresh hint is taken for this one (SPIRE).
const SHORTEST_HINT: i64 = 60;
/// A longer time than this never passes between two polls, whatever a bundle says: a slip of the pen in another trust
/// domain must not stop its rotations from arriving here. Ours.
const LONGEST_INTERVAL: i64 = 24 * 3600;
/// Between polls if the bundle has no hint (SPIRE; SPIFFE Federation §4.1 suggests it).
const WITHOUT_HINT: i64 = 5 * 60;
/// Between polls while there is no bundle (SPIRE).
const WITHOUT_BUNDLE: i64 = 60;
/// Failures make the interval longer, not beyond this if it was not longer anyway. Ours.
const LONGEST_BACKOFF: i64 = 5 * 60;

/// Where a bundle is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub url: String,
    pub profile: EndpointProfile,
    /// It stands in the configuration file.
    pub is_static: bool,
}

/// What a change of the relationships did to one; for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moved {
    Managed(Target),
    Updated(Target),
    Unmanaged,
}

/// What matters here of the bundle that is stored after an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub sequence_number: u64,
    /// Seconds.
    pub refresh_hint: Option<i64>,
}

impl Facts {
    pub fn of(bundle: &Bundle) -> Self {
        Self { sequence_number: bundle.sequence_number, refresh_hint: bundle.refresh_hint }
    }
}

/// How asking an endpoint went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempt {
    /// `None` = no bundle is stored.
    pub stored: Option<Facts>,
    /// Why it failed.
    pub error: Option<String>,
}

/// The health of one relationship. Times are Unix seconds, 0 = none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelationshipState {
    pub is_static: bool,
    pub last_attempt: i64,
    pub last_success: i64,
    pub next_attempt: i64,
    pub last_error: Option<String>,
    pub failures_in_a_row: u64,
    pub stored: Option<Facts>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Schedule {
    watched: BTreeMap<TrustDomain, Watched>,
}

#[derive(Debug)]
struct Watched {
    target: Target,
    state: RelationshipState,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Waits,
    Asks,
    /// What made it ask is out of date: ask again afterwards.
    AsksTwice,
    /// If it fails, ask again: what it lacked may be there now.
    AsksAgainIfItFails,
}

impl Schedule {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over the relationships as they are now; new and changed ones are due at once.
    pub fn set_targets(
        &mut self,
        mut targets: BTreeMap<TrustDomain, Target>,
        now: i64,
    ) -> Vec<(TrustDomain, Moved)> {
        let mut moved = Vec::new();
        self.watched.retain(|trust_domain, watched| match targets.remove(trust_domain) {
            None => {
                moved.push((trust_domain.clone(), Moved::Unmanaged));
                false
            }
            Some(target) => {
                if watched.target != target {
                    moved.push((trust_domain.clone(), Moved::Updated(target.clone())));
                    watched.state.is_static = target.is_static;
                    watched.target = target;
                    watched.ask(now);
                }
                true
            }
        });
        for (trust_domain, target) in targets {
            moved.push((trust_domain.clone(), Moved::Managed(target.clone())));
            let state = RelationshipState {
                is_static: target.is_static,
                next_attempt: now,
                ..RelationshipState::default()
            };
            self.watched.insert(trust_domain, Watched { target, state, phase: Phase::Waits });
        }
        moved
    }

    /// Asks at once, or again after the attempt that is under way. `false` = there is no such relationship.
    pub fn demand(&mut self, trust_domain: &TrustDomain, now: i64) -> bool {
        let Some(watched) = self.watched.get_mut(trust_domain) else { return false };
        watched.ask(now);
        true
    }

    /// A bundle was stored or deleted: relationships that fail may work now, if it is their endpoint's.
    pub fn bundle_changed(&mut self, trust_domain: &TrustDomain, now: i64) {
        for (of, watched) in &mut self.watched {
            let endpoint =
                watched.target.profile.endpoint_spiffe_id().map(steeple_spiffe::SpiffeId::trust_domain);
            let concerned = of == trust_domain || endpoint.as_ref() == Some(trust_domain);
            if concerned && watched.state.last_error.is_some() {
                // The change may be what the attempt under way has just stored.
                match watched.phase {
                    Phase::Asks => watched.phase = Phase::AsksAgainIfItFails,
                    _ => watched.ask(now),
                }
            }
        }
    }

    /// When [`Schedule::start_due`] has something; `None` = not before something else happens.
    pub fn next(&self) -> Option<i64> {
        let waiting = self.watched.values().filter(|watched| watched.phase == Phase::Waits);
        waiting.map(|watched| watched.state.next_attempt).min()
    }

    /// Those to ask now. Each is under way until [`Schedule::finished`].
    pub fn start_due(&mut self, now: i64) -> Vec<(TrustDomain, Target)> {
        let due = self
            .watched
            .iter_mut()
            .filter(|(_, watched)| watched.phase == Phase::Waits && watched.state.next_attempt <= now);
        due.map(|(trust_domain, watched)| {
            watched.phase = Phase::Asks;
            watched.state.last_attempt = now;
            (trust_domain.clone(), watched.target.clone())
        })
        .collect()
    }

    /// Answers when the next attempt is; `None` = the relationship has ended meanwhile.
    pub fn finished(&mut self, trust_domain: &TrustDomain, attempt: Attempt, now: i64) -> Option<i64> {
        let watched = self.watched.get_mut(trust_domain)?;
        let state = &mut watched.state;
        let failed = attempt.error.is_some();
        if failed {
            state.failures_in_a_row += 1;
        } else {
            state.failures_in_a_row = 0;
            state.last_success = now;
        }
        state.last_error = attempt.error;
        state.stored = attempt.stored;
        let again = match std::mem::replace(&mut watched.phase, Phase::Waits) {
            Phase::Waits | Phase::Asks => false,
            Phase::AsksTwice => true,
            Phase::AsksAgainIfItFails => failed,
        };
        state.next_attempt =
            if again { now } else { now + interval(attempt.stored, state.failures_in_a_row) };
        Some(state.next_attempt)
    }

    /// Every relationship, by trust domain.
    pub fn states(&self) -> Vec<(TrustDomain, RelationshipState)> {
        self.watched
            .iter()
            .map(|(trust_domain, watched)| (trust_domain.clone(), watched.state.clone()))
            .collect()
    }
}

impl Watched {
    fn ask(&mut self, now: i64) {
        match self.phase {
            Phase::Waits => self.state.next_attempt = now,
            Phase::Asks | Phase::AsksTwice | Phase::AsksAgainIfItFails => self.phase = Phase::AsksTwice,
        }
    }
}

/// Seconds until the next poll.
fn interval(stored: Option<Facts>, failures: u64) -> i64 {
    // How soon a bundle that the operator sets is noticed is not a matter of this: see `bundle_changed`.
    let Some(stored) = stored else { return WITHOUT_BUNDLE };
    let regular = match stored.refresh_hint {
        Some(hint) if hint > 0 => (hint.max(SHORTEST_HINT) / ASKS_PER_HINT).min(LONGEST_INTERVAL),
        _ => WITHOUT_HINT,
    };
    let doubled = failures.saturating_sub(1).min(8) as u32;
    (regular << doubled).min(LONGEST_BACKOFF.max(regular))
}

#[cfg(test)]
mod tests;
