use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3600;
const DAY: Millis = 24 * HOUR * 1000;

fn at(seconds: i64) -> Time {
    Time { wall: seconds * 1000, steady: seconds * 1000 }
}

fn ready(reattestable: bool) -> Node {
    let mut node = Node::new(Patience::default(), None);
    node.took_up((-10, HOUR), (reattestable, true), 0.5, at(0));
    node
}

fn patient(rebootstrap: Rebootstrap, reattestable: bool) -> Node {
    let mut node = Node::new(Patience { rebootstrap, delay: 600_000 }, None);
    node.took_up((-10, HOUR), (reattestable, true), 0.5, at(0));
    node
}

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
fn the_clock_is_judged_by_a_fresh_certificate() {
    assert_eq!(clock_skew(990, 1_000_000), None);
    assert_eq!(clock_skew(990, 1_600_000), Some(600));
    assert_eq!(clock_skew(1590, 1_000_000), Some(-600));
}

#[test]
fn renews_at_half_life_or_attests_again_if_it_can() {
    let node = ready(false);
    let Next::Wait(left) = node.next(at(0)) else { panic!("due at once") };
    assert_eq!(node.next(Time { wall: left, steady: left }), Next::Renew);
    assert_eq!(ready(true).next(at(HOUR / 2 + 1)), Next::Attest);
}

#[test]
fn each_refusal_has_its_consequence() {
    use Denial::{Banned, Expired, MustReattest, NotActive, NotAttested};
    for (denial, once) in
        [(Expired, Standing::Expired), (NotAttested, Standing::Evicted), (NotActive, Standing::Evicted)]
    {
        let mut node = ready(false);
        assert!(!node.denied(denial, at(1)));
        assert_eq!(node.standing(), once);
        assert!(!node.may_talk());
        let mut node = ready(true);
        assert!(node.denied(denial, at(1)));
        assert_eq!((node.standing(), node.next(at(1))), (Standing::Reattesting, Next::Attest));
        assert!(!node.standing().forfeits(), "workloads keep what they have meanwhile");
    }
    for reattestable in [false, true] {
        let mut node = ready(reattestable);
        assert!(node.denied(MustReattest, at(1)));
        assert_eq!(node.next(at(1)), Next::Attest);
        let mut node = ready(reattestable);
        assert!(!node.denied(Banned, at(1)));
        // What other calls hear afterwards does not lift a ban.
        assert!(!node.denied(NotAttested, at(1)));
        assert!(!node.denied(MustReattest, at(1)));
        assert_eq!(node.standing(), Standing::Banned);
        assert!(matches!(node.next(at(1)), Next::Wait(_)), "not at once");
        assert_eq!(node.next(at(20)), Next::Attest, "but now and then");
        node.took_up((10, HOUR), (reattestable, true), 0.5, at(20));
        assert_eq!(node.standing(), Standing::Ready);
    }
}

#[test]
fn who_is_refused_after_eviction_forfeits_what_it_holds_and_a_network_that_is_down_does_not() {
    let mut node = ready(true);
    node.denied(Denial::NotAttested, at(1));
    node.failed(Failure::Passing, 0.5, at(1));
    assert_eq!(node.standing(), Standing::Reattesting);
    node.failed(Failure::Refused, 0.5, at(10));
    assert_eq!(node.standing(), Standing::Refused);
    let mut node = ready(true);
    node.denied(Denial::NotAttested, at(1));
    node.failed(Failure::NoProof, 0.5, at(10));
    assert_eq!(node.standing(), Standing::Evicted);
}

#[test]
fn a_server_that_is_gone_for_longer_than_the_svid_lives_is_waited_for() {
    for (reattestable, first) in [(true, Next::Attest), (false, Next::Renew)] {
        let mut node = ready(reattestable);
        let mut now = HOUR / 2 + 1;
        while now < HOUR {
            assert_eq!(node.next(at(now)), first);
            node.failed(Failure::Passing, 0.0, at(now));
            assert_eq!(node.standing(), Standing::Ready, "it has not run out");
            now += RETRY_MAX / 1000;
        }
        node.failed(Failure::Passing, 0.0, at(HOUR));
        assert_eq!(node.standing(), Standing::Expired);
        assert!(!node.standing().forfeits());
        // Both ways are tried where the SVID may be renewable after all: our clock may be the wrong one.
        let mut tried = Vec::new();
        for n in 1..=10 {
            let now = at(HOUR + n * 100);
            tried.push(node.next(now));
            node.failed(Failure::Passing, 0.0, now);
        }
        assert!(tried.contains(&Next::Attest), "{tried:?}");
        assert_eq!(tried.contains(&Next::Renew), !reattestable, "{tried:?}");
        node.took_up((2 * HOUR, 3 * HOUR), (reattestable, true), 0.5, at(2 * HOUR));
        assert_eq!(node.standing(), Standing::Ready);
    }
}

#[test]
fn a_spent_token_does_not_take_what_workloads_hold() {
    let mut node = ready(false);
    node.failed(Failure::Passing, 0.5, at(HOUR));
    node.failed(Failure::NoProof, 0.5, at(HOUR + 10));
    assert_eq!(node.standing(), Standing::Expired);
    let mut fresh = Node::new(Patience::default(), None);
    fresh.failed(Failure::NoProof, 0.5, at(0));
    assert_eq!(fresh.standing(), Standing::Attesting);
}

#[test]
fn a_refusal_while_the_svid_lives_is_no_eviction() {
    let mut node = ready(true);
    node.failed(Failure::Refused, 0.5, at(HOUR / 2 + 1));
    assert_eq!(node.standing(), Standing::Ready);
    node.failed(Failure::Refused, 0.5, at(HOUR));
    assert_eq!(node.standing(), Standing::Refused);
}

#[test]
fn a_clock_set_back_does_not_put_renewal_off_and_one_set_forward_brings_it_on() {
    for jump in [-3 * DAY, 3 * DAY] {
        let node = ready(false);
        let jumped = Time { wall: jump, steady: 1000 };
        assert_eq!(node.next(jumped), Next::Renew, "{jump}");
        // What comes back is valid by the server's clock only: no rush.
        let mut node = node;
        node.took_up((-10, HOUR), (false, true), 0.5, jumped);
        let Next::Wait(left) = node.next(jumped) else { panic!("spins after {jump}") };
        assert!(left >= RETRY, "{left}");
        assert!(left <= HOUR * 1000, "sleeps for days: {left}");
        // The clock is put right again.
        assert!(
            matches!(node.next(Time { wall: 2000, steady: 2000 }), Next::Wait(left) if left <= HOUR * 1000)
        );
    }
}

#[test]
fn pauses_are_measured_by_the_steady_clock() {
    let mut node = ready(false);
    let due = at(HOUR / 2 + 1);
    node.failed(Failure::Passing, 0.5, due);
    let back = Time { wall: due.wall - 3 * DAY, steady: due.steady + 2 * RETRY };
    assert_eq!(node.next(back), Next::Renew);
}

#[test]
fn svids_that_are_born_due_come_ever_more_rarely() {
    let mut node = ready(false);
    let mut time = Time { wall: 3 * DAY, steady: 0 };
    let mut last = 0;
    for _ in 0..12 {
        node.took_up((-10, HOUR), (false, true), 0.5, time);
        let Next::Wait(left) = node.next(time) else { panic!("spins") };
        assert!(left >= last, "{left} after {last}");
        last = left;
        (time.wall, time.steady) = (time.wall + left, time.steady + left);
        assert_eq!(node.next(time), Next::Renew);
    }
    assert_eq!(last, TAINTED_RETRY_MAX);
}

#[test]
fn an_unknown_server_is_borne_with_for_a_while_and_then_trust_begins_anew() {
    for (mode, reattestable, then) in [
        (Rebootstrap::Never, true, false),
        (Rebootstrap::Auto, false, false),
        (Rebootstrap::Auto, true, true),
        (Rebootstrap::Always, true, true),
    ] {
        let mut node = patient(mode, reattestable);
        assert!(node.untrusted(at(10)));
        assert!(!node.untrusted(at(20)));
        assert_eq!(node.standing(), Standing::Untrusted);
        assert!(node.may_talk(), "it is asked again all the same");
        assert_ne!(node.next(at(609)), Next::Rebootstrap);
        assert_eq!(node.next(at(610)) == Next::Rebootstrap, then, "{mode:?}");
        // Any word from the right one starts over.
        node.heard();
        assert_eq!(node.standing(), Standing::Ready);
        node.untrusted(at(700));
        assert_ne!(node.next(at(1200)), Next::Rebootstrap);
    }
    assert!(patient(Rebootstrap::Always, false).must_not_run());
    assert!(patient(Rebootstrap::Auto, false).will_not_rebootstrap());
    assert!(!patient(Rebootstrap::Auto, true).will_not_rebootstrap());
}

#[test]
fn rebootstrapping_holds_until_a_server_attests_or_refuses() {
    let mut node = patient(Rebootstrap::Auto, true);
    node.untrusted(at(0));
    node.rebootstrapping(at(600));
    assert_eq!((node.standing(), node.next(at(600))), (Standing::Rebootstrapping, Next::Attest));
    node.failed(Failure::Passing, 0.5, at(600));
    assert_eq!(node.standing(), Standing::Rebootstrapping);
    let mut refused = node;
    refused.failed(Failure::Refused, 0.5, at(700));
    assert_eq!(refused.standing(), Standing::Refused);
    node.took_up((700, HOUR), (true, true), 0.5, at(710));
    assert_eq!(node.standing(), Standing::Ready);
}

#[test]
fn a_wait_that_began_before_a_restart_counts() {
    let mut node = Node::new(Patience { rebootstrap: Rebootstrap::Auto, delay: 600_000 }, Some(true));
    node.untrusted_for(599_000, at(5));
    assert_eq!(node.next(at(5)), Next::Attest);
    assert_eq!(node.next(at(6)), Next::Rebootstrap);
}

#[test]
fn a_tainted_svid_goes_at_once_and_a_server_that_stays_tainted_is_not_flooded() {
    let mut node = ready(false);
    node.tainted(0, at(1));
    assert_eq!(node.next(at(1)), Next::Renew);
    for (tries, span) in [(1, 5_000), (2, 10_000), (7, 300_000), (100, 300_000)] {
        let mut node = ready(false);
        node.tainted(tries, at(1));
        assert_eq!(node.next(at(1)), Next::Wait(span));
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Pass(i64),
    Jump(i64),
    TookUp(bool),
    Failed(u8),
    Denied(u8),
    Untrusted,
    Heard,
    Rotate,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0i64..7200).prop_map(Event::Pass),
        (-300_000i64..300_000).prop_map(Event::Jump),
        any::<bool>().prop_map(Event::TookUp),
        (0u8..3).prop_map(Event::Failed),
        (0u8..5).prop_map(Event::Denied),
        Just(Event::Untrusted),
        Just(Event::Heard),
        Just(Event::Rotate),
    ]
}

proptest! {
    /// Whatever happens in whatever order: the agent always has something to do within bounded time, an SVID that
    /// came a moment ago is left alone, and only a new SVID ends a ban.
    #[test]
    fn it_never_stands_still_never_spins_and_never_forgets_a_ban(
        events in prop::collection::vec(event(), 1..60),
        auto in any::<bool>(),
    ) {
        let rebootstrap = if auto { Rebootstrap::Auto } else { Rebootstrap::Never };
        let mut node = Node::new(Patience { rebootstrap, delay: 600_000 }, None);
        let mut time = at(1_000_000);
        for event in events {
            let before = node.standing();
            match event {
                Event::Pass(seconds) => {
                    time.wall += seconds * 1000;
                    time.steady += seconds * 1000;
                }
                Event::Jump(seconds) => time.wall += seconds * 1000,
                Event::TookUp(reattestable) => {
                    let now = time.wall / 1000;
                    node.took_up((now - 10, now + HOUR), (reattestable, true), 0.5, time);
                    prop_assert!(matches!(node.next(time), Next::Wait(left) if left > 60_000));
                }
                Event::Failed(which) => {
                    let which = [Failure::Passing, Failure::NoProof, Failure::Refused][usize::from(which)];
                    node.failed(which, 0.5, time);
                    if node.next(time) != Next::Rebootstrap {
                        prop_assert!(matches!(node.next(time), Next::Wait(left) if left >= RETRY));
                    }
                }
                Event::Denied(which) => {
                    use Denial::{Banned, Expired, MustReattest, NotActive, NotAttested};
                    let which = [Expired, NotAttested, NotActive, Banned, MustReattest][usize::from(which)];
                    node.denied(which, time);
                    prop_assert!(!node.may_talk());
                }
                Event::Untrusted => { node.untrusted(time); }
                Event::Heard => node.heard(),
                Event::Rotate => node.rotate_now(time),
            }
            if before == Standing::Banned && !matches!(event, Event::TookUp(_)) {
                prop_assert_eq!(node.standing(), Standing::Banned);
            }
            match node.next(time) {
                Next::Wait(left) => {
                    prop_assert!(left > 0 && left <= HOUR * 1000, "{left}");
                    // A pause that ends leads somewhere.
                    let later = Time { wall: time.wall + left, steady: time.steady + left };
                    prop_assert!(!matches!(node.next(later), Next::Wait(left) if left > HOUR * 1000));
                }
                Next::Rebootstrap => {
                    prop_assert!(auto && !node.standing().forfeits());
                    node.rebootstrapping(time);
                    prop_assert_eq!(node.next(time), Next::Attest);
                }
                Next::Renew => prop_assert!(!node.is_reattestable()),
                Next::Attest => {}
            }
        }
    }
}

#[test]
fn the_agents_own_svid_heeds_the_availability_target() {
    let target = RotationPolicy { availability_target: Some(24 * HOUR * 1000) };
    for (rotation, lifetime, due) in [
        (RotationPolicy::default(), 48, 24),
        (target, 48, 24),
        (target, 72, 48),
        // Too short-lived for the target: half its life.
        (target, 30, 15),
    ] {
        let mut node = Node::new(Patience::default(), None).rotating(rotation);
        let now = Time { wall: 0, steady: 0 };
        // In the middle of the jitter: none at half-life, five minutes before the target.
        node.took_up((0, lifetime * HOUR), (false, false), 0.5, now);
        let early = if due == lifetime - 24 && rotation == target { 300 } else { 0 };
        assert_eq!(node.term.unwrap().due, (due * HOUR - early) * 1000, "{lifetime} h by {rotation:?}");
    }
}
