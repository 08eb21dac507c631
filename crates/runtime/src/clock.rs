//! The clock. Nothing outside this module reads the time (DESIGN §3.7).

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Tells the time.
pub trait Clock: Send + Sync + Debug + 'static {
    /// Seconds since 1970, rounded down.
    fn now(&self) -> i64;
    /// Nanoseconds since 1970.
    fn now_nanos(&self) -> i128;
    /// Time since some fixed moment; never goes back, whatever is done to the wall clock.
    fn monotonic(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// The machine's clock, as passed around.
pub fn system() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

impl Clock for SystemClock {
    fn now(&self) -> i64 {
        self.now_nanos().div_euclid(NANOS) as i64
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    fn now_nanos(&self) -> i128 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_nanos() as i128,
            Err(before) => -(before.duration().as_nanos() as i128),
        }
    }

    fn monotonic(&self) -> Duration {
        monotonic()
    }
}

/// Time since the first call in this process. For measuring, where no [`Clock`] is at hand.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub fn monotonic() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// A clock that moves when told to. Clones share the time.
#[derive(Debug, Clone)]
pub struct FakeClock(Arc<Mutex<FakeTime>>);

#[derive(Debug)]
struct FakeTime {
    nanos: i128,
    monotonic: Duration,
}

impl FakeClock {
    /// Starts at `now`, seconds since 1970.
    pub fn new(now: i64) -> Self {
        Self(Arc::new(Mutex::new(FakeTime { nanos: i128::from(now) * NANOS, monotonic: Duration::ZERO })))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut time = self.time();
        time.nanos += by.as_nanos() as i128;
        time.monotonic += by;
    }

    /// Turns the wall clock, as an administrator would; the monotonic clock does not notice.
    pub fn set(&self, now: i64) {
        self.time().nanos = i128::from(now) * NANOS;
    }

    fn time(&self) -> std::sync::MutexGuard<'_, FakeTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for FakeClock {
    fn now(&self) -> i64 {
        self.now_nanos().div_euclid(NANOS) as i64
    }

    fn now_nanos(&self) -> i128 {
        self.time().nanos
    }

    fn monotonic(&self) -> Duration {
        self.time().monotonic
    }
}

const NANOS: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fake_clock_moves_only_when_told() {
        let clock = FakeClock::new(1_000);
        let same = clock.clone();
        clock.advance(Duration::from_millis(1_500));
        assert_eq!((same.now(), same.now_nanos()), (1_001, 1_001_500_000_000));
        assert_eq!(same.monotonic(), Duration::from_millis(1_500));
        clock.set(-1);
        assert_eq!((same.now(), same.monotonic()), (-1, Duration::from_millis(1_500)));
    }

    #[test]
    fn the_system_clock_goes_forward() {
        let clock = SystemClock;
        assert!(clock.now() > 1_700_000_000);
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
    }
}
