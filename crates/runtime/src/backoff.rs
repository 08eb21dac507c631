//! Waits that grow: SPIRE's exponential back-off (factor 1.5, ±10 % jitter, at most 24 times the first).

use std::time::Duration;

const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.1;
const MOST: u32 = 24;

/// The next wait after each failure.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and grows to 24 times that.
    pub fn new(first: Duration) -> Self {
        Self::with_max(first, first.saturating_mul(MOST))
    }

    /// Starts at `first` and grows to `most`.
    pub fn with_max(first: Duration, most: Duration) -> Self {
        Self { first: first.min(most), most, next: first.min(most) }
    }

    /// How long to wait now. Named as an iterator would, but it never ends.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(1.0 + JITTER * (fastrand::f64() * 2.0 - 1.0));
        self.next = self.next.mul_f64(FACTOR).min(self.most);
        wait
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_limit_and_starts_over() {
        let mut backoff = Backoff::new(Duration::from_millis(6_400));
        for expected in [6_400, 9_600, 14_400, 21_600, 32_400, 48_600, 72_900, 109_350, 153_600, 153_600] {
            let wait = backoff.next_wait().as_millis();
            assert!((expected * 9 / 10..=expected * 11 / 10 + 1).contains(&wait), "{wait} for {expected}");
        }
        backoff.reset();
        assert!(backoff.next_wait() < Duration::from_millis(7_100));
    }
}
