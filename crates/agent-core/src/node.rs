//! The agent's own identity: attest → SVID → renew or attest again → … → give up.
//!
//! The caller does what [`Node::next`] says and reports back; what the server refuses goes through [`Node::denied`].

use crate::rotation::RotationPolicy;
use crate::{Millis, millis};

/// KeyManager ids of the agent's keys, used in turn (SPIRE).
pub const KEY_IDS: [&str; 2] = ["agent-svid-A", "agent-svid-B"];

/// The id under which the next key is made, so that the one in use stays.
pub fn next_key_id(current: Option<&str>) -> &'static str {
    if current == Some(KEY_IDS[0]) { KEY_IDS[1] } else { KEY_IDS[0] }
}

/// What was found on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// `not_after` of the stored SVID, Unix seconds.
    pub svid_expires_at: Option<i64>,
    /// The key of the stored SVID is in the key manager.
    pub has_its_key: bool,
    /// Any agent key is.
    pub has_keys: bool,
}

/// What to do at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    UseStored,
    /// With what SPIRE logs about it, if anything.
    Attest(Option<&'static str>),
}

/// Decides at start. An SVID that expires within a second counts as expired (SPIRE).
pub fn start(found: Found, now: Millis) -> Start {
    let expired = found.svid_expires_at.is_some_and(|at| now + 1000 >= millis(at));
    match (found.svid_expires_at.is_some(), found.has_its_key) {
        (true, true) if !expired => Start::UseStored,
        (true, true) => {
            Start::Attest(Some("SVID key recovered, but SVID is expired. Generating new keypair"))
        }
        (true, false) if found.has_keys => {
            Start::Attest(Some("SVID recovered, but no SVID key found. Generating new keypair"))
        }
        (true, false) => Start::Attest(Some("SVID recovered, but no keys found. Generating new keypair")),
        (false, _) if found.has_keys => {
            Start::Attest(Some("Keys recovered, but no SVID found. Generating new keypair"))
        }
        (false, _) => Start::Attest(None),
    }
}

/// Why the server refused the agent (`spire.api.types.PermissionDeniedDetails`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    Expired,
    NotAttested,
    NotActive,
    Banned,
    MustReattest,
}

/// What to do next about the own SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Wait(Millis),
    Renew,
    /// Attest again in this process.
    Reattest,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Reattest,
    /// Delete the stored SVID and exit, with the message to log.
    GiveUp(&'static str),
}

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Node {
    reattestable: bool,
    due: Millis,
    failures: u32,
    must_reattest: bool,
}

/// How long an agent waits at most for its server to leave a tainted authority before it asks again.
pub(crate) const TAINTED_RETRY_MAX: Millis = 300_000;

/// SPIRE looks at the agent SVID every 5 s; a failed renewal is tried again after that, at most a minute apart.
const RETRY: Millis = 5_000;
const RETRY_MAX: Millis = 60_000;

impl Node {
    /// An SVID valid from `not_before` to `not_after` (Unix seconds) is in force. `random` is in `0.0..1.0`.
    pub fn new(not_before: i64, not_after: i64, reattestable: bool, random: f64) -> Self {
        let due = RotationPolicy::default().due(millis(not_before), millis(not_after), random);
        Self { reattestable, due, failures: 0, must_reattest: false }
    }

    pub fn is_reattestable(&self) -> bool {
        self.reattestable
    }

    pub fn next(&self, now: Millis) -> Next {
        if self.must_reattest {
            Next::Reattest
        } else if now < self.due {
            Next::Wait(self.due)
        } else if self.reattestable {
            // The server answers a reattestable agent's RenewAgent with AGENT_MUST_REATTEST.
            Next::Reattest
        } else {
            Next::Renew
        }
    }

    /// The server wants the SVID replaced now.
    pub fn rotate_now(&mut self, now: Millis) {
        self.due = self.due.min(now);
    }

    /// The SVID stands under a tainted authority, and so did `tries` before it: a server that has not moved on yet is
    /// asked again after a growing pause.
    pub fn tainted(&mut self, tries: u32, now: Millis) {
        let pause = if tries == 0 { 0 } else { (RETRY << (tries - 1).min(6)).min(TAINTED_RETRY_MAX) };
        self.due = self.due.min(now + pause);
    }

    /// Renewal or re-attestation failed for a reason that may pass.
    pub fn failed(&mut self, now: Millis) {
        self.due = now + (RETRY << self.failures.min(4)).min(RETRY_MAX);
        self.failures += 1;
        self.must_reattest = false;
    }

    /// The server refused this agent.
    pub fn denied(&mut self, denial: Denial) -> Verdict {
        match denial {
            Denial::Banned => Verdict::GiveUp("Agent is banned: removing SVID and shutting down"),
            Denial::MustReattest => {
                self.must_reattest = true;
                self.reattestable = true;
                Verdict::Reattest
            }
            Denial::Expired | Denial::NotAttested | Denial::NotActive if self.reattestable => {
                self.must_reattest = true;
                Verdict::Reattest
            }
            Denial::Expired | Denial::NotAttested | Denial::NotActive => {
                Verdict::GiveUp("Agent needs to re-attest: removing SVID and shutting down")
            }
        }
    }
}

/// How far this machine's clock is ahead of the server's (seconds, negative = behind), told from a certificate that the
/// server just issued: it dates them back by ten seconds. `None` while the difference does no harm.
pub fn clock_skew(not_before: i64, now: Millis) -> Option<i64> {
    const BACKDATED: i64 = 10;
    const HARMLESS: i64 = 60;
    let skew = now / 1000 - (not_before + BACKDATED);
    (skew.abs() > HARMLESS).then_some(skew)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3600;

    #[test]
    fn keys_alternate() {
        assert_eq!(next_key_id(None), "agent-svid-A");
        assert_eq!(next_key_id(Some("agent-svid-A")), "agent-svid-B");
        assert_eq!(next_key_id(Some("agent-svid-B")), "agent-svid-A");
    }

    #[test]
    fn a_stored_svid_is_used_only_with_its_key_and_in_time() {
        let found = Found { svid_expires_at: Some(100), has_its_key: true, has_keys: true };
        assert_eq!(start(found, 98_999), Start::UseStored);
        assert!(matches!(start(found, 99_000), Start::Attest(Some(_))));
        let other_key = Found { has_its_key: false, ..found };
        assert_eq!(
            start(other_key, 0),
            Start::Attest(Some("SVID recovered, but no SVID key found. Generating new keypair"))
        );
        assert_eq!(start(Found::default(), 0), Start::Attest(None));
    }

    #[test]
    fn renews_at_half_life_or_attests_again_if_it_can() {
        let node = Node::new(0, HOUR, false, 0.5);
        assert_eq!(node.next(0), Next::Wait(HOUR / 2 * 1000));
        assert_eq!(node.next(HOUR / 2 * 1000), Next::Renew);
        assert_eq!(Node::new(0, HOUR, true, 0.5).next(HOUR * 1000), Next::Reattest);
    }

    #[test]
    fn each_refusal_has_its_consequence() {
        for denial in [Denial::Expired, Denial::NotAttested, Denial::NotActive] {
            let mut once = Node::new(0, HOUR, false, 0.5);
            assert!(matches!(once.denied(denial), Verdict::GiveUp(_)));
            let mut again = Node::new(0, HOUR, true, 0.5);
            assert_eq!(again.denied(denial), Verdict::Reattest);
            assert_eq!(again.next(0), Next::Reattest);
        }
        for reattestable in [false, true] {
            let mut node = Node::new(0, HOUR, reattestable, 0.5);
            assert!(matches!(node.denied(Denial::Banned), Verdict::GiveUp(_)));
            assert_eq!(node.denied(Denial::MustReattest), Verdict::Reattest);
            assert_eq!(node.next(0), Next::Reattest);
        }
    }

    #[test]
    fn a_tainted_svid_goes_at_once_and_a_server_that_stays_tainted_is_not_flooded() {
        let mut node = Node::new(0, HOUR, false, 0.5);
        node.tainted(0, 1000);
        assert_eq!(node.next(1000), Next::Renew);
        for (tries, pause) in [(1, 5_000), (2, 10_000), (7, 300_000), (100, 300_000)] {
            let mut node = Node::new(0, HOUR, false, 0.5);
            node.tainted(tries, 1000);
            assert_eq!(node.next(1000), Next::Wait(1000 + pause));
        }
    }

    #[test]
    fn the_clock_is_judged_by_a_fresh_certificate() {
        assert_eq!(clock_skew(990, 1_000_000), None);
        assert_eq!(clock_skew(990, 1_600_000), Some(600));
        assert_eq!(clock_skew(1590, 1_000_000), Some(-600));
    }

    proptest! {
        /// However often it fails, the next try is never further away than a minute and never at once.
        #[test]
        fn retries_are_bounded(failures in 1usize..40, start in 0i64..1 << 40) {
            let mut node = Node::new(0, HOUR, false, 0.5);
            let mut now = start.max(HOUR * 1000);
            for _ in 0..failures {
                node.failed(now);
                let Next::Wait(until) = node.next(now) else { panic!("must wait") };
                prop_assert!(until - now >= RETRY && until - now <= RETRY_MAX);
                now = until;
                prop_assert_eq!(node.next(now), Next::Renew);
            }
        }
    }
}
