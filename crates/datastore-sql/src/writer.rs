//! The one thread that writes. Requests that wait together become one transaction, each in a savepoint of its own, and
//! are answered after the commit. Between requests it looks for what others committed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use steeple_datastore::{Error, Result};
use tokio::sync::{Semaphore, oneshot};

pub(crate) use self::worker::{Log, Worker};
use crate::changes::Tx;
use crate::conn::Conn;

mod worker;

/// Requests in one transaction at most, so that the first does not wait for a crowd.
const BATCH: usize = 128;

/// Requests that wait at most; more callers wait for a place.
const QUEUE: usize = 4096;

enum Job {
    Write(Box<dyn Write>),
    Read(Box<dyn FnOnce(&Conn) + Send>),
    Close(oneshot::Sender<()>),
}

/// Handle to the writing thread. The thread ends when its handle is dropped and its queue is empty.
pub(crate) struct Writer {
    jobs: Sender<Job>,
    places: Arc<Semaphore>,
}

impl Writer {
    /// Starts the thread on a connection that is set up.
    pub fn start(worker: Worker) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        std::thread::Builder::new().name("datastore-writer".into()).spawn(move || run(worker, &queue))?;
        Ok(Self { jobs, places: Arc::new(Semaphore::new(QUEUE)) })
    }

    /// Runs `op` in a write transaction, again if the engine undid it. It is durable when this answers `Ok`. An `Err` of
    /// `op` undoes what it did.
    pub async fn write<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Write(Box::new(Request { op, result: None, reply: Some(reply) })), answer).await?
    }

    /// Runs `op` on the writer's connection, between writes: for databases that only it can see.
    pub async fn read<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Conn) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Job::Read(Box::new(move |conn| {
            let _ = reply.send(op(conn));
        }));
        self.send(job, answer).await?
    }

    /// Closes the connection; later requests fail.
    pub async fn close(&self) {
        let (done, answer) = oneshot::channel();
        let _ = self.send(Job::Close(done), answer).await;
    }

    async fn send<T>(&self, job: Job, answer: oneshot::Receiver<T>) -> Result<T> {
        let closed = || Error::Unavailable("the datastore is closed".into());
        let _place = self.places.acquire().await.map_err(|_| closed())?;
        self.jobs.send(job).map_err(|_| closed())?;
        answer.await.map_err(|_| closed())
    }
}

/// A write and who waits for it.
pub(crate) trait Write: Send {
    /// Says whether it is to be kept.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// `lost`: why what it did was not committed.
    fn answer(&mut self, lost: Option<&Error>);
}

struct Request<T, F> {
    op: F,
    result: Option<Result<T>>,
    reply: Option<oneshot::Sender<Result<T>>>,
}

impl<T, F> Write for Request<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        self.result = Some((self.op)(tx));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(&mut self, lost: Option<&Error>) {
        let result = match (self.result.take(), lost) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(_)) | None, Some(lost)) => Err(Error::Unavailable(reason(lost))),
            (Some(Ok(value)), None) => Ok(value),
            (None, None) => Err(Error::Internal("request was not run".into())),
        };
        if let Some(reply) = self.reply.take() {
            // Who asked may have gone; the write stays.
            let _ = reply.send(result);
        }
    }
}

/// The text of an error without our prefix.
fn reason(error: &Error) -> String {
    let text = error.to_string();
    text.strip_prefix("datastore-sql: ").unwrap_or(&text).to_owned()
}

fn run(mut worker: Worker, queue: &Receiver<Job>) {
    loop {
        let job = match queue.recv_timeout(worker.interval()) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                worker.look_around();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return worker.close(),
        };
        if let Some(done) = take(&mut worker, queue, job) {
            worker.close();
            let _ = done.send(());
            return;
        }
    }
}

/// Runs a job, and the writes that wait behind it.
fn take(worker: &mut Worker, queue: &Receiver<Job>, job: Job) -> Option<oneshot::Sender<()>> {
    let mut next = Some(job);
    while let Some(job) = next.take() {
        match job {
            Job::Close(done) => return Some(done),
            Job::Read(read) => read(worker.conn()),
            Job::Write(first) => {
                let mut batch = vec![first];
                // While the database is away all that wait are answered at once.
                while batch.len() < BATCH || worker.is_away() {
                    match queue.try_recv() {
                        Ok(Job::Write(write)) => batch.push(write),
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                worker.write(batch);
            }
        }
    }
    None
}
