//! One database server as a process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::engine::Engine;
use crate::keeper::{Keeper, unprivileged};
use crate::tls::Certificates;
use crate::{mysql, postgres};

/// How long a server may take to answer or to end. Generous: several may start at once on a small machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Another process may take a free port before the server does.
const PORTS_TRIED: usize = 5;

/// A database server on loopback. It ends with its owner.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    port: u16,
    tls: Certificates,
    process: Mutex<Option<Child>>,
    keeper: Keeper,
}

impl Server {
    /// The user that databases belong to.
    pub const USER: &str = "steeple";
    pub const PASSWORD: &str = "p@ss/w:rd";

    /// Makes an empty server and starts it.
    pub fn start_new(engine: Engine) -> Result<Self> {
        Self::launch(engine, |server| match engine {
            Engine::Sqlite => bail!("SQLite has no server"),
            Engine::Postgres => postgres::initialize(server),
            Engine::MariaDb | Engine::MySql => mysql::initialize(server),
        })
    }

    /// A PostgreSQL standby that follows this server.
    pub fn standby(&self) -> Result<Self> {
        if self.engine != Engine::Postgres {
            bail!("{}: standbys are made of PostgreSQL only", self.engine);
        }
        Self::launch(self.engine, |standby| postgres::initialize_standby(standby, self))
    }

    /// Makes a standby the primary.
    pub fn promote(&self) -> Result<()> {
        postgres::promote(self)
    }

    fn launch(engine: Engine, initialize: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let keeper = Keeper::new(engine.name())?;
        let tls_dir = keeper.dir().join("tls");
        std::fs::create_dir(&tls_dir)?;
        let tls = Certificates::write(&tls_dir, Self::USER)?;
        let mut server = Self { engine, port: free_port()?, tls, process: Mutex::new(None), keeper };
        initialize(&server)?;
        for _ in 1..PORTS_TRIED {
            match server.start() {
                Ok(()) => break,
                Err(_) if server.log().contains("already in use") => {
                    server.stop_now();
                    server.port = free_port()?;
                }
                Err(err) => return Err(err),
            }
        }
        server.start()?;
        Ok(server)
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// On 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server offers TLS with these.
    pub fn tls(&self) -> &Certificates {
        &self.tls
    }

    /// Everything the server has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// Starts it if it does not run, and waits until it answers.
    pub fn start(&self) -> Result<()> {
        let mut process = self.process();
        let end = Instant::now() + PATIENCE;
        let mut refusal = String::new();
        while Instant::now() < end {
            if process.is_none() {
                *process = Some(self.spawn()?);
            }
            if let Some(status) = process.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                *process = None;
                // After a kill, what is left of the last one may take a moment to go.
                let log = self.log();
                if !log.lines().rev().take(5).any(|line| line.contains("is still in use")) {
                    bail!("{} ended with {status}; its log:\n{log}", self.engine);
                }
            } else {
                let answer = match self.engine {
                    Engine::Postgres => postgres::query(self, "postgres", "select 1"),
                    _ => mysql::query(self, "", "select 1"),
                };
                match answer {
                    Ok(_) => return Ok(()),
                    Err(err) => refusal = format!("{err:#}"),
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{} does not answer in {PATIENCE:?}: {refusal}; its log:\n{}", self.engine, self.log())
    }

    fn spawn(&self) -> Result<Child> {
        let mut command = match self.engine {
            Engine::Postgres => postgres::command(self)?,
            _ => mysql::command(self)?,
        };
        let log = File::options().create(true).append(true).open(self.log_file())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("{} does not start", self.engine))?;
        self.keeper.watch(child.id())?;
        Ok(child)
    }

    /// Ends it in order; connections are cut.
    pub fn stop(&self) -> Result<()> {
        let signal = match self.engine {
            Engine::Postgres => Signal::INT,
            _ => Signal::TERM,
        };
        let mut process = self.process();
        let Some(child) = process.as_mut() else { return Ok(()) };
        kill_process(pid(child.id())?, signal)?;
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if child.try_wait()?.is_some() {
                *process = None;
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("{} still runs after {PATIENCE:?}", self.engine)
    }

    /// SIGKILL to it and its children, as a machine that loses power.
    pub fn kill(&self) -> Result<()> {
        let mut process = self.process();
        let Some(child) = process.as_mut() else { return Ok(()) };
        signal_all(child.id(), Signal::KILL);
        child.wait()?;
        *process = None;
        Ok(())
    }

    /// SIGSTOP: connections stay open and nothing answers.
    pub fn pause(&self) {
        if let Some(child) = self.process().as_ref() {
            signal_all(child.id(), Signal::STOP);
        }
    }

    /// Ends [`Server::pause`].
    pub fn resume(&self) {
        if let Some(child) = self.process().as_ref() {
            signal_all(child.id(), Signal::CONT);
        }
    }

    /// Statements answered since the server started, this question not counted.
    pub fn statements(&self) -> Result<u64> {
        match self.engine {
            Engine::Postgres => postgres::statements(self),
            _ => mysql::statements(self),
        }
    }

    /// Runs SQL as the server's administrator; rows as lines, columns separated by `|` (tab in MySQL).
    pub fn query(&self, database: &str, sql: &str) -> Result<String> {
        match self.engine {
            Engine::Postgres => postgres::query(self, database, sql),
            _ => mysql::query(self, database, sql),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.keeper.dir().join(name)
    }

    fn log_file(&self) -> PathBuf {
        self.path("server.log")
    }

    fn stop_now(&self) {
        self.kill().ok();
    }

    fn process(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_now();
    }
}

/// Runs an administrative program to its end; its stdout.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} does not start"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// [`run`], not as root, in a folder that user can read.
pub(crate) fn run_unprivileged(
    program: &Path,
    arguments: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<String> {
    let mut command = unprivileged(program);
    run(arguments(&mut command).current_dir("/tmp"))
}

/// To the process's children first: PostgreSQL serves each connection in one.
fn signal_all(parent: u32, signal: Signal) {
    if signal == Signal::KILL {
        // So that it starts no more of them meanwhile.
        pid(parent).and_then(|pid| Ok(kill_process(pid, Signal::STOP)?)).ok();
    }
    let children =
        std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|word| word.parse().ok()).chain([parent]) {
        pid(child).and_then(|pid| Ok(kill_process(pid, signal)?)).ok();
    }
}

fn pid(number: u32) -> Result<Pid> {
    Pid::from_raw(number.cast_signed()).context("0 is no process")
}

/// A port of loopback that nobody has now, below those that the kernel gives to connections: nobody gets it by chance
/// before it is bound. Processes begin at different ones.
pub fn free_port() -> Result<u16> {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    for _ in 0..RANGE {
        let turn = ASKED.fetch_add(1, Ordering::Relaxed);
        let number = FIRST + (std::process::id().wrapping_mul(131).wrapping_add(turn)) % RANGE;
        let port = u16::try_from(number)?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between {FIRST} and {} is free", FIRST + RANGE)
}

const FIRST: u32 = 12_000;
const RANGE: u32 = 20_000;
