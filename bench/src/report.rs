//! The figures for people and for programs.

mod html;
mod sizing;
mod svg;
mod table;

use anyhow::Result;
use serde::Serialize;

use crate::record::Record;
use crate::targets::{self, Verdict};

pub use html::html;
pub use sizing::sizing;
pub use table::{markdown, text};

/// Where the run took place, named by what matters.
#[derive(Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub kernel: String,
    pub memory_gib: u64,
    pub began: String,
    /// How many others wanted to run on average over the minute before it began.
    pub load: String,
    /// Of earlier runs whose figures are here too (`--with`).
    pub earlier: Vec<String>,
}

impl Machine {
    pub fn here() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease").trim().chars().take_while(|c| *c != '-').collect();
        let kib = read("/proc/meminfo").lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        let date = std::process::Command::new("date").args(["-u", "+%F %H:%M UTC"]).output();
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel,
            memory_gib: kib.unwrap_or(0) >> 20,
            began: date
                .map(|date| String::from_utf8_lossy(&date.stdout).trim().to_owned())
                .unwrap_or_default(),
            load: read("/proc/loadavg").split_whitespace().next().unwrap_or_default().to_owned(),
            earlier: Vec::new(),
        }
    }

    pub fn text(&self) -> String {
        let Self { cores, kernel, memory_gib, began, load, earlier } = self;
        let mut runs = earlier.clone();
        runs.push(format!("{began}, load {load}"));
        format!("{cores} cores, {memory_gib} GiB, Linux {kernel}; begun {}", runs.join("; "))
    }
}

/// All that a run found.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub machine: &'a Machine,
    /// In the order of the command line: the first is judged, the second is what it is judged by.
    pub subjects: &'a [String],
    pub record: &'a Record,
    pub verdicts: Vec<(String, Option<Verdict>)>,
}

impl<'a> Report<'a> {
    pub fn new(machine: &'a Machine, subjects: &'a [String], record: &'a Record) -> Self {
        let verdicts = match subjects {
            [ours, spire, ..] => targets::judge(record, ours, spire)
                .into_iter()
                .map(|(target, verdict)| (target.what.to_owned(), verdict))
                .collect(),
            _ => Vec::new(),
        };
        Self { machine, subjects, record, verdicts }
    }

    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}

/// Three digits that mean something.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "-".to_owned(),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}
