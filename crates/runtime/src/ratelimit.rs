//! Token buckets as Go's `x/time/rate` has them, one for each caller address (spire.md §1.6).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::clock::Clock;

/// A bucket nobody has used for one to two of these is forgotten.
const GENERATION: Duration = Duration::from_mins(1);

/// Limits calls of each address: `limit` tokens a second, `limit` at once. Callers wait for their turn, in order.
#[derive(Debug)]
pub struct RateLimiter {
    limit: u32,
    clock: Arc<dyn Clock>,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    current: HashMap<IpAddr, Bucket>,
    previous: HashMap<IpAddr, Bucket>,
    turned: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

/// SPIRE answers ResourceExhausted with this text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("rate ({count}) exceeds burst size ({burst})")]
pub struct BurstExceeded {
    pub count: u32,
    pub burst: u32,
}

impl RateLimiter {
    pub fn new(limit: u32, clock: Arc<dyn Clock>) -> Self {
        Self { limit, clock, buckets: Mutex::default() }
    }

    /// Waits until `address` may make `count` calls; more than the burst at once never passes. A caller that stops
    /// waiting does not get its tokens back (Go gives them back), so that hanging up is no way around the limit.
    pub async fn wait(&self, address: IpAddr, count: u32) -> Result<(), BurstExceeded> {
        let wait = self.reserve(address, count)?;
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Takes the tokens now and answers how long to wait before using them.
    pub fn reserve(&self, address: IpAddr, count: u32) -> Result<Duration, BurstExceeded> {
        if count > self.limit {
            return Err(BurstExceeded { count, burst: self.limit });
        }
        let now = self.clock.monotonic();
        let rate = f64::from(self.limit);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.turn(now);
        let kept = buckets.previous.remove(&address);
        let bucket = buckets
            .current
            .entry(address)
            .or_insert_with(|| kept.unwrap_or(Bucket { tokens: rate, at: now }));
        let gained = now.saturating_sub(bucket.at).as_secs_f64() * rate;
        bucket.tokens = (bucket.tokens + gained).min(rate) - f64::from(count);
        bucket.at = now;
        Ok(if bucket.tokens < 0.0 { Duration::from_secs_f64(-bucket.tokens / rate) } else { Duration::ZERO })
    }

    /// How many addresses are remembered.
    pub fn remembered(&self) -> usize {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.current.len() + buckets.previous.len()
    }
}

impl Buckets {
    /// Two generations: what was used in neither is dropped whole, without a look at each bucket.
    fn turn(&mut self, now: Duration) {
        let age = now.saturating_sub(self.turned);
        if age < GENERATION {
            return;
        }
        self.previous = if age < GENERATION * 2 { std::mem::take(&mut self.current) } else { HashMap::new() };
        self.current = HashMap::new();
        self.turned = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FakeClock;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn waits_grow_with_the_debt() {
        let clock = FakeClock::new(0);
        let limiter = RateLimiter::new(10, Arc::new(clock.clone()));
        assert_eq!(limiter.reserve(ip(1), 10), Ok(Duration::ZERO));
        assert_eq!(limiter.reserve(ip(1), 1), Ok(Duration::from_millis(100)));
        assert_eq!(limiter.reserve(ip(1), 4), Ok(Duration::from_millis(500)));
        assert_eq!(limiter.reserve(ip(2), 1), Ok(Duration::ZERO), "another address has its own");
        clock.advance(Duration::from_secs(1));
        assert_eq!(limiter.reserve(ip(1), 5), Ok(Duration::ZERO));
        assert_eq!(limiter.reserve(ip(1), 11), Err(BurstExceeded { count: 11, burst: 10 }));
        assert_eq!(limiter.reserve(ip(1), 11).unwrap_err().to_string(), "rate (11) exceeds burst size (10)");
    }

    #[test]
    fn idle_addresses_are_forgotten() {
        let clock = FakeClock::new(0);
        let limiter = RateLimiter::new(1, Arc::new(clock.clone()));
        for last in 0..200 {
            limiter.reserve(ip(last), 1).unwrap();
        }
        clock.advance(Duration::from_secs(61));
        limiter.reserve(ip(0), 1).unwrap();
        assert_eq!(limiter.remembered(), 200);
        clock.advance(Duration::from_secs(61));
        limiter.reserve(ip(0), 1).unwrap();
        assert_eq!(limiter.remembered(), 1);
    }

    #[tokio::test]
    async fn wait_waits() {
        let limiter = RateLimiter::new(1_000, Arc::new(FakeClock::new(0)));
        let start = crate::clock::monotonic();
        limiter.wait(ip(1), 1_000).await.unwrap();
        limiter.wait(ip(1), 5).await.unwrap();
        assert!(crate::clock::monotonic().saturating_sub(start) >= Duration::from_millis(5));
    }
}
