//! The figures of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What the numbers count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    pub unit: Unit,
    pub values: Vec<f64>,
    pub distribution: bool,
    /// The raw limit that it is a share of.
    pub limit: Option<String>,
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
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Record {
    pub order: Vec<String>,
    pub figures: BTreeMap<String, BTreeMap<String, Figure>>,
    pub limits: BTreeMap<String, f64>,
    pub errors: Vec<String>,
}

impl Record {
    /// Takes over what an earlier run wrote with `--json`: the machine's line of that run.
    pub fn take_over(&mut self, json: &str) -> Result<String> {
        let mut report: serde_json::Value = serde_json::from_str(json)?;
        let earlier: Self = serde_json::from_value(report["record"].take()).context("no record of a run")?;
        for key in earlier.order {
            for (subject, figure) in earlier.figures.get(&key).into_iter().flatten() {
                self.add(subject, &key, figure.clone());
            }
        }
        for (name, micros) in earlier.limits {
            self.limits.entry(name).or_insert(micros);
        }
        self.errors.extend(earlier.errors);
        let machine = &report["machine"];
        let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
        Ok(format!("{}, load {}", text("began"), text("load")))
    }

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
        let limit = limit.map(str::to_owned);
        let figure = Figure { unit: Unit::Micros, values: vec![micros], distribution: false, limit };
        self.record.add(self.subject, key, figure);
    }

    pub fn latencies(&mut self, key: &str, samples: &[Duration]) {
        let values = samples.iter().map(|sample| sample.as_secs_f64() * 1e3).collect();
        let figure = Figure { unit: Unit::Millis, values, distribution: true, limit: None };
        self.record.add(self.subject, key, figure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks_and_rounds_add_up() {
        let mut record = Record::default();
        let mut notes = Notes { record: &mut record, subject: "a" };
        let samples: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        notes.latencies("l", &samples[..50]);
        notes.latencies("l", &samples[50..]);
        notes.one("m", Unit::Mebibytes, 3.0);
        let figure = record.get("l", "a").unwrap();
        let quantiles = [0.0, 0.5, 0.9, 0.99, 1.0].map(|q| figure.quantile(q) as usize);
        assert_eq!(quantiles, [1, 50, 90, 99, 100]);
        assert_eq!(record.order, ["l", "m"]);
        let json =
            serde_json::json!({ "record": record, "machine": { "began": "then", "load": "2" } }).to_string();
        let mut later = Record::default();
        assert_eq!(later.take_over(&json).unwrap(), "then, load 2");
        assert_eq!(later.get("l", "a").unwrap().values.len(), 100);
        assert!(later.take_over("{}").is_err());
    }
}
