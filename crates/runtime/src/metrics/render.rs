//! Prometheus' text format.

use std::{collections::BTreeMap, fmt::Write, sync::atomic::Ordering};

use super::{
    registry::{Families, Series},
    summary::QUANTILES,
};

/// `a="1",b="2"`.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{name}=\"{value}\"");
    }
    text
}

pub(super) fn render(families: &Families) -> String {
    let mut out = String::new();
    for (name, family) in families {
        let Some(first) = family.values().next() else { continue };
        let kind = match first {
            Series::Counter(_) => "counter",
            Series::Gauge(_) => "gauge",
            Series::Summary(_) => "summary",
        };
        let _ = writeln!(out, "# HELP {name} {name}\n# TYPE {name} {kind}");
        for (labels, series) in family {
            match series {
                Series::Counter(value) => line(&mut out, name, labels, value.load(Ordering::Relaxed) as f64),
                Series::Gauge(value) => line(&mut out, name, labels, value.load()),
                Series::Summary(summary) => {
                    let snapshot = summary.snapshot();
                    for (quantile, value) in QUANTILES.iter().zip(snapshot.quantiles) {
                        let comma = if labels.is_empty() { "" } else { "," };
                        line(&mut out, name, &format!("{labels}{comma}quantile=\"{quantile}\""), value);
                    }
                    line(&mut out, &format!("{name}_sum"), labels, snapshot.sum);
                    line(&mut out, &format!("{name}_count"), labels, snapshot.count as f64);
                }
            }
        }
    }
    out
}

fn line(out: &mut String, name: &str, labels: &str, value: f64) {
    let value = if value.is_infinite() {
        if value > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        value.to_string()
    };
    let _ = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
}
