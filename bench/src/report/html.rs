//! One page that needs nothing else.

use std::fmt::Write as _;

use super::{Report, number, svg};

pub fn html(report: &Report<'_>) -> String {
    let mut out = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>steeple-bench</title><style>\
         body{font:14px/1.4 system-ui,sans-serif;margin:2em auto;max-width:70em;color:#222}\
         table{border-collapse:collapse}td,th{padding:.15em .7em;border-bottom:1px solid #ddd;text-align:right}\
         td:first-child,th:first-child{text-align:left}.met{color:#060}.missed{color:#b00;font-weight:bold}\
         figure{margin:1em 0;display:inline-block}figcaption{font-weight:600}svg text{font:11px system-ui,sans-serif}\
         .error{color:#b00}</style><h1>steeple-bench</h1>",
    );
    let _ = write!(out, "<p>{}</p>", escaped(&report.machine.text()));
    for error in &report.record.errors {
        let _ = write!(out, "<p class=\"error\">Error: {}</p>", escaped(error));
    }
    targets(report, &mut out);
    out.push_str("<h2>Figures</h2><p>Bars: one number each, logarithmic. Lines: the share of operations that took at most so long.</p>");
    for key in &report.record.order {
        let Some(figures) = report.record.figures.get(key) else { continue };
        let plotted: Vec<_> =
            report.subjects.iter().filter_map(|name| Some((name.as_str(), figures.get(name)?))).collect();
        let plot = if plotted.iter().all(|(_, figure)| figure.distribution) {
            svg::distribution(&plotted)
        } else {
            svg::bars(&plotted)
        };
        let _ = write!(out, "<figure><figcaption>{}</figcaption>{plot}</figure>", escaped(key));
    }
    out.push_str("<h2>Raw limits</h2><table><tr><th>limit</th><th>CPU µs</th></tr>");
    for (name, micros) in &report.record.limits {
        let _ = write!(out, "<tr><td>{name}</td><td>{}</td></tr>", number(*micros));
    }
    out.push_str("</table></html>\n");
    out
}

fn targets(report: &Report<'_>, out: &mut String) {
    if report.verdicts.is_empty() {
        return;
    }
    out.push_str(
        "<h2>Targets</h2><table><tr><th>target</th><th>ours</th><th>SPIRE</th><th>ratio</th><th>needed</th><th></th></tr>",
    );
    for (what, verdict) in &report.verdicts {
        let _ = match verdict {
            Some(v) => write!(
                out,
                "<tr><td>{}</td><td>{} {unit}</td><td>{} {unit}</td><td>{}</td><td>{}</td>{}</tr>",
                escaped(what),
                number(v.ours),
                number(v.spire),
                number(v.ratio),
                number(v.needed),
                if v.met() { "<td class=\"met\">met</td>" } else { "<td class=\"missed\">missed</td>" },
                unit = v.unit
            ),
            None => write!(
                out,
                "<tr><td>{}</td><td></td><td></td><td></td><td></td><td>not measured</td></tr>",
                escaped(what)
            ),
        };
    }
    out.push_str("</table>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
