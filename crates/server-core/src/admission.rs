//! The queue in front of the CA keys (DESIGN §3.8): as many signatures at once as there are cores, the most
//! urgent first. A caller that has to wait costs one queue element; under overload calls get slower, none is
//! dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// A workload has no SVID yet and waits for this one.
    #[default]
    Waiting,
    /// The SVID that this one replaces runs out.
    Expiring,
    /// Nobody asked yet.
    Prefetch,
}

impl Priority {
    /// The value of the metadata key `steeple-priority`. A caller that names none of them is taken to wait, so that
    /// SPIRE's agents, which send none, come first.
    pub fn from_metadata(value: Option<&str>) -> Self {
        match value {
            Some("expiring") => Self::Expiring,
            Some("prefetch") => Self::Prefetch,
            _ => Self::Waiting,
        }
    }
}

const LEVELS: usize = 3;

/// Every so many grants the least urgent non-empty queue is served, so that a flood of urgent calls delays the
/// others but does not starve them until their SVIDs expire.
const FAIR_EVERY: u32 = 8;

/// A semaphore with priorities. Clones share the places.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Shared>);

#[derive(Debug)]
struct Shared(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    granted: u32,
    queues: [VecDeque<oneshot::Sender<Permit>>; LEVELS],
}

/// The right to sign. Gives its place to the next caller when dropped.
#[derive(Debug)]
pub struct Permit(Option<Arc<Shared>>);

impl Admission {
    /// `places` signatures run at once (at least one).
    pub fn new(places: usize) -> Self {
        let queues = std::array::from_fn(|_| VecDeque::new());
        Self(Arc::new(Shared(Mutex::new(State { free: places.max(1), granted: 0, queues }))))
    }

    /// As many places as the machine has cores.
    pub fn per_core() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    /// Waits for a place. Dropping the future leaves the queue.
    pub async fn acquire(&self, priority: Priority) -> Permit {
        let turn = {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return Permit(Some(Arc::clone(&self.0)));
            }
            let (grant, turn) = oneshot::channel();
            let queue = &mut state.queues[priority as usize];
            if queue.len() == queue.capacity() {
                // Callers that went away are dropped here at the latest, so the queue is as long as its callers.
                queue.retain(|waiting| !waiting.is_closed());
            }
            queue.push_back(grant);
            turn
        };
        // The sender lives in the queue until it grants; the queue lives as long as `self`.
        turn.await.unwrap_or(Permit(None))
    }

    /// Callers that wait now.
    pub fn waiting(&self) -> usize {
        self.0.lock().queues.iter().flatten().filter(|waiting| !waiting.is_closed()).count()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> Option<oneshot::Sender<Permit>> {
        self.granted = self.granted.wrapping_add(1);
        if self.granted.is_multiple_of(FAIR_EVERY) {
            return self.queues.iter_mut().rev().find_map(VecDeque::pop_front);
        }
        self.queues.iter_mut().find_map(VecDeque::pop_front)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(shared) = self.0.take() else { return };
        loop {
            let mut state = shared.lock();
            let Some(next) = state.next() else {
                state.free += 1;
                return;
            };
            drop(state);
            match next.send(Permit(Some(Arc::clone(&shared)))) {
                Ok(()) => return,
                // The caller has left: the place is still ours to give.
                Err(unused) => forget(unused),
            }
        }
    }
}

/// Takes the place out of a permit that nobody received, so that its drop does not give it again.
fn forget(mut permit: Permit) {
    permit.0 = None;
}

#[cfg(test)]
mod tests;
