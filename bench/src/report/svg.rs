//! Plots as inline SVG.

use std::fmt::Write as _;

use super::number;
use crate::record::Figure;

const COLORS: [&str; 4] = ["#0a7d5a", "#c2571a", "#3465a4", "#75507b"];
const WIDTH: f64 = 460.0;
const LABEL: f64 = 70.0;

/// One bar for each subject, logarithmic from a tenth of the smallest.
pub fn bars(figures: &[(&str, &Figure)]) -> String {
    let values: Vec<f64> = figures.iter().map(|(_, figure)| figure.middle().max(1e-6)).collect();
    let (low, high) = range(&values);
    let low = low / 10.0;
    let mut out = open(24.0 * figures.len() as f64 + 4.0);
    for (n, ((name, figure), value)) in figures.iter().zip(&values).enumerate() {
        let (y, width) = (24.0 * n as f64 + 2.0, (WIDTH - LABEL - 90.0) * scaled(*value, low, high));
        let _ = write!(
            out,
            "<text x=\"0\" y=\"{}\">{name}</text><rect x=\"{LABEL}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{} {}</text>",
            y + 13.0,
            COLORS[n % COLORS.len()],
            LABEL + width + 5.0,
            y + 13.0,
            number(figure.middle()),
            figure.unit.text()
        );
    }
    out + "</svg>"
}

/// Cumulative distributions over a logarithmic axis.
pub fn distribution(figures: &[(&str, &Figure)]) -> String {
    const HEIGHT: f64 = 150.0;
    let all: Vec<f64> =
        figures.iter().flat_map(|(_, figure)| figure.values.iter().map(|v| v.max(1e-6))).collect();
    let (low, high) = range(&all);
    let (left, right) = (30.0, WIDTH - 10.0);
    let x = |value: f64| left + (right - left) * scaled(value.max(1e-6), low, high);
    let y = |q: f64| 10.0 + (HEIGHT - 10.0) * (1.0 - q);
    let mut out = open(HEIGHT + 22.0 + 16.0 * figures.len() as f64);
    for q in [0.0, 0.5, 0.9, 1.0] {
        let at = y(q);
        let _ = write!(
            out,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"0\" y=\"{:.1}\">{}%</text>",
            at + 4.0,
            q * 100.0
        );
    }
    for (value, anchor) in [(low, "start"), ((low * high).sqrt(), "middle"), (high, "end")] {
        let _ = write!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            x(value),
            HEIGHT + 14.0,
            number(value)
        );
    }
    for (n, (name, figure)) in figures.iter().enumerate() {
        let mut sorted = figure.values.clone();
        sorted.sort_by(f64::total_cmp);
        let mut points = String::new();
        // Enough for the eye.
        let step = sorted.len().div_ceil(200).max(1);
        for (rank, value) in sorted.iter().enumerate().step_by(step) {
            let _ = write!(points, "{:.1},{:.1} ", x(*value), y((rank + 1) as f64 / sorted.len() as f64));
        }
        if let Some(last) = sorted.last() {
            let _ = write!(points, "{:.1},{:.1}", x(*last), y(1.0));
        }
        let color = COLORS[n % COLORS.len()];
        let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|q| number(figure.quantile(q)));
        let _ = write!(
            out,
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\
             <text x=\"{left}\" y=\"{}\" fill=\"{color}\">{name}: p50 {p50}, p90 {p90}, p99 {p99}, max {max} {} (n = {})</text>",
            HEIGHT + 30.0 + 16.0 * n as f64,
            figure.unit.text(),
            figure.values.len()
        );
    }
    out + "</svg>"
}

fn open(height: f64) -> String {
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">")
}

fn range(values: &[f64]) -> (f64, f64) {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    (low, high.max(low * 1.001))
}

fn scaled(value: f64, low: f64, high: f64) -> f64 {
    ((value / low).ln() / (high / low).ln()).clamp(0.0, 1.0)
}
