//! What the writing thread does: transactions, looks for others' commits, and finding its way back to a database
//! server that was away.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use steeple_datastore::{Change, Error, Logged, Result, Revision};
use tokio::sync::watch;

use super::Write;
use crate::changes::{self, Tx};
use crate::config::Server;
use crate::conn::{Conn, Dialect, Purpose};
use crate::error::Fault;
use crate::foreign::{self, State};
use crate::notify::{self, Listener};
use crate::watermark::{self, Watermark};

/// How often a transaction runs that the engine undid.
const TRIES: usize = 5;

/// How often others' writes are looked for while something happens, where nobody tells of them; and for how many looks.
const LIVELY: Duration = Duration::from_millis(40);
const LIVELY_LOOKS: u32 = 125;

/// Where the log stands, as this server last saw it.
pub(crate) struct Log {
    pub head: watch::Sender<Revision>,
    pub id: Mutex<String>,
    unread: Mutex<Unread>,
}

/// What this server wrote last and its follower has not read yet: it need not ask the database for it.
#[derive(Default)]
struct Unread {
    log_id: String,
    /// Without gaps.
    changes: VecDeque<Logged>,
}

/// More wait in the database.
const MAX_UNREAD: usize = 512;

impl Log {
    pub fn new(id: String, head: Revision) -> Arc<Self> {
        Arc::new(Self { head: watch::Sender::new(head), id: Mutex::new(id), unread: Mutex::default() })
    }

    /// Keeps what was committed, up to `head`, for [`Log::take`].
    fn keep(&self, log_id: &str, head: Revision, changes: Vec<Change>) {
        let mut unread = self.unread();
        let first = head.0 + 1 - changes.len() as u64;
        let follows = unread.changes.back().is_some_and(|last| last.revision.0 + 1 == first);
        if !follows || unread.log_id != log_id {
            *unread = Unread { log_id: log_id.to_owned(), changes: VecDeque::new() };
        }
        let changes = (first..).map(Revision).zip(changes);
        unread.changes.extend(changes.map(|(revision, change)| Logged { revision, change }));
        if unread.changes.len() > MAX_UNREAD {
            *unread = Unread::default();
        }
    }

    /// All of the log after a revision, if it is kept here. It is told once: who asks again asks the database.
    pub fn take(&self, log_id: &str, after: Revision, limit: usize) -> Option<Vec<Logged>> {
        let mut unread = self.unread();
        let first = unread.changes.partition_point(|logged| logged.revision <= after);
        unread.changes.drain(..first);
        let whole = unread.changes.front()?.revision.0 == after.0 + 1
            && unread.changes.back()?.revision == *self.head.borrow();
        let known = whole && unread.log_id == log_id && unread.changes.len() <= limit;
        known.then(|| std::mem::take(&mut unread.changes).into())
    }

    fn unread(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn id(&self) -> String {
        self.id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another server committed a revision.
    pub fn rise(&self, id: &str, head: Revision) {
        if self.id() == id {
            self.head.send_if_modified(|seen| *seen < head && std::mem::replace(seen, head) != head);
        }
    }

    /// Where the log stands after others may have written unnoticed. Under another id it is another log, which its
    /// follower has to find out.
    pub fn listens(&self, id: &str, head: Revision) {
        if self.id() == id {
            self.rise(id, head);
        } else {
            self.head.send_modify(|_| {});
        }
    }

    fn is(&self, id: String, head: Revision) -> bool {
        *self.id.lock().unwrap_or_else(PoisonError::into_inner) = id;
        self.head.send_if_modified(|seen| std::mem::replace(seen, head) != head)
    }
}

/// The writer's state.
pub(crate) struct Worker {
    pub conn: Conn,
    /// How to connect again; none for SQLite.
    pub server: Option<Server>,
    /// Beside a SQLite file.
    pub watermark: Option<Watermark>,
    pub log: Arc<Log>,
    /// Tells of other servers' commits.
    #[allow(dead_code, reason = "it listens until it is dropped")]
    pub listener: Option<Listener>,
    /// SQLite's.
    pub data_version: i64,
    pub poll: Duration,
    pub lively: u32,
    pub complained: bool,
}

/// Why a transaction was not committed.
struct Lost {
    error: Error,
    /// It may run again: nothing of it was committed.
    again: bool,
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self { error, again: false }
    }
}

/// A transaction that is ready to be committed: what the log is after it.
struct Filled {
    head: Revision,
    log_id: String,
    data_version: i64,
    /// What brought the log to its head; none if only others wrote.
    changes: Vec<Change>,
}

impl Worker {
    pub fn conn(&self) -> &Conn {
        &self.conn
    }

    /// How long to wait for work before the next look around.
    pub fn interval(&self) -> Duration {
        if self.lively > 0 { LIVELY } else { self.poll }
    }

    pub fn is_away(&self) -> bool {
        self.conn.fault() == Some(Fault::Broken)
    }

    /// Closes the database.
    pub fn close(self) {
        self.conn.close();
    }

    pub fn write(&mut self, mut batch: Vec<Box<dyn Write>>) {
        let mut lost = None;
        for _ in 0..TRIES {
            match self.transaction(&mut batch) {
                Ok(()) => {
                    lost = None;
                    break;
                }
                Err(Lost { error, again }) => {
                    self.undo();
                    lost = Some(error);
                    if !again {
                        break;
                    }
                }
            }
        }
        if let Some(error) = &lost {
            tracing::error!(subsystem_name = "sql", %error, "Datastore write failed");
        }
        for mut request in batch {
            request.answer(lost.as_ref());
        }
    }

    /// One transaction for all requests. `Err`: nothing was committed, or nobody knows.
    fn transaction(&mut self, batch: &mut [Box<dyn Write>]) -> std::result::Result<(), Lost> {
        // What cannot be reached now is not tried again at once.
        self.connect()?;
        match self.fill(batch) {
            Ok(Some(filled)) => match self.conn.commit() {
                Ok(()) => self.committed(filled),
                Err(error) => return Err(self.not_committed(error)),
            },
            Ok(None) => {}
            Err(error) => return Err(Lost { error, again: self.conn.fault().is_some() }),
        }
        Ok(())
    }

    /// All of a transaction but its end; none if there is nothing to commit.
    fn fill(&mut self, batch: &mut [Box<dyn Write>]) -> Result<Option<Filled>> {
        self.conn.begin()?;
        let data_version = self.conn.data_version()?;
        let mut tx = Tx::new(&self.conn);
        let before = if self.server.is_some() { Some(self.lock()?) } else { None };
        let others = match &before {
            Some(state) => state.pending,
            None => data_version != self.data_version,
        };
        if others {
            foreign::reconcile(&mut tx)?;
        }
        let alone = batch.len() == 1 && !others && before.is_none();
        for request in batch {
            if alone {
                if !request.run(&mut tx) {
                    self.undo();
                    return Ok(None);
                }
                continue;
            }
            let mark = tx.mark();
            tx.conn.control("SAVEPOINT request")?;
            let kept = request.run(&mut tx);
            if let Some(fault) = tx.conn.fault() {
                return Err(Error::Unavailable(format!("the database undid the transaction ({fault:?})")));
            }
            if tx.conn.is_idle() {
                // Disk full and the like end the whole transaction.
                return Err(Error::Unavailable("the transaction was rolled back by the database".into()));
            }
            if !kept {
                tx.conn.control("ROLLBACK TO SAVEPOINT request")?;
                tx.forget(mark);
            }
            tx.conn.control("RELEASE SAVEPOINT request")?;
        }
        let head = tx.number()?;
        let changes = if head.is_some() { tx.into_changes() } else { Vec::new() };
        if self.conn.dialect() == Dialect::Postgres
            && let (Some(head), Some(state)) = (head, &before)
        {
            notify::tell(&self.conn, &state.log_id, head)?;
        }
        let head = match head {
            Some(head) => head,
            None if others => changes::head(&self.conn)?,
            None => before.as_ref().map_or_else(|| *self.log.head.borrow(), |state| state.head),
        };
        let log_id = before.map_or_else(|| self.log.id(), |state| state.log_id);
        Ok(Some(Filled { head, log_id, data_version, changes }))
    }

    /// Takes the log's lock: other servers write after us.
    fn lock(&self) -> Result<State> {
        self.conn.first("SELECT id FROM steeple_meta FOR UPDATE", &[], |row| row.int(0))?;
        let state = foreign::state(&self.conn)?;
        let seen = *self.log.head.borrow();
        if state.log_id != self.log.id() || state.head >= seen {
            return Ok(state);
        }
        // A standby that lagged has become the primary, or the database was restored under us.
        tracing::warn!(
            subsystem_name = "sql",
            seen = seen.0,
            found = state.head.0,
            "The database went back to an older state: its change log starts anew"
        );
        changes::renew(&self.conn, seen)?;
        foreign::state(&self.conn)
    }

    /// An engine that answers has not committed; one that does not may have.
    fn not_committed(&self, error: Error) -> Lost {
        match self.conn.fault() {
            Some(Fault::Aborted) => Lost { error, again: true },
            Some(Fault::Broken) => Lost {
                error: Error::Unavailable(format!(
                    "{error}; whether the write was stored is not known, look before you repeat it"
                )),
                again: false,
            },
            None => Lost { error, again: false },
        }
    }

    fn undo(&self) {
        if !self.conn.is_idle() && !self.is_away() {
            // The engine may have rolled back by itself; if it did not, it must now.
            let _ = self.conn.rollback();
        }
    }

    /// Tells followers.
    fn committed(&mut self, Filled { head, log_id, data_version, changes }: Filled) {
        self.data_version = data_version;
        if !changes.is_empty() {
            self.log.keep(&log_id, head, changes);
        }
        if let Some(watermark) = &mut self.watermark {
            watermark.note(head);
        }
        self.follow(log_id, head);
    }

    fn follow(&mut self, id: String, head: Revision) {
        let moved = self.log.is(id, head);
        if moved && self.conn.dialect() == Dialect::MySql {
            self.lively = LIVELY_LOOKS;
        }
    }

    /// Notices what other connections committed, and logs it if they do not log themselves.
    pub fn look_around(&mut self) {
        self.lively = self.lively.saturating_sub(1);
        let was_away = self.is_away();
        let mut looked = self.try_look_around();
        if !was_away && self.is_away() {
            // Only the connection was lost, perhaps.
            looked = self.try_look_around();
        }
        match looked {
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
        self.connect()?;
        let data_version = self.conn.data_version()?;
        if self.conn.dialect() == Dialect::Sqlite && data_version == self.data_version {
            return Ok(());
        }
        let state = foreign::state(&self.conn)?;
        let went_back = state.log_id == self.log.id() && state.head < *self.log.head.borrow();
        if state.pending || (went_back && self.server.is_some()) {
            return self.transaction(&mut []).map_err(|lost| {
                self.undo();
                lost.error
            });
        }
        self.data_version = data_version;
        if let Some(watermark) = &mut self.watermark {
            watermark.note(state.head);
        }
        self.follow(state.log_id, state.head);
        Ok(())
    }

    /// Connects again if the connection broke.
    fn connect(&mut self) -> Result<()> {
        let Some(server) = self.server.as_ref().filter(|_| self.is_away()) else { return Ok(()) };
        let conn = Conn::connect(server, Purpose::Write)?;
        conn.begin()?;
        watermark::notice_move(&conn, *self.log.head.borrow())?;
        conn.commit()?;
        tracing::info!(subsystem_name = "sql", database = server.place(), "Connected to SQL database again");
        self.conn = conn;
        Ok(())
    }
}
