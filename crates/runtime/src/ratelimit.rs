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

/// The longest anybody waits for a turn, with or without a deadline: the most that the callers of one address can owe.
/// Well below the 30 s that agents give an attestation, so that a turn given out is one that is used.
pub const MAX_WAIT: Duration = Duration::from_secs(20);

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
    /// The latest turn given out.
    last_turn: Duration,
}

/// Why a call is not let through. SPIRE answers ResourceExhausted with these texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    #[error("rate ({count}) exceeds burst size ({burst})")]
    BurstExceeded { count: u32, burst: u32 },
    /// Its turn would come after its deadline, or later than [`MAX_WAIT`] from now.
    #[error("rate: Wait(n={count}) would exceed context deadline")]
    TooFarAway { count: u32 },
}

impl RateLimiter {
    pub fn new(limit: u32, clock: Arc<dyn Clock>) -> Self {
        Self { limit, clock, buckets: Mutex::default() }
    }

    /// Waits until `address` may make `count` calls; more than the burst at once never passes, and neither does a call
    /// whose turn is further away than `patience` (the time to its deadline) or [`MAX_WAIT`]: those take no tokens. A
    /// caller that stops waiting gives its tokens back.
    pub async fn wait(
        &self,
        address: IpAddr,
        count: u32,
        patience: Option<Duration>,
    ) -> Result<(), LimitError> {
        let turn = self.reserve(address, count, patience.unwrap_or(MAX_WAIT))?;
        if !turn.delay.is_zero() {
            tokio::time::sleep(turn.delay).await;
        }
        turn.take();
        Ok(())
    }

    /// Takes the tokens now, to be used after [`Turn::delay`].
    pub fn reserve(&self, address: IpAddr, count: u32, patience: Duration) -> Result<Turn<'_>, LimitError> {
        if count > self.limit {
            return Err(LimitError::BurstExceeded { count, burst: self.limit });
        }
        let now = self.clock.monotonic();
        let rate = f64::from(self.limit);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.turn(now);
        let bucket = buckets.bucket(address, Bucket { tokens: rate, at: now, last_turn: now });
        let tokens = bucket.tokens_at(now, rate) - f64::from(count);
        let delay = if tokens < 0.0 { Duration::from_secs_f64(-tokens / rate) } else { Duration::ZERO };
        if delay > patience.min(MAX_WAIT) {
            return Err(LimitError::TooFarAway { count });
        }
        *bucket = Bucket { tokens, at: now, last_turn: now + delay };
        Ok(Turn { delay, at: now + delay, address, count, limiter: Some(self) })
    }

    /// As Go does: what was given out behind `turn` keeps its place, so the tokens of those come off what is restored.
    fn give_back(&self, turn: &Turn<'_>) {
        let now = self.clock.monotonic();
        if turn.at < now {
            return;
        }
        let rate = f64::from(self.limit);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = buckets.known(turn.address) else { return };
        let behind = bucket.last_turn.saturating_sub(turn.at).as_secs_f64() * rate;
        let restored = f64::from(turn.count) - behind;
        if restored <= 0.0 {
            return;
        }
        bucket.tokens = (bucket.tokens_at(now, rate) + restored).min(rate);
        bucket.at = now;
        if bucket.last_turn == turn.at {
            let before = turn.at.saturating_sub(Duration::from_secs_f64(f64::from(turn.count) / rate));
            bucket.last_turn = before.max(now);
        }
    }

    /// How many addresses are remembered.
    pub fn remembered(&self) -> usize {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.current.len() + buckets.previous.len()
    }
}

/// A place in the line. Dropped before it is taken, its tokens go back.
#[derive(Debug)]
#[must_use = "dropped, it gives its tokens back"]
pub struct Turn<'a> {
    pub delay: Duration,
    at: Duration,
    address: IpAddr,
    count: u32,
    limiter: Option<&'a RateLimiter>,
}

impl Turn<'_> {
    /// The call is made: the tokens are spent.
    pub fn take(mut self) {
        self.limiter = None;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(limiter) = self.limiter {
            limiter.give_back(self);
        }
    }
}

impl Bucket {
    fn tokens_at(&self, now: Duration, rate: f64) -> f64 {
        (self.tokens + now.saturating_sub(self.at).as_secs_f64() * rate).min(rate)
    }
}

impl Buckets {
    /// The bucket of `address`, moved to the current generation; `new` if there is none.
    fn bucket(&mut self, address: IpAddr, new: Bucket) -> &mut Bucket {
        let kept = self.previous.remove(&address);
        self.current.entry(address).or_insert(kept.unwrap_or(new))
    }

    fn known(&mut self, address: IpAddr) -> Option<&mut Bucket> {
        self.current.get_mut(&address).or_else(|| self.previous.get_mut(&address))
    }

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
mod tests;
