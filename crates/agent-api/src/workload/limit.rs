//! `experimental.ratelimit`: so many calls a second for callers with the same selectors, of each method.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use steeple_agent_core::SelectorSet;

/// Calls a second; 0 = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimits {
    pub fetch_x509_svid: u32,
    pub fetch_jwt_svid: u32,
    pub fetch_x509_bundles: u32,
    pub fetch_jwt_bundles: u32,
    pub stream_secrets: u32,
    pub fetch_secrets: u32,
}

/// Token buckets whose size is their rate (golang.org/x/time/rate), forgotten after a minute without use.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    limits: RateLimits,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    recent: HashMap<(&'static str, SelectorSet), Bucket>,
    older: HashMap<(&'static str, SelectorSet), Bucket>,
    turned: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

const GENERATION: Duration = Duration::from_mins(1);

impl Limiter {
    pub fn new(limits: RateLimits) -> Self {
        for (method, limit) in [
            ("/SpiffeWorkloadAPI/FetchX509SVID", limits.fetch_x509_svid),
            ("/SpiffeWorkloadAPI/FetchJWTSVID", limits.fetch_jwt_svid),
            ("/SpiffeWorkloadAPI/FetchX509Bundles", limits.fetch_x509_bundles),
            ("/SpiffeWorkloadAPI/FetchJWTBundles", limits.fetch_jwt_bundles),
            ("/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets", limits.stream_secrets),
            ("/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets", limits.fetch_secrets),
        ] {
            if limit > 0 {
                tracing::info!(
                    subsystem_name = "endpoints",
                    method,
                    limit,
                    "Workload API/SDS rate limiting enabled"
                );
            }
        }
        Self { limits, buckets: Mutex::default() }
    }

    /// Whether one more call is allowed at `now` (monotonic).
    pub fn allows(&self, method: &'static str, selectors: &SelectorSet, now: Duration) -> bool {
        let limit = match method {
            "FetchX509SVID" => self.limits.fetch_x509_svid,
            "FetchJWTSVID" => self.limits.fetch_jwt_svid,
            "FetchX509Bundles" => self.limits.fetch_x509_bundles,
            "FetchJWTBundles" => self.limits.fetch_jwt_bundles,
            "StreamSecrets" | "DeltaSecrets" => self.limits.stream_secrets,
            "FetchSecrets" => self.limits.fetch_secrets,
            _ => 0,
        };
        if limit == 0 {
            return true;
        }
        let limit = f64::from(limit);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(buckets.turned) >= GENERATION {
            buckets.older = std::mem::take(&mut buckets.recent);
            buckets.turned = now;
        }
        let key = (method, selectors.clone());
        let known = buckets.recent.get(&key).or_else(|| buckets.older.get(&key)).copied();
        let mut bucket = known.unwrap_or(Bucket { tokens: limit, at: now });
        let refilled = bucket.tokens + now.saturating_sub(bucket.at).as_secs_f64() * limit;
        bucket = Bucket { tokens: refilled.min(limit), at: now };
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= 1.0;
        }
        buckets.recent.insert(key, bucket);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use steeple_agent_core::Selector;

    use super::*;

    #[test]
    fn each_caller_has_its_own_bucket_and_it_refills() {
        let limiter = Limiter::new(RateLimits { fetch_jwt_svid: 2, ..RateLimits::default() });
        let caller = |value| SelectorSet::new(vec![Selector::new("unix", value)]);
        let (one, two) = (caller("uid:1"), caller("uid:2"));
        let allows = |who, millis| limiter.allows("FetchJWTSVID", who, Duration::from_millis(millis));
        assert!(allows(&one, 0) && allows(&one, 0) && !allows(&one, 0));
        assert!(allows(&two, 0));
        assert!(!allows(&one, 499) && allows(&one, 510) && !allows(&one, 510));
        assert!(limiter.allows("FetchX509SVID", &one, Duration::ZERO));
        for _ in 0..3 {
            allows(&two, 200_000);
        }
        assert_eq!(limiter.buckets.lock().unwrap().recent.len(), 1);
    }

    #[test]
    fn callers_without_selectors_share_one_bucket_and_both_protocols_of_sds_one_limit() {
        let limits = RateLimits { stream_secrets: 1, fetch_secrets: 1, ..RateLimits::default() };
        let limiter = Limiter::new(limits);
        let nobody = SelectorSet::default();
        let allows = |method| limiter.allows(method, &nobody, Duration::ZERO);
        assert!(allows("StreamSecrets") && !allows("StreamSecrets"));
        assert!(allows("DeltaSecrets") && !allows("DeltaSecrets"));
        assert!(allows("FetchSecrets") && !allows("FetchSecrets"));
        assert!((0..9).all(|_| allows("ValidateJWTSVID")), "never limited");
    }
}
