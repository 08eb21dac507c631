//! What a process uses, as the kernel counts it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// A server or an agent.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub pid: u32,
}

impl Process {
    /// CPU seconds so far, all threads, user and system.
    pub fn cpu(self) -> Result<f64> {
        // Threads have nanoseconds, but one that ended is not there any more; the process has all of them, in ticks.
        Ok(self.threads()?.max(self.ticks()?))
    }

    fn ticks(self) -> Result<f64> {
        let stat = self.read("stat")?;
        let (_, fields) = stat.rsplit_once(')').context("no stat")?;
        // `utime` and `stime` in ticks of 1/100 s (`CONFIG_HZ` does not matter to userspace).
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? * TICK)
    }

    fn threads(self) -> Result<f64> {
        let mut sum = 0.0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let Ok(schedstat) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum += nanoseconds(&schedstat);
        }
        Ok(sum)
    }

    /// Resident memory, and its highest, in MiB.
    pub fn memory(self) -> Result<Memory> {
        let status = self.read("status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
            kib.map(|kib| kib / 1024.0).with_context(|| format!("no {name} of process {}", self.pid))
        };
        Ok(Memory { rss: field("VmRSS")?, peak: field("VmHWM")? })
    }

    fn read(self, name: &str) -> Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.pid))
            .with_context(|| format!("process {} has gone", self.pid))
    }
}

/// Of `/proc/PID/stat`, in seconds.
const TICK: f64 = 0.01;

/// MiB.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub rss: f64,
    pub peak: f64,
}

/// CPU and time from its making on.
#[derive(Debug)]
pub struct Window {
    process: Process,
    threads: f64,
    ticks: f64,
    begin: Instant,
}

impl Window {
    pub fn open(process: Process) -> Result<Self> {
        Ok(Self { process, threads: process.threads()?, ticks: process.ticks()?, begin: Instant::now() })
    }

    /// CPU seconds since: those of the threads that are there, unless some ended meanwhile and the ticks tell more.
    pub fn cpu(&self) -> Result<f64> {
        let threads = self.process.threads()? - self.threads;
        Ok(threads.max(self.process.ticks()? - self.ticks - TICK))
    }

    /// CPU microseconds for each of `operations`.
    pub fn micros(&self, operations: usize) -> Result<f64> {
        Ok(self.cpu()? * 1e6 / operations.max(1) as f64)
    }

    pub fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Percent of one core.
    pub fn share(&self) -> Result<f64> {
        Ok(self.cpu()? * 100.0 / self.elapsed().as_secs_f64())
    }
}

/// CPU of one thread of this process: for the raw limits.
#[derive(Clone, Debug)]
pub struct Thread {
    schedstat: String,
}

impl Thread {
    pub fn current() -> Result<Self> {
        let link = std::fs::read_link("/proc/thread-self")?;
        Ok(Self { schedstat: format!("/proc/{}/schedstat", link.display()) })
    }

    /// Seconds so far.
    pub fn cpu(&self) -> Result<f64> {
        Ok(nanoseconds(&std::fs::read_to_string(&self.schedstat)?))
    }
}

fn nanoseconds(schedstat: &str) -> f64 {
    schedstat.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

/// As many files as the system allows: thousands of connections, here and in what is started from here.
pub fn raise_file_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
