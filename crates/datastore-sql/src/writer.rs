//! The one thread that writes. Requests that wait together become one transaction, each in a savepoint of its own, and
//! are answered after the commit. Between requests it looks for what others committed.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use steeple_datastore::{Error, Result, Revision};
use tokio::sync::{Semaphore, oneshot, watch};

use crate::changes::{self, Tx};
use crate::conn::Conn;
use crate::foreign;
use crate::watermark::Watermark;

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
    pub fn start(
        conn: Conn,
        watermark: Option<Watermark>,
        poll: Duration,
        head: watch::Sender<Revision>,
        data_version: i64,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let worker = Worker { conn, watermark, queue, head, data_version, complained: false };
        std::thread::Builder::new().name("datastore-writer".into()).spawn(move || worker.run(poll))?;
        Ok(Self { jobs, places: Arc::new(Semaphore::new(QUEUE)) })
    }

    /// Runs `op` in a write transaction. It is durable when this answers `Ok`. An `Err` of `op` undoes what it did.
    pub async fn write<T, F>(&self, op: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Write(Box::new(Request { op: Some(op), result: None, reply: Some(reply) })), answer)
            .await?
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
trait Write: Send {
    /// Says whether it is to be kept.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// `lost`: why what it did was not committed.
    fn answer(&mut self, lost: Option<&Error>);
}

struct Request<T, F> {
    op: Option<F>,
    result: Option<Result<T>>,
    reply: Option<oneshot::Sender<Result<T>>>,
}

impl<T, F> Write for Request<T, F>
where
    T: Send,
    F: FnOnce(&mut Tx<'_>) -> Result<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        self.result = self.op.take().map(|op| op(tx));
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

struct Worker {
    conn: Conn,
    watermark: Option<Watermark>,
    queue: Receiver<Job>,
    head: watch::Sender<Revision>,
    data_version: i64,
    complained: bool,
}

impl Worker {
    fn run(mut self, poll: Duration) {
        loop {
            let job = match self.queue.recv_timeout(poll) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => {
                    self.look_around();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(done) = self.take(job) {
                drop(self);
                let _ = done.send(());
                return;
            }
        }
    }

    /// Runs a job, and the writes that wait behind it.
    fn take(&mut self, job: Job) -> Option<oneshot::Sender<()>> {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            match job {
                Job::Close(done) => return Some(done),
                Job::Read(read) => read(&self.conn),
                Job::Write(first) => {
                    let mut batch = vec![first];
                    while batch.len() < BATCH {
                        match self.queue.try_recv() {
                            Ok(Job::Write(write)) => batch.push(write),
                            Ok(other) => {
                                next = Some(other);
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                    self.write(batch);
                }
            }
        }
        None
    }

    fn write(&mut self, mut batch: Vec<Box<dyn Write>>) {
        let lost = self.transaction(&mut batch).err();
        if let Some(error) = &lost {
            tracing::error!(subsystem_name = "sql", %error, "Datastore write failed");
            if !self.conn.is_idle() {
                // The engine may have rolled back by itself; if it did not, it must now.
                let _ = self.conn.script("ROLLBACK");
            }
        }
        for mut request in batch {
            request.answer(lost.as_ref());
        }
    }

    /// One transaction for all requests. `Err`: nothing was committed.
    fn transaction(&mut self, batch: &mut [Box<dyn Write>]) -> Result<()> {
        self.conn.exec("BEGIN IMMEDIATE", &[])?;
        let data_version = self.conn.data_version()?;
        let others = data_version != self.data_version;
        let mut tx = Tx::new(&self.conn);
        if others {
            foreign::reconcile(&mut tx)?;
        }
        let alone = batch.len() == 1 && !others;
        for request in batch {
            if alone {
                if !request.run(&mut tx) {
                    return self.undo();
                }
                continue;
            }
            let mark = tx.mark();
            tx.conn.exec("SAVEPOINT request", &[])?;
            let kept = request.run(&mut tx);
            if self.conn.is_idle() {
                // Disk full and the like end the whole transaction.
                return Err(Error::Unavailable("the transaction was rolled back by the database".into()));
            }
            if !kept {
                tx.conn.exec("ROLLBACK TO request", &[])?;
                tx.forget(mark);
            }
            tx.conn.exec("RELEASE request", &[])?;
        }
        let mut head = tx.number()?;
        if others && head.is_none() {
            head = Some(changes::head(&self.conn)?);
        }
        self.conn.exec("COMMIT", &[])?;
        self.committed(head, data_version);
        Ok(())
    }

    /// Ends a transaction whose only request failed; that is its answer.
    fn undo(&self) -> Result<()> {
        if self.conn.is_idle() { Ok(()) } else { self.conn.script("ROLLBACK") }
    }

    /// Tells followers.
    fn committed(&mut self, head: Option<Revision>, data_version: i64) {
        self.data_version = data_version;
        if let Some(head) = head {
            if let Some(watermark) = &mut self.watermark {
                watermark.note(head);
            }
            self.head.send_if_modified(|seen| std::mem::replace(seen, head) != head);
        }
    }

    /// Notices what other connections committed, and logs it if they do not log themselves.
    fn look_around(&mut self) {
        match self.try_look_around() {
            Ok(()) => self.complained = false,
            // The database may be away for long: once is enough.
            Err(error) if !self.complained => {
                self.complained = true;
                tracing::warn!(subsystem_name = "sql", %error, "Cannot look for other servers' writes; will keep trying");
            }
            Err(_) => {}
        }
    }

    fn try_look_around(&mut self) -> Result<()> {
        let data_version = self.conn.data_version()?;
        if data_version == self.data_version {
            return Ok(());
        }
        if foreign::is_pending(&self.conn)? {
            return match self.transaction(&mut []) {
                Ok(()) => Ok(()),
                Err(error) => {
                    if !self.conn.is_idle() {
                        let _ = self.conn.script("ROLLBACK");
                    }
                    Err(error)
                }
            };
        }
        let head = changes::head(&self.conn)?;
        self.committed(Some(head), data_version);
        Ok(())
    }
}
