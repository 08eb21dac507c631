//! How often an address may call (spire.md §1.6). Callers on the Unix socket are not limited.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use steeple_runtime::clock::Clock;
use steeple_runtime::metrics::{CallMetric, rpc_key};
use steeple_runtime::ratelimit::RateLimiter;
use tonic::{Code, Status};

use crate::access::{Bucket, METHODS, Method};
use crate::caller::Caller;

/// `ratelimit { attestation, signing }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitConfig {
    pub attestation: bool,
    pub signing: bool,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self { attestation: true, signing: true }
    }
}

/// One limiter for each bucket that is switched on.
#[derive(Debug)]
pub struct Limits {
    limiters: HashMap<Bucket, RateLimiter>,
    /// One for each method, by path: handles are looked up once.
    meters: HashMap<&'static str, CallMetric>,
}

impl Limits {
    pub fn new(config: RateLimitConfig, clock: &Arc<dyn Clock>) -> Self {
        let rows = [
            (Bucket::Attest, 1, config.attestation),
            (Bucket::Csr, 500, config.signing),
            (Bucket::Jsr, 500, config.signing),
            (Bucket::Wit, 500, config.signing),
            (Bucket::Push, 500, true),
            (Bucket::Status, 10, true),
            (Bucket::Explain, 10, true),
        ];
        let on = rows.into_iter().filter(|row| row.2);
        let limited = METHODS.iter().filter(|method| method.bucket != Bucket::Unlimited);
        let key = |method: &Method| rpc_key(method.path).replacen("rpc.", "rateLimit.", 1);
        Self {
            limiters: on.map(|(bucket, limit, _)| (bucket, RateLimiter::new(limit, clock.clone()))).collect(),
            meters: limited.map(|method| (method.path, CallMetric::new(key(method)))).collect(),
        }
    }

    /// Waits for the caller's turn, if it comes before the deadline that is `patience` away. Counts the waiting as SPIRE does (`rateLimit.<service>.<method>`).
    pub async fn wait(
        &self,
        method: &'static Method,
        caller: &Caller,
        count: usize,
        patience: Option<Duration>,
    ) -> Result<(), Status> {
        if method.bucket == Bucket::Unlimited {
            return Ok(());
        }
        let (Some(limiter), Caller::Remote { addr, .. }) = (self.limiters.get(&method.bucket), caller) else {
            return Ok(());
        };
        let call = self.meters.get(method.path).map(CallMetric::begin);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let outcome = limiter.wait(addr.ip().to_canonical(), count, patience).await;
        if let Some(call) = call {
            call.done(if outcome.is_ok() { Code::Ok } else { Code::ResourceExhausted });
        }
        outcome.map_err(|e| Status::resource_exhausted(e.to_string()))
    }
}
