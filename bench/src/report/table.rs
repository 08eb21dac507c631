//! Plain text and Markdown.

use std::fmt::Write as _;

use super::{Report, number};
use crate::record::Figure;

/// Columns of one figure.
struct Row {
    key: String,
    unit: &'static str,
    cells: Vec<String>,
    ratio: String,
    share: String,
}

pub fn text(report: &Report<'_>) -> String {
    let mut out = format!("\n{}\n", report.machine.text());
    let rows = rows(report);
    let width = rows.iter().map(|row| row.key.len()).max().unwrap_or(0);
    let subjects = padded(report.subjects);
    let _ = writeln!(out, "{:width$} unit{subjects} {:>8} {:>9}", "", "ratio", "of limit");
    for row in rows {
        let cells = padded(&row.cells);
        let _ = writeln!(out, "{:width$} {:>4}{cells} {:>8} {:>9}", row.key, row.unit, row.ratio, row.share);
    }
    let _ = writeln!(out, "\nRaw limits, CPU µs each:");
    for (name, micros) in &report.record.limits {
        let _ = writeln!(out, "  {name:<24} {}", number(*micros));
    }
    if !report.verdicts.is_empty() {
        let _ = writeln!(out, "\nTargets (met: the ratio to SPIRE in this run is at least the needed one):");
        for (what, verdict) in &report.verdicts {
            let _ = match verdict {
                Some(v) => writeln!(
                    out,
                    "  {:<7} {what:<44} ours {:>8} {unit}, SPIRE {:>8} {unit}, ratio {:>7} (needed {})",
                    if v.met() { "met" } else { "MISSED" },
                    number(v.ours),
                    number(v.spire),
                    number(v.ratio),
                    number(v.needed),
                    unit = v.unit
                ),
                None => writeln!(out, "  -       {what:<44} not measured at this size"),
            };
        }
    }
    for error in &report.record.errors {
        let _ = writeln!(out, "ERROR {error}");
    }
    out
}

pub fn markdown(report: &Report<'_>) -> String {
    let mut out = format!("Machine: {}.\n\n", report.machine.text());
    if !report.verdicts.is_empty() {
        out.push_str("| Target | Steeple | SPIRE | ratio | needed | |\n|---|--:|--:|--:|--:|---|\n");
        for (what, verdict) in &report.verdicts {
            let _ = match verdict {
                Some(v) => writeln!(
                    out,
                    "| {what} | {} {unit} | {} {unit} | {} | {} | {} |",
                    number(v.ours),
                    number(v.spire),
                    number(v.ratio),
                    number(v.needed),
                    if v.met() { "met" } else { "**missed**" },
                    unit = v.unit
                ),
                None => writeln!(out, "| {what} | | | | | not measured |"),
            };
        }
        out.push('\n');
    }
    let _ = writeln!(out, "| Figure | unit | {} | ratio | share of its limit |", report.subjects.join(" | "));
    let _ = writeln!(out, "|---|---|{}--:|--:|", "--:|".repeat(report.subjects.len()));
    for row in rows(report) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} |",
            row.key,
            row.unit,
            row.cells.join(" | "),
            row.ratio,
            row.share
        );
    }
    out.push_str("\n| Raw limit | CPU µs |\n|---|--:|\n");
    for (name, micros) in &report.record.limits {
        let _ = writeln!(out, "| {name} | {} |", number(*micros));
    }
    out
}

fn padded(cells: &[String]) -> String {
    cells.iter().fold(String::new(), |mut line, cell| {
        let _ = write!(line, "{cell:>36}");
        line
    })
}

fn rows(report: &Report<'_>) -> Vec<Row> {
    report.record.order.iter().map(|key| row(report, key)).collect()
}

fn row(report: &Report<'_>, key: &str) -> Row {
    let figures: Vec<Option<&Figure>> =
        report.subjects.iter().map(|name| report.record.get(key, name)).collect();
    let first = figures.iter().flatten().next();
    let ratio = match &figures[..] {
        [Some(ours), Some(theirs), ..] if ours.middle() > 0.0 => number(theirs.middle() / ours.middle()),
        _ => String::new(),
    };
    let share = figures.first().copied().flatten().and_then(|ours| {
        let limit = report.record.limits.get(ours.limit.as_ref()?)?;
        if ours.middle() <= 0.0 {
            return None;
        }
        Some(format!("{:.0} %", limit * 100.0 / ours.middle()))
    });
    Row {
        key: key.to_owned(),
        unit: first.map_or("", |figure| figure.unit.text()),
        cells: figures.iter().map(|figure| figure.map(cell).unwrap_or_default()).collect(),
        ratio,
        share: share.unwrap_or_default(),
    }
}

fn cell(figure: &Figure) -> String {
    if !figure.distribution {
        return number(figure.middle());
    }
    let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|q| number(figure.quantile(q)));
    format!("{p50} / {p90} / {p99} / {max}")
}
