//! A distribution in a few words.

use std::fmt::Write as _;
use std::time::Duration;

/// Nearest-rank quantile of sorted samples.
pub fn quantile(sorted: &[Duration], q: f64) -> Duration {
    let rank = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// One line for a person and a histogram below it.
pub fn show(name: &str, samples: &mut [Duration]) -> String {
    samples.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    let mut out = format!(
        "{name}: n={} min={:.1} p50={:.1} p90={:.1} p99={:.1} max={:.1} ms",
        samples.len(),
        ms(samples.first().copied().unwrap_or_default()),
        ms(quantile(samples, 0.5)),
        ms(quantile(samples, 0.9)),
        ms(quantile(samples, 0.99)),
        ms(samples.last().copied().unwrap_or_default()),
    );
    for (low, high) in
        [(0, 2), (2, 5), (5, 10), (10, 20), (20, 50), (50, 100), (100, 250), (250, 1000), (1000, 60_000)]
    {
        let n = samples.iter().filter(|d| (low..high).contains(&(d.as_millis() as u64))).count();
        if n > 0 {
            let bar = "#".repeat(n * 50 / samples.len().max(1));
            let _ = write!(out, "\n  {low:>5}-{high:<5} ms {n:>5} {bar}");
        }
    }
    out
}
