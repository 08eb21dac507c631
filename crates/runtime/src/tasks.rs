//! Tasks with names, whose end means something. The only place that spawns.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Display,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio::sync::watch;

use crate::shutdown::Shutdown;

/// What it means when a task ends while the program is meant to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEnd {
    /// An error is logged; the program goes on.
    Log,
    /// The program cannot go on without it: drain and exit non-zero.
    Shutdown,
}

/// What a task may return: `()` or `Result<(), impl Display>`.
pub trait TaskOutput: Send + 'static {
    fn into_error(self) -> Option<String>;
}

impl TaskOutput for () {
    fn into_error(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send + 'static> TaskOutput for Result<(), E> {
    fn into_error(self) -> Option<String> {
        self.err().map(|err| format!("{err:#}"))
    }
}

/// Tasks that stop together. Clones are the same group.
#[derive(Debug, Clone)]
pub struct TaskGroup {
    shutdown: Shutdown,
    running: Arc<Running>,
}

#[derive(Debug, Default)]
struct Running {
    tasks: Mutex<Tasks>,
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Tasks {
    next: u64,
    live: BTreeMap<u64, (Cow<'static, str>, Option<tokio::task::AbortHandle>)>,
}

/// How a drain ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Drained {
    Clean,
    /// These were still running and were aborted.
    Aborted(Vec<String>),
}

impl TaskGroup {
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, running: Arc::default() }
    }

    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs `task`. It should watch [`shutdown`](Self::shutdown) and end after a stop is requested; [`drain`](Self::drain)
    /// aborts what does not. A panic counts as an error.
    pub fn spawn<F>(&self, name: impl Into<Cow<'static, str>>, on_end: OnEnd, task: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        let name = name.into();
        let id = self.running.enter(name.clone());
        let left = Left { running: self.running.clone(), id };
        let guarded = self.guarded(name, on_end, task);
        let handle = start(async move {
            let _left = left;
            guarded.await;
        });
        self.running.set_handle(id, handle);
    }

    /// Runs `task` for as long as the program lives, also while it drains: [`drain`](Self::drain) neither waits for it
    /// nor ends it.
    pub fn spawn_through_drain<F>(&self, name: impl Into<Cow<'static, str>>, on_end: OnEnd, task: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        start(self.guarded(name.into(), on_end, task));
    }

    /// `task`, and what its end means.
    fn guarded<F>(
        &self,
        name: Cow<'static, str>,
        on_end: OnEnd,
        task: F,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        let shutdown = self.shutdown.clone();
        async move {
            let outcome = std::panic::AssertUnwindSafe(task).catch_unwind().await;
            let error = match outcome {
                Ok(output) => output.into_error(),
                Err(panic) => Some(format!("panicked: {}", panic_message(&*panic))),
            };
            ended(&shutdown, &name, on_end, error);
        }
    }

    /// Runs `task` until it ends or a stop is requested.
    pub fn spawn_until_shutdown<F>(&self, name: impl Into<Cow<'static, str>>, on_end: OnEnd, task: F)
    where
        F: Future + Send + 'static,
        F::Output: TaskOutput,
    {
        let requested = self.shutdown.requested();
        self.spawn(name, on_end, async move {
            tokio::select! {
                output = task => output.into_error().map_or(Ok(()), Err),
                () = requested => Ok(()),
            }
        });
    }

    /// Names of the tasks that run.
    pub fn names(&self) -> Vec<String> {
        self.running.tasks().live.values().map(|(name, _)| name.to_string()).collect()
    }

    /// Waits until every task has ended, at most `deadline` and no longer than until [`Shutdown::aborted`]; then aborts
    /// the rest. Call it after a stop is requested.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        let mut count = self.running.count.subscribe();
        tokio::select! {
            _ = count.wait_for(|count| *count == 0) => return Drained::Clean,
            () = self.shutdown.aborted() => {}
            () = tokio::time::sleep(deadline) => {}
        }
        let names = self.names();
        for (_, handle) in self.running.tasks().live.values() {
            if let Some(handle) = handle {
                handle.abort();
            }
        }
        if names.is_empty() { Drained::Clean } else { Drained::Aborted(names) }
    }
}

impl Running {
    fn tasks(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, name: Cow<'static, str>) -> u64 {
        let mut tasks = self.tasks();
        let id = tasks.next;
        tasks.next += 1;
        tasks.live.insert(id, (name, None));
        self.count.send_replace(tasks.live.len());
        id
    }

    fn set_handle(&self, id: u64, handle: tokio::task::AbortHandle) {
        // A task that has ended already is no longer there.
        if let Some(task) = self.tasks().live.get_mut(&id) {
            task.1 = Some(handle);
        }
    }
}

/// Takes a task off the list, however it ends.
struct Left {
    running: Arc<Running>,
    id: u64,
}

impl Drop for Left {
    fn drop(&mut self) {
        let mut tasks = self.running.tasks();
        tasks.live.remove(&self.id);
        self.running.count.send_replace(tasks.live.len());
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the place that spawns")]
fn start(task: impl Future<Output = ()> + Send + 'static) -> tokio::task::AbortHandle {
    tokio::spawn(task).abort_handle()
}

fn ended(shutdown: &Shutdown, name: &str, on_end: OnEnd, error: Option<String>) {
    match (on_end, error) {
        (OnEnd::Log, Some(error)) => tracing::error!(task = name, error, "Task failed"),
        (OnEnd::Shutdown, Some(error)) => {
            tracing::error!(task = name, error, "Task failed; stopping");
            shutdown.fail(format!("{name}: {error}"));
        }
        (OnEnd::Shutdown, None) if !shutdown.is_requested() => {
            tracing::error!(task = name, "Task ended; stopping");
            shutdown.fail(format!("{name} ended"));
        }
        (_, None) => {}
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown cause")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_needed_task_stops_the_program() {
        let group = TaskGroup::new(Shutdown::new());
        group.spawn("needed", OnEnd::Shutdown, async { Err::<(), _>("broken") });
        group.shutdown().requested().await;
        assert_eq!(group.shutdown().reason().as_deref(), Some("needed: broken"));
        assert!(group.shutdown().has_failed());
        assert_eq!(group.drain(Duration::from_secs(5)).await, Drained::Clean);
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let group = TaskGroup::new(Shutdown::new());
        group.spawn("clumsy", OnEnd::Shutdown, async {
            assert!(std::env::args().count() == 0, "tripped");
        });
        group.shutdown().requested().await;
        assert_eq!(group.shutdown().reason().as_deref(), Some("clumsy: panicked: tripped"));
    }

    #[tokio::test]
    async fn a_stop_is_no_failure_and_drains() {
        let group = TaskGroup::new(Shutdown::new());
        let requested = group.shutdown().requested();
        group.spawn("polite", OnEnd::Shutdown, requested);
        group.spawn_until_shutdown("endless", OnEnd::Shutdown, std::future::pending::<()>());
        assert_eq!(group.names(), ["polite", "endless"]);
        group.shutdown().request("test");
        assert_eq!(group.drain(Duration::from_secs(5)).await, Drained::Clean);
        assert!(!group.shutdown().has_failed());
    }

    #[tokio::test]
    async fn some_tasks_live_through_the_drain() {
        let group = TaskGroup::new(Shutdown::new());
        let (ask, asked) = tokio::sync::oneshot::channel::<()>();
        let (answer, answered) = tokio::sync::oneshot::channel();
        group.spawn_through_drain("watchful", OnEnd::Log, async move {
            let _ = asked.await;
            let _ = answer.send("still here");
        });
        group.shutdown().request("test");
        assert_eq!(group.drain(Duration::from_secs(5)).await, Drained::Clean);
        ask.send(()).unwrap();
        assert_eq!(answered.await, Ok("still here"));
    }

    #[tokio::test]
    async fn a_second_request_aborts_the_stubborn() {
        let group = TaskGroup::new(Shutdown::new());
        group.spawn("stubborn", OnEnd::Log, std::future::pending::<()>());
        group.shutdown().request("test");
        group.shutdown().abort("again");
        assert_eq!(group.drain(Duration::from_secs(5)).await, Drained::Aborted(vec!["stubborn".to_owned()]));
    }
}
