//! Calls to something outside that may stop answering: bounded in number and time, and once something is known not
//! to answer, only one call at a time tries it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock;

/// Silent ones remembered; beyond it all are forgotten, which costs each one more wait.
const REMEMBERED: usize = 4096;

/// See the module's documentation. What is asked has a key, so that one that hangs does not stand for all.
#[derive(Debug)]
pub struct Gate {
    within: Duration,
    places: Semaphore,
    silent: Mutex<HashMap<String, Silent>>,
}

#[derive(Debug)]
struct Silent {
    since: Duration,
    trying: bool,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("no answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    #[error("no answer for {} s; one call at a time tries again", .0.as_secs())]
    StillSilent(Duration),
}

impl Gate {
    /// At most `at_once` calls, each answered `within` this time, waiting for its turn included.
    pub fn new(at_once: usize, within: Duration) -> Self {
        Self { within, places: Semaphore::new(at_once), silent: Mutex::default() }
    }

    /// The call's answer. Dropped, it leaves nothing behind.
    pub async fn pass<T>(&self, key: &str, call: impl Future<Output = T>) -> Result<T, Unanswered> {
        let _trying = self.enter(key)?;
        let turn = async {
            let _place = self.places.acquire().await;
            call.await
        };
        if let Ok(answer) = tokio::time::timeout(self.within, turn).await {
            self.silent().remove(key);
            return Ok(answer);
        }
        let mut silent = self.silent();
        if silent.len() >= REMEMBERED && !silent.contains_key(key) {
            silent.clear();
        }
        let since = clock::monotonic().saturating_sub(self.within);
        silent.entry(key.to_owned()).or_insert(Silent { since, trying: false });
        Err(Unanswered::Late(self.within))
    }

    fn enter<'a>(&'a self, key: &'a str) -> Result<Option<Trying<'a>>, Unanswered> {
        match self.silent().get_mut(key) {
            None => Ok(None),
            Some(Silent { since, trying: true }) => {
                Err(Unanswered::StillSilent(clock::monotonic().saturating_sub(*since)))
            }
            Some(Silent { trying, .. }) => {
                *trying = true;
                Ok(Some(Trying { gate: self, key }))
            }
        }
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<String, Silent>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one that tries something silent, until it is dropped.
struct Trying<'a> {
    gate: &'a Gate,
    key: &'a str,
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        if let Some(silent) = self.gate.silent().get_mut(self.key) {
            silent.trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn what_does_not_answer_is_tried_by_one_call_at_a_time_until_it_answers() {
        let gate = Arc::new(Gate::new(8, WITHIN));
        assert_eq!(gate.pass("hung", pending::<()>()).await, Err(Unanswered::Late(WITHIN)));
        let mut trying = Box::pin(gate.pass("hung", pending::<()>()));
        assert!(futures::poll!(&mut trying).is_pending());
        let refused = gate.pass("hung", async {}).await;
        assert!(matches!(refused, Err(Unanswered::StillSilent(_))), "{refused:?}");
        // Others are not held.
        assert_eq!(gate.pass("well", async { 1 }).await, Ok(1));
        // A caller that gives up makes room.
        drop(trying);
        assert_eq!(gate.pass("hung", async { 2 }).await, Ok(2));
        let mut first = Box::pin(gate.pass("hung", pending::<()>()));
        assert!(futures::poll!(&mut first).is_pending());
        assert_eq!(gate.pass("hung", async { 3 }).await, Ok(3), "it answered: no more suspicion");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_at_once_and_the_others_wait_their_turn_no_longer_than_allowed() {
        let gate = Gate::new(2, WITHIN);
        let mut held = Vec::new();
        for n in 0..2 {
            let mut call = Box::pin(gate.pass(if n == 0 { "a" } else { "b" }, pending::<()>()));
            assert!(futures::poll!(&mut call).is_pending());
            held.push(call);
        }
        assert_eq!(gate.pass("c", async {}).await, Err(Unanswered::Late(WITHIN)));
        drop(held);
        assert_eq!(gate.pass("d", async { 1 }).await, Ok(1));
    }
}
