//! `experimental.svid_cache_max_bytes`: what X.509-SVIDs and JWT-SVIDs may take together. Above it the SVID goes that was
//! used longest ago, of whichever kind; X.509-SVIDs that a workload holds a stream for never go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::jwt_cache::JwtCache;
use crate::{Cache, Millis};

/// Numbers uses in their order. Clones count on.
#[derive(Clone, Debug, Default)]
pub struct Uses(Arc<AtomicU64>);

impl Uses {
    /// Of a use that happens now; the first is 1.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// Brings both caches under the budget of the first, as far as it goes. Returns the bytes held then.
pub fn keep(cache: &mut Cache, jwt: &mut JwtCache, now: Millis) -> usize {
    while cache.bytes() + jwt.bytes() > cache.max_bytes() {
        let dropped = match (cache.idlest(), jwt.idlest()) {
            (Some(svid), Some(token)) if token < svid => jwt.drop_idlest(),
            (Some(_), _) => cache.drop_idlest(now),
            (None, _) => jwt.drop_idlest(),
        };
        if !dropped {
            break;
        }
    }
    cache.leave_room_for(jwt.bytes(), now);
    cache.bytes() + jwt.bytes()
}

#[cfg(test)]
mod tests;
