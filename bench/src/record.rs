//! The figures of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// What the numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// CPU or wall microseconds.
    #[serde(rename = "us")]
    Micros,
    #[serde(rename = "ms")]
    Millis,
    #[serde(rename = "MiB")]
    Mebibytes,
    /// Of one core.
    #[serde(rename = "%")]
    Percent,
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "x")]
    Times,
}

impl Unit {
    pub fn text(self) -> &'static str {
        match self {
            Self::Micros => "µs",
            Self::Millis => "ms",
            Self::Mebibytes => "MiB",
            Self::Percent => "%",
            Self::Seconds => "s",
            Self::Times => "×",
        }
    }
}

/// One figure of one subject. A distribution has one value for each operation, another figure one for each round.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    pub unit: Unit,
    pub values: Vec<f64>,
    pub distribution: bool,
    /// The raw limit that it is a share of.
    pub limit: Option<&'static str>,
}

impl Figure {
    /// Nearest rank.
    pub fn quantile(&self, q: f64) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1));
        sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
    }

    /// The figure in one number.
    pub fn middle(&self) -> f64 {
        self.quantile(0.5)
    }
}

/// Figures in the order they came, by key and subject.
#[derive(Debug, Default, Serialize)]
pub struct Record {
    pub order: Vec<String>,
    pub figures: BTreeMap<String, BTreeMap<String, Figure>>,
    pub limits: BTreeMap<&'static str, f64>,
    pub errors: Vec<String>,
}

impl Record {
    pub fn get(&self, key: &str, subject: &str) -> Option<&Figure> {
        self.figures.get(key)?.get(subject)
    }

    fn add(&mut self, subject: &str, key: &str, mut figure: Figure) {
        if !self.figures.contains_key(key) {
            self.order.push(key.to_owned());
        }
        let of = self.figures.entry(key.to_owned()).or_default();
        match of.get_mut(subject) {
            Some(there) => there.values.append(&mut figure.values),
            None => {
                of.insert(subject.to_owned(), figure);
            }
        }
    }
}

/// Where a scenario puts the figures of the subject it runs on.
#[derive(Debug)]
pub struct Notes<'a> {
    pub record: &'a mut Record,
    pub subject: &'a str,
}

impl Notes<'_> {
    pub fn one(&mut self, key: &str, unit: Unit, value: f64) {
        self.record.add(
            self.subject,
            key,
            Figure { unit, values: vec![value], distribution: false, limit: None },
        );
    }

    /// CPU microseconds an operation, and the raw limit (a key of [`Record::limits`]) that it cannot go below.
    pub fn cpu(&mut self, key: &str, micros: f64, limit: Option<&'static str>) {
        let figure = Figure { unit: Unit::Micros, values: vec![micros], distribution: false, limit };
        self.record.add(self.subject, key, figure);
    }

    pub fn latencies(&mut self, key: &str, samples: &[Duration]) {
        let values = samples.iter().map(|sample| sample.as_secs_f64() * 1e3).collect();
        let figure = Figure { unit: Unit::Millis, values, distribution: true, limit: None };
        self.record.add(self.subject, key, figure);
    }
}
