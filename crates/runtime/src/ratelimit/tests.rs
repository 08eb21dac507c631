use super::*;
use crate::clock::FakeClock;

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn limiter(limit: u32) -> (RateLimiter, FakeClock) {
    let clock = FakeClock::new(0);
    (RateLimiter::new(limit, Arc::new(clock.clone())), clock)
}

/// Takes the turn; answers how long it is away.
fn spend(limiter: &RateLimiter, address: IpAddr, count: u32) -> Result<Duration, LimitError> {
    let turn = limiter.reserve(address, count, MAX_WAIT)?;
    let delay = turn.delay;
    turn.take();
    Ok(delay)
}

#[test]
fn waits_grow_with_the_debt() {
    let (limiter, clock) = limiter(10);
    assert_eq!(spend(&limiter, ip(1), 10), Ok(Duration::ZERO));
    assert_eq!(spend(&limiter, ip(1), 1), Ok(Duration::from_millis(100)));
    assert_eq!(spend(&limiter, ip(1), 4), Ok(Duration::from_millis(500)));
    assert_eq!(spend(&limiter, ip(2), 1), Ok(Duration::ZERO), "another address has its own");
    clock.advance(Duration::from_secs(1));
    assert_eq!(spend(&limiter, ip(1), 5), Ok(Duration::ZERO));
    assert_eq!(spend(&limiter, ip(1), 11), Err(LimitError::BurstExceeded { count: 11, burst: 10 }));
}

#[test]
fn refusals_are_worded_as_spire_does() {
    let burst = LimitError::BurstExceeded { count: 11, burst: 10 };
    assert_eq!(burst.to_string(), "rate (11) exceeds burst size (10)");
    let late = LimitError::TooFarAway { count: 3 };
    assert_eq!(late.to_string(), "rate: Wait(n=3) would exceed context deadline");
}

#[test]
fn a_turn_after_the_deadline_takes_nothing() {
    let (limiter, _clock) = limiter(1);
    spend(&limiter, ip(1), 1).unwrap();
    let patience = Duration::from_millis(900);
    for _ in 0..100 {
        let refused = limiter.reserve(ip(1), 1, patience).map(Turn::take);
        assert_eq!(refused, Err(LimitError::TooFarAway { count: 1 }));
    }
    assert_eq!(spend(&limiter, ip(1), 1), Ok(Duration::from_secs(1)));
}

#[test]
fn a_flood_owes_no_more_than_the_longest_wait() {
    let (limiter, clock) = limiter(1);
    let served = (0..1_000).filter(|_| spend(&limiter, ip(1), 1).is_ok()).count();
    assert_eq!(served, 21);
    clock.advance(MAX_WAIT);
    assert_eq!(spend(&limiter, ip(1), 1), Ok(Duration::from_secs(1)));
}

#[test]
fn who_leaves_the_line_gives_the_turn_back() {
    let (limiter, clock) = limiter(1);
    spend(&limiter, ip(1), 1).unwrap();
    let wait = || limiter.reserve(ip(1), 1, MAX_WAIT).unwrap();
    let seconds = Duration::from_secs;
    // The last one leaves, again and again.
    for _ in 0..1_000 {
        assert_eq!(wait().delay, seconds(1));
    }
    // Leaving from the end, each turn is the next caller's again.
    let mut line: Vec<_> = (0..5).map(|_| wait()).collect();
    while let Some(turn) = line.pop() {
        drop(turn);
    }
    assert_eq!(wait().delay, seconds(1));
    // From the middle: those behind keep their place, as with Go.
    let (first, second) = (wait(), wait());
    drop(first);
    assert_eq!(second.delay, seconds(2));
    assert_eq!(wait().delay, seconds(3));
    // A turn that has come and gone is spent.
    clock.advance(seconds(10));
    drop(second);
    assert_eq!(wait().delay, Duration::ZERO);
}

#[tokio::test]
async fn a_call_that_is_hung_up_gives_its_turn_back() {
    let (limiter, _clock) = limiter(1);
    limiter.wait(ip(1), 1, None).await.unwrap();
    for _ in 0..1_000 {
        let mut call = Box::pin(limiter.wait(ip(1), 1, None));
        assert!(futures::poll!(call.as_mut()).is_pending(), "and not refused");
    }
    assert_eq!(spend(&limiter, ip(1), 1), Ok(Duration::from_secs(1)));
}

/// One attestation a second, 200 agents behind one address that start at once, give up after 30 s and try again a
/// while after each refusal.
#[test]
fn a_fleet_behind_one_address_attests_in_the_end() {
    struct Agent {
        next_try: Duration,
        backoff: Duration,
    }
    const GIVE_UP: Duration = Duration::from_secs(30);
    let (limiter, clock) = limiter(1);
    let step = Duration::from_millis(100);
    let mut agents: Vec<Agent> = (0..200_u32)
        .map(|i| Agent { next_try: step * (i % 7), backoff: Duration::from_secs(1) + step * (i % 13) })
        .collect();
    let mut now = Duration::ZERO;
    while !agents.is_empty() {
        assert!(now < Duration::from_secs(260), "{} agents starve", agents.len());
        agents.retain_mut(|agent| {
            if agent.next_try > now {
                return true;
            }
            match limiter.reserve(ip(1), 1, GIVE_UP) {
                Ok(turn) => {
                    assert!(turn.delay + Duration::from_secs(5) < GIVE_UP, "a turn that nobody waits for");
                    turn.take();
                    false
                }
                Err(LimitError::TooFarAway { .. }) => {
                    agent.next_try = now + agent.backoff;
                    agent.backoff = (agent.backoff * 2).min(Duration::from_secs(10));
                    true
                }
                Err(other) => panic!("{other}"),
            }
        });
        clock.advance(step);
        now += step;
    }
}

#[test]
fn idle_addresses_are_forgotten() {
    let (limiter, clock) = limiter(1);
    for last in 0..200 {
        spend(&limiter, ip(last), 1).unwrap();
    }
    clock.advance(Duration::from_secs(61));
    spend(&limiter, ip(0), 1).unwrap();
    assert_eq!(limiter.remembered(), 200);
    clock.advance(Duration::from_secs(61));
    spend(&limiter, ip(0), 1).unwrap();
    assert_eq!(limiter.remembered(), 1);
}

#[tokio::test]
async fn wait_waits() {
    let (limiter, _clock) = limiter(1_000);
    let start = crate::clock::monotonic();
    limiter.wait(ip(1), 1_000, None).await.unwrap();
    limiter.wait(ip(1), 5, None).await.unwrap();
    assert!(crate::clock::monotonic().saturating_sub(start) >= Duration::from_millis(5));
}
