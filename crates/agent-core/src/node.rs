//! The agent's own identity: attest → SVID → renew or attest again → … and what to do when the server says no.
//!
//! The caller does what [`Node::next`] says and reports back ([`Node::took_up`], [`Node::failed`]); what the server
//! refuses goes through [`Node::denied`], a server that is not the one through [`Node::untrusted`]. Nothing here ends the
//! agent: where SPIRE's agent exits, ours stands still in a state that says why and goes on by itself (ADR 0021).

mod start;

pub use start::{Found, KEY_IDS, Start, clock_skew, next_key_id, start};

use crate::rotation::RotationPolicy;
use crate::{Millis, millis};

/// The wall clock, which is turned and jumps, and the time that has passed, which does neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    pub wall: Millis,
    pub steady: Millis,
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

/// Where the agent stands with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No SVID yet, or none any more and nobody said why.
    Attesting,
    /// An SVID is in force.
    Ready,
    /// The server wants another attestation, and this node can give it.
    Reattesting,
    /// The SVID ran out before it could be replaced.
    Expired,
    /// The server no longer knows the agent, and what attested it cannot do so twice.
    Evicted,
    /// The server attests this node no more.
    Refused,
    Banned,
    /// The server's certificate is not under the trust bundle.
    Untrusted,
    /// The old trust is given up; the new one is being asked for.
    Rebootstrapping,
}

impl Standing {
    pub const ALL: [Self; 9] = [
        Self::Attesting,
        Self::Ready,
        Self::Reattesting,
        Self::Expired,
        Self::Evicted,
        Self::Refused,
        Self::Banned,
        Self::Untrusted,
        Self::Rebootstrapping,
    ];

    /// As logs, metrics and health checks say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Attesting => "attesting",
            Self::Ready => "ready",
            Self::Reattesting => "reattesting",
            Self::Expired => "expired",
            Self::Evicted => "evicted",
            Self::Refused => "refused",
            Self::Banned => "banned",
            Self::Untrusted => "untrusted_server",
            Self::Rebootstrapping => "rebootstrapping",
        }
    }

    /// Somebody decided against this agent: nothing that it holds may be used any longer. In all other states
    /// workloads keep what they have for as long as it is valid.
    pub fn forfeits(self) -> bool {
        matches!(self, Self::Evicted | Self::Refused | Self::Banned)
    }

    /// Nothing new can be had from the server.
    pub fn is_cut_off(self) -> bool {
        !matches!(self, Self::Ready | Self::Reattesting)
    }
}

/// `rebootstrap_mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebootstrap {
    #[default]
    Never,
    /// Where attestation can be repeated.
    Auto,
    /// The agent does not run where it cannot.
    Always,
}

/// How patient the agent is with a server that its bundle does not vouch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    pub rebootstrap: Rebootstrap,
    /// `rebootstrap_delay`
    pub delay: Millis,
}

impl Default for Patience {
    /// SPIRE's: never, after ten minutes.
    fn default() -> Self {
        Self { rebootstrap: Rebootstrap::Never, delay: 600_000 }
    }
}

/// What to do next about the own SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// For this long, unless something happens.
    Wait(Millis),
    Renew,
    Attest,
    /// Give up SVID and bundle, report [`Node::rebootstrapping`], then attest with what the bootstrap source says.
    Rebootstrap,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may pass.
    Passing,
    /// What the node shows is no proof (any more): a spent join token.
    NoProof,
    /// The server does not attest this node.
    Refused,
}

/// An SVID in force.
#[derive(Clone, Copy, Debug)]
struct Term {
    not_before: Millis,
    not_after: Millis,
    due: Millis,
    /// The same by the steady clock: a wall clock set back by days must not put renewal off by days.
    due_steady: Millis,
    /// It was valid already when it was taken up.
    was_valid: bool,
}

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct Node {
    patience: Patience,
    rotation: RotationPolicy,
    base: Standing,
    term: Option<Term>,
    reattestable: Option<bool>,
    must_attest: bool,
    failures: u32,
    retry_at: Millis,
    /// SVIDs in a row that were due as soon as they came.
    stillborn: u32,
    /// Since when the server is not the one, by the steady clock.
    untrusted_since: Option<Millis>,
}

/// How long an agent waits at most for its server to leave a tainted authority before it asks again.
pub(crate) const TAINTED_RETRY_MAX: Millis = 300_000;

/// SPIRE looks at the agent SVID every 5 s; a failed attempt is repeated after that, at most a minute apart.
const RETRY: Millis = 5_000;
const RETRY_MAX: Millis = 60_000;
/// Where only an operator can help, the server is asked this rarely in the end.
const SLOW_RETRY_MAX: Millis = 300_000;
/// Clocks differ by so much without harm.
const SKEW: Millis = 60_000;

impl Node {
    /// An agent without an SVID. `reattestable` as far as it is known from before.
    pub fn new(patience: Patience, reattestable: Option<bool>) -> Self {
        Self {
            patience,
            rotation: RotationPolicy::default(),
            base: Standing::Attesting,
            term: None,
            reattestable,
            must_attest: false,
            failures: 0,
            retry_at: 0,
            stillborn: 0,
            untrusted_since: None,
        }
    }

    /// Replaces its SVIDs by this policy.
    #[must_use]
    pub fn rotating(mut self, rotation: RotationPolicy) -> Self {
        self.rotation = rotation;
        self
    }

    /// The stored SVID ran out while the agent was not there.
    pub fn found_expired(&mut self) {
        self.base = Standing::Expired;
    }

    /// An untrusted server was met before the agent was restarted, so long ago.
    pub fn untrusted_for(&mut self, span: Millis, time: Time) {
        self.untrusted_since = Some(time.steady - span.max(0));
    }

    pub fn standing(&self) -> Standing {
        let shows = matches!(
            self.base,
            Standing::Attesting | Standing::Ready | Standing::Reattesting | Standing::Expired
        );
        if self.untrusted_since.is_some() && shows { Standing::Untrusted } else { self.base }
    }

    /// There is an SVID that the server has not refused: it can be talked to.
    pub fn may_talk(&self) -> bool {
        self.base == Standing::Ready
    }

    pub fn is_reattestable(&self) -> bool {
        self.reattestable == Some(true)
    }

    /// `rebootstrap_mode` is always, and this node cannot.
    pub fn must_not_run(&self) -> bool {
        self.patience.rebootstrap == Rebootstrap::Always && self.reattestable == Some(false)
    }

    /// `rebootstrap_mode` is auto, and this node cannot.
    pub fn will_not_rebootstrap(&self) -> bool {
        self.patience.rebootstrap == Rebootstrap::Auto && self.reattestable == Some(false)
    }

    fn rebootstraps(&self) -> bool {
        self.patience.rebootstrap != Rebootstrap::Never && self.reattestable != Some(false)
    }

    /// How long an untrusted server is borne with yet; `None` if there is none or nothing follows.
    pub fn time_left(&self, time: Time) -> Option<Millis> {
        let since = self.untrusted_since.filter(|_| self.rebootstraps())?;
        Some((since + self.patience.delay - time.steady).max(0))
    }

    pub fn next(&self, time: Time) -> Next {
        if self.time_left(time) == Some(0) && self.standing() == Standing::Untrusted {
            return Next::Rebootstrap;
        }
        let wanted = match (self.base, &self.term) {
            (Standing::Ready, _) if self.must_attest => Next::Attest,
            (Standing::Ready, Some(term)) => match term.due_in(time) {
                0 if self.is_reattestable() => Next::Attest,
                0 => Next::Renew,
                left => return Next::Wait(left.max(self.retry_at - time.steady)),
            },
            // The clock may be wrong, and the connection still open: renewing may help even so.
            (Standing::Expired, Some(_)) if !self.is_reattestable() && self.failures.is_multiple_of(2) => {
                Next::Renew
            }
            _ => Next::Attest,
        };
        if time.steady < self.retry_at { Next::Wait(self.retry_at - time.steady) } else { wanted }
    }

    /// An SVID valid from `not_before` to `not_after` (Unix seconds) is in force; `fresh` if the server issued it just
    /// now. `random` is in `0.0..1.0`.
    pub fn took_up(
        &mut self,
        (not_before, not_after): (i64, i64),
        (reattestable, fresh): (bool, bool),
        random: f64,
        time: Time,
    ) {
        let (not_before, not_after) = (millis(not_before), millis(not_after));
        let due = self.rotation.due(not_before, not_after, random);
        let life = due - not_before;
        // What the server issued is as old as the server's clock says, whatever ours says.
        let left = if fresh { life - BACKDATED.min(life) } else { (due - time.wall).clamp(0, life) };
        let was_valid = time.wall + SKEW >= not_before;
        let term = Term { not_before, not_after, due, due_steady: time.steady + left, was_valid };
        self.stillborn = if term.due_in(time) == 0 { self.stillborn.saturating_add(1) } else { 0 };
        self.retry_at = match self.stillborn {
            0 => time.steady,
            // The clock is off: asking again at once would bring the same.
            tries => time.steady + pause(tries - 1, TAINTED_RETRY_MAX),
        };
        if !fresh && self.stillborn > 0 {
            // A stored one is merely old.
            (self.retry_at, self.stillborn) = (time.steady, 0);
        }
        (self.base, self.term, self.reattestable) = (Standing::Ready, Some(term), Some(reattestable));
        (self.must_attest, self.failures) = (false, 0);
        if fresh {
            self.untrusted_since = None;
        }
    }

    /// The server was found to be the one.
    pub fn heard(&mut self) {
        self.untrusted_since = None;
    }

    /// The server's certificate is not under the stored bundle. True if that is news.
    pub fn untrusted(&mut self, time: Time) -> bool {
        let news = self.untrusted_since.is_none();
        self.untrusted_since.get_or_insert(time.steady);
        news
    }

    /// SVID and bundle are gone; the bootstrap source has the word.
    pub fn rebootstrapping(&mut self, time: Time) {
        (self.base, self.term, self.untrusted_since) = (Standing::Rebootstrapping, None, None);
        (self.must_attest, self.failures, self.retry_at) = (false, 0, time.steady);
    }

    /// The server wants the SVID replaced now.
    pub fn rotate_now(&mut self, time: Time) {
        self.due_in(0, time);
    }

    /// The SVID stands under a tainted authority, and so did `tries` before it: a server that has not moved on yet is
    /// asked again after a growing pause.
    pub fn tainted(&mut self, tries: u32, time: Time) {
        self.due_in(if tries == 0 { 0 } else { pause(tries - 1, TAINTED_RETRY_MAX) }, time);
    }

    fn due_in(&mut self, span: Millis, time: Time) {
        if let Some(term) = &mut self.term {
            term.due_steady = term.due_steady.min(time.steady + span);
        }
    }

    /// Renewal or attestation failed. `random` is in `0.0..1.0`: agents that lost their server together must not come
    /// back together.
    pub fn failed(&mut self, failure: Failure, random: f64, time: Time) {
        let expired = self.term.is_none_or(|term| time.wall + 1000 >= term.not_after);
        let before = self.base;
        self.base = match (self.base, failure) {
            (Standing::Ready, Failure::Refused)
                if self.must_attest || (expired && self.is_reattestable()) =>
            {
                Standing::Refused
            }
            (Standing::Ready, _) if expired => Standing::Expired,
            (Standing::Attesting | Standing::Reattesting | Standing::Rebootstrapping, Failure::Refused) => {
                Standing::Refused
            }
            (Standing::Reattesting, Failure::NoProof) => Standing::Evicted,
            (Standing::Expired, Failure::Refused) if self.is_reattestable() => Standing::Refused,
            (base, _) => base,
        };
        if before == Standing::Ready && self.base != before {
            self.failures = 0;
        }
        let hopeless = failure != Failure::Passing || self.base.forfeits();
        let span = pause(self.failures, if hopeless { SLOW_RETRY_MAX } else { RETRY_MAX });
        self.retry_at = time.steady + span + (span as f64 * 0.2 * random) as Millis;
        self.failures = self.failures.saturating_add(1);
    }

    /// The server refused this agent. True if it can attest again by itself.
    pub fn denied(&mut self, denial: Denial, time: Time) -> bool {
        let base = match denial {
            Denial::Banned => Standing::Banned,
            // Told so by the calls that were under way, too.
            _ if self.base == Standing::Banned => Standing::Banned,
            Denial::MustReattest => {
                self.reattestable = Some(true);
                Standing::Reattesting
            }
            _ if self.is_reattestable() => Standing::Reattesting,
            // Nobody decided that: it came too late.
            Denial::Expired => Standing::Expired,
            Denial::NotAttested | Denial::NotActive => Standing::Evicted,
        };
        if base != self.base {
            (self.failures, self.retry_at) = (0, time.steady);
            // The server has just said no: it is not asked again at once.
            if base.forfeits() {
                self.retry_at += RETRY;
                self.failures = 1;
            }
        }
        self.base = base;
        self.must_attest = base == Standing::Reattesting;
        if base.forfeits() {
            self.term = None;
        }
        base == Standing::Reattesting
    }
}

/// Servers date certificates back by this much.
const BACKDATED: Millis = 10_000;

impl Term {
    /// How long until the SVID is to be replaced, 0 for now.
    fn due_in(&self, time: Time) -> Millis {
        // The clock was set back: servers whose clocks were, too, take this SVID for one of the future.
        let of_the_future = self.was_valid && time.wall + SKEW < self.not_before;
        if of_the_future { 0 } else { (self.due - time.wall).min(self.due_steady - time.steady).max(0) }
    }
}

fn pause(failures: u32, most: Millis) -> Millis {
    (RETRY << failures.min(10)).min(most)
}

#[cfg(test)]
mod tests;
