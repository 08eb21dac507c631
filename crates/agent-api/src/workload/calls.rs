//! How many calls each user has under way: a connection carries a thousand streams, so limiting connections alone would
//! leave one user a thousand times as much of the agent's memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Calls {
    limit: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_uid: HashMap<u32, usize>,
    logged: Option<Duration>,
    held_back: u64,
}

/// The user has as many calls under way as one may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub limit: usize,
    /// To be logged, with the number of refusals that were not: a flood must not fill the disk.
    pub to_log: Option<u64>,
}

/// One call under way.
#[derive(Debug)]
pub(super) struct Place {
    calls: Arc<Calls>,
    uid: u32,
}

/// At most one log line about refused calls in this time.
const REFUSAL_LOG: Duration = Duration::from_secs(10);

impl Calls {
    pub fn new(limit: usize) -> Self {
        Self { limit, open: Mutex::default() }
    }

    /// `now` is monotonic.
    pub fn enter(self: &Arc<Self>, uid: u32, now: Duration) -> Result<Place, Full> {
        let mut open = self.open();
        let count = open.by_uid.entry(uid).or_default();
        if *count < self.limit {
            *count += 1;
            return Ok(Place { calls: self.clone(), uid });
        }
        let quiet = open.logged.is_some_and(|logged| now.saturating_sub(logged) < REFUSAL_LOG);
        let to_log = if quiet {
            open.held_back += 1;
            None
        } else {
            open.logged = Some(now);
            Some(std::mem::take(&mut open.held_back))
        };
        Err(Full { limit: self.limit, to_log })
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.calls.open();
        if let Some(count) = open.by_uid.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.by_uid.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_so_many_places_and_gets_them_back() {
        let calls = Arc::new(Calls::new(2));
        let enter = |uid, seconds| calls.enter(uid, Duration::from_secs(seconds));
        let (one, _two) = (enter(7, 0).unwrap(), enter(7, 0).unwrap());
        assert_eq!(enter(7, 0).unwrap_err(), Full { limit: 2, to_log: Some(0) });
        for _ in 0..3 {
            assert_eq!(enter(7, 9).unwrap_err().to_log, None);
        }
        assert_eq!(enter(7, 10).unwrap_err().to_log, Some(3));
        enter(8, 10).unwrap();
        drop(one);
        enter(7, 10).unwrap();
        assert_eq!(calls.open().by_uid.len(), 1, "users without calls are forgotten");
    }
}
