//! Samples: count, sum, and quantiles over the last ten seconds, as Go's Prometheus client keeps them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use metrics::HistogramFn;

use crate::clock;

const MAX_AGE: Duration = Duration::from_secs(10);
/// At most so many samples are kept; with more in ten seconds the newest decide. 4 KiB for a busy series, nothing for
/// an idle one.
const MAX_SAMPLES: usize = 512;
pub(super) const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

#[derive(Default)]
pub(super) struct Summary(Mutex<Samples>);

#[derive(Default)]
struct Samples {
    count: u64,
    sum: f64,
    /// Milliseconds of the monotonic clock, and the value.
    recent: VecDeque<(u32, f32)>,
}

/// A summary as of now.
#[derive(Debug, PartialEq)]
pub(super) struct Snapshot {
    pub count: u64,
    pub sum: f64,
    /// NaN where there is no recent sample.
    pub quantiles: [f64; 3],
}

impl Summary {
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot_at(clock::monotonic())
    }

    fn record_at(&self, now: Duration, value: f64) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.count += 1;
        samples.sum += value;
        samples.drop_old(now);
        if samples.recent.len() >= MAX_SAMPLES {
            samples.recent.pop_front();
        }
        samples.recent.push_back((now.as_millis() as u32, value as f32));
    }

    fn snapshot_at(&self, now: Duration) -> Snapshot {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        samples.drop_old(now);
        if samples.recent.is_empty() {
            samples.recent = VecDeque::new();
        }
        let mut sorted: Vec<f32> = samples.recent.iter().map(|(_, value)| *value).collect();
        sorted.sort_by(f32::total_cmp);
        let quantiles = QUANTILES.map(|quantile| {
            let rank = (quantile * sorted.len() as f64).ceil() as usize;
            sorted.get(rank.saturating_sub(1)).map_or(f64::NAN, |value| f64::from(*value))
        });
        Snapshot { count: samples.count, sum: samples.sum, quantiles }
    }
}

impl Samples {
    fn drop_old(&mut self, now: Duration) {
        let now = now.as_millis() as u32;
        // Wrapping: after 49 days the counter starts over.
        while self
            .recent
            .front()
            .is_some_and(|(at, _)| u128::from(now.wrapping_sub(*at)) > MAX_AGE.as_millis())
        {
            self.recent.pop_front();
        }
    }
}

impl HistogramFn for Summary {
    fn record(&self, value: f64) {
        self.record_at(clock::monotonic(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_ten_seconds_and_memory_is_bounded() {
        let summary = Summary::default();
        let at = Duration::from_secs;
        for value in 1..=100 {
            summary.record_at(at(1), f64::from(value));
        }
        let snapshot = summary.snapshot_at(at(2));
        assert_eq!((snapshot.count, snapshot.sum, snapshot.quantiles), (100, 5050.0, [50.0, 90.0, 99.0]));
        for value in 0..10_000 {
            summary.record_at(at(3), f64::from(value));
        }
        assert_eq!(summary.0.lock().unwrap().recent.len(), MAX_SAMPLES);
        let later = summary.snapshot_at(at(60));
        assert_eq!(later.count, 10_100);
        assert!(later.quantiles.iter().all(|quantile| quantile.is_nan()));
        assert_eq!(summary.0.lock().unwrap().recent.capacity(), 0);
    }
}
