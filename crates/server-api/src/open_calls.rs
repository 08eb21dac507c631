//! A bound on what one address may have under way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::caller::Caller;

/// How many calls of one kind each address has open. Callers on the Unix socket are not counted. Clones share the
/// counts.
#[derive(Clone, Debug)]
pub struct OpenCalls {
    most: u32,
    open: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// One of them, as long as it lives.
#[derive(Debug)]
pub struct OpenCall(Option<(OpenCalls, IpAddr)>);

impl OpenCalls {
    /// At most `most` for each address.
    pub fn new(most: u32) -> Self {
        Self { most, open: Arc::default() }
    }

    /// `None` if the caller's address has as many as it may have.
    pub fn begin(&self, caller: &Caller) -> Option<OpenCall> {
        let Caller::Remote { addr, .. } = caller else { return Some(OpenCall(None)) };
        let address = addr.ip().to_canonical();
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(OpenCall(Some((self.clone(), address))))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let Some((calls, address)) = self.0.take() else { return };
        let mut open = calls.lock();
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            // Addresses come and go: one without calls leaves nothing behind.
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
