//! When an SVID is due for replacement.

use crate::Millis;

/// SPIRE's rule: half-life, ±10 % of it so that SVIDs issued together do not fall due together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RotationPolicy {
    /// SPIRE's `availability_target`: how long an SVID must outlast an unreachable server.
    pub availability_target: Option<Millis>,
}

const TEN_MINUTES: Millis = 10 * 60 * 1000;
/// SPIRE servers and ours date certificates back by this much.
const BACKDATED: Millis = 10 * 1000;
const TWELVE_HOURS: Millis = 12 * 3600 * 1000;

impl RotationPolicy {
    /// Whether SVIDs of this lifetime are too short-lived for the target, so that it does not count.
    pub fn falls_back(self, lifetime: Millis) -> bool {
        // SPIRE ignores a target that would leave less than twelve hours between issue and rotation.
        self.availability_target.is_some_and(|target| lifetime.saturating_sub(target) <= TWELVE_HOURS)
    }

    /// The time at which an SVID valid from `not_before` to `not_after` falls due. `random` is in `0.0..1.0`.
    pub fn due(self, not_before: Millis, not_after: Millis, random: f64) -> Millis {
        let lifetime = not_after.saturating_sub(not_before).max(0);
        if let Some(target) = self.availability_target
            && !self.falls_back(lifetime)
        {
            return not_after - target - scaled(TEN_MINUTES, random);
        }
        let half = lifetime / 2;
        let jitter = scaled(half, (random - 0.5) * 0.2);
        // An SVID of a few seconds is born past its half-life, for it is dated back. It serves a third of the life that
        // was asked for, so that replacing it does not become the agent's only work.
        let issued = not_before + if lifetime > BACKDATED { BACKDATED } else { half };
        (not_after - half - jitter).max(issued + (not_after - issued) / 3)
    }
}

/// Whether a JWT-SVID has lived half its life (no jitter: nobody waits on a timer for it), or is one of the future since
/// the clock was set back.
pub fn jwt_due(issued_at: Millis, expires_at: Millis, now: Millis) -> bool {
    now >= issued_at + (expires_at - issued_at) / 2 || now + SKEW < issued_at
}

/// Clocks differ by so much without harm.
const SKEW: Millis = 60_000;

fn scaled(span: Millis, by: f64) -> Millis {
    (span as f64 * by) as Millis
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_target_leads_unless_too_little_would_remain() {
        let policy = RotationPolicy { availability_target: Some(24 * 3600 * 1000) };
        let long = 48 * 3600 * 1000;
        assert_eq!(policy.due(0, long, 0.0), long / 2);
        assert_eq!(policy.due(0, long, 0.5), long / 2 - TEN_MINUTES / 2);
        let short = 30 * 3600 * 1000;
        assert!(policy.falls_back(short) && !policy.falls_back(long));
        assert!(!RotationPolicy::default().falls_back(short), "there is no target");
        assert_eq!(policy.due(0, short, 0.5), short / 2);
    }

    #[test]
    fn an_svid_of_ten_seconds_is_not_replaced_as_soon_as_it_arrives() {
        for (ttl, earliest) in [(10_000, 3_333), (5_000, 1_666), (20_000, 3_500), (1_000, 333)] {
            let due = RotationPolicy::default().due(-BACKDATED, ttl, 0.999);
            assert!((earliest..ttl).contains(&due), "{ttl}: {due}");
        }
    }

    #[test]
    fn a_token_of_the_future_is_due() {
        assert!(!jwt_due(1_000_000, 1_300_000, 990_000));
        assert!(jwt_due(1_000_000, 1_300_000, 1_150_000));
        assert!(jwt_due(1_000_000, 1_300_000, 1_000_000 - 72 * 3_600_000));
    }

    proptest! {
        #[test]
        fn falls_due_within_ten_percent_of_half_life(start in 0i64..1 << 40, life in 60_000i64..1 << 40, random in 0.0f64..1.0) {
            let due = RotationPolicy::default().due(start, start + life, random);
            let half = life / 2;
            prop_assert!(due >= start + life - half - half / 10 - 1);
            prop_assert!(due <= start + life - half + half / 10 + 1);
        }
    }
}
