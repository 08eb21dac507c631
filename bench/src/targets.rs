//! What is promised, as a ratio to SPIRE in the same run: a slower or noisier machine does not matter.

use crate::record::Record;

/// Which number of a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Middle,
    Median,
    P99,
}

/// A row of the table of targets. `spire` and `goal` are in the unit of the figure, as they were measured on the kind of
/// machine that the targets were set on; `goal` to `spire` is the ratio that is needed.
#[derive(Debug)]
pub struct Target {
    pub what: &'static str,
    pub figure: &'static str,
    pub of: Of,
    pub spire: f64,
    pub goal: f64,
}

const fn target(what: &'static str, figure: &'static str, of: Of, spire: f64, goal: f64) -> Target {
    Target { what, figure, of, spire, goal }
}

use Of::{Median, Middle, P99};

pub const TARGETS: &[Target] = &[
    target("entry → SVID on an open stream, p50", "propagation/open-stream", Median, 4500.0, 50.0),
    target("entry → SVID on an open stream, p99", "propagation/open-stream", P99, 7200.0, 250.0),
    target(
        "the same with other entries, p50",
        "propagation-with-other-entries/open-stream",
        Median,
        4500.0,
        50.0,
    ),
    target(
        "the same with other entries, p99",
        "propagation-with-other-entries/open-stream",
        P99,
        7200.0,
        250.0,
    ),
    target("create entries, batch 50", "entries/create/server-cpu-each", Middle, 1000.0, 100.0),
    target("list entries, each", "entries/list/server-cpu-each", Middle, 30.0, 3.0),
    target("count 100k entries", "entries/100000/count-latency", Median, 1700.0, 1.0),
    target("server CPU when idle, 10k entries", "entries/10000/idle-server-cpu", Middle, 6.0, 0.2),
    target("server CPU when idle, 100k entries", "entries/100000/idle-server-cpu", Middle, 35.0, 0.2),
    target("server RSS, idle", "idle/server-rss", Middle, 89.0, 25.0),
    target("server RSS, 100k entries", "entries/100000/server-rss", Middle, 375.0, 80.0),
    target("server RSS, 1,000 connected agents", "agents/1000/server-rss", Middle, 169.0, 45.0),
    target("X.509 signing, batch 50", "sign/x509-batch-50/server-cpu-each", Middle, 349.0, 100.0),
    target("X.509 signing, batch 1", "sign/x509-batch-1/server-cpu-each", Middle, 812.0, 190.0),
    target(
        "the same with other entries",
        "sign/x509-batch-1-with-other-entries/server-cpu-each",
        Middle,
        812.0,
        190.0,
    ),
    target("JWT signing", "sign/jwt/server-cpu", Middle, 558.0, 75.0),
    target("attestation by join token", "attestation/join-token/server-cpu", Middle, 2100.0, 500.0),
    target("first sync, server CPU an entry", "sync/first/server-cpu-each", Middle, 4.3, 0.8),
    target("FetchX509SVID, new connection", "workload/x509-1/new-connection/agent-cpu", Middle, 652.0, 120.0),
    target("FetchX509SVID, same connection", "workload/x509-1/one-connection/agent-cpu", Middle, 426.0, 60.0),
    target("the same, 100 identities, per SVID", "workload/x509-100/agent-cpu-per-svid", Middle, 17.0, 2.0),
    target("FetchJWTSVID, cached", "workload/jwt-1/one-connection/agent-cpu", Middle, 393.0, 60.0),
    target("ValidateJWTSVID", "workload/validate-jwt/agent-cpu", Middle, 534.0, 110.0),
    target("agent RSS, idle", "idle/agent-rss", Middle, 56.0, 12.0),
    target("agent RSS, 1,000 held streams", "streams/1000/agent-rss", Middle, 112.0, 30.0),
    target("agent RSS, after 6 updates to each", "streams/1000/agent-rss-after-updates", Middle, 148.0, 30.0),
    target("agent restart → first SVID, 1 entry", "restart/1/first-svid", Median, 89.0, 20.0),
    target("agent restart → first SVID, 10k entries", "restart/10000/first-svid", Median, 2300.0, 150.0),
    target("fresh client process → its SVID", "fresh/process-to-svid", Median, 4.9, 3.0),
];

/// What a run says to a target.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Verdict {
    pub what: &'static str,
    pub unit: &'static str,
    pub ours: f64,
    pub spire: f64,
    pub ratio: f64,
    pub needed: f64,
    /// The figure itself is at or below the target, whatever SPIRE does.
    pub absolute: bool,
    pub goal: f64,
}

impl Verdict {
    pub fn met(&self) -> bool {
        self.ratio >= self.needed
    }
}

/// Targets whose figures both subjects have. `None` where the run did not measure it.
pub fn judge(record: &Record, ours: &str, spire: &str) -> Vec<(&'static Target, Option<Verdict>)> {
    TARGETS.iter().map(|target| (target, verdict(record, target, ours, spire))).collect()
}

fn verdict(record: &Record, target: &Target, ours: &str, spire: &str) -> Option<Verdict> {
    let of = |subject: &str| {
        let figure = record.get(target.figure, subject)?;
        Some(match target.of {
            Of::Middle | Of::Median => figure.middle(),
            Of::P99 => figure.quantile(0.99),
        })
    };
    let (ours, spire) = (of(ours)?, of(spire)?);
    Some(Verdict {
        what: target.what,
        unit: record.figures.get(target.figure)?.values().next()?.unit.text(),
        ours,
        spire,
        // Nothing measurable is better than anything: the smallest clock tick stands for it.
        ratio: spire / ours.max(0.001),
        needed: target.spire / target.goal,
        absolute: ours <= target.goal,
        goal: target.goal,
    })
}

/// Limits for CI on any machine: about three times what is needed, CPU and memory only, propagation with much room.
pub const ASSERTED: &[(&str, Of, f64)] = &[
    ("propagation/open-stream", Of::Median, 100.0),
    ("propagation/open-stream", Of::P99, 500.0),
    ("propagation/deleted", Of::Median, 100.0),
    ("propagation/deleted", Of::P99, 500.0),
    ("idle/server-rss", Of::Middle, 25.0),
    ("idle/agent-rss", Of::Middle, 12.0),
    ("entries/create/server-cpu-each", Of::Middle, 400.0),
    ("entries/list/server-cpu-each", Of::Middle, 20.0),
    ("sign/x509-batch-50/server-cpu-each", Of::Middle, 400.0),
    ("sign/jwt/server-cpu", Of::Middle, 400.0),
    ("workload/x509-1/new-connection/agent-cpu", Of::Middle, 800.0),
    ("workload/x509-1/one-connection/agent-cpu", Of::Middle, 500.0),
];

/// Scenarios of `--assert` and their sizes.
pub const ASSERT_SCENARIOS: &[&str] = &["idle", "propagation", "entries", "sign", "workload", "databases"];
pub const ASSERT_SIZES: &[(&str, usize)] = &[
    ("trials", 100),
    ("entries", 2000),
    ("svids", 500),
    ("jwts", 200),
    ("calls", 100),
    ("idle-seconds", 3),
    ("database-entries", 10_000),
];

/// Figures past their limit, in words.
pub fn past_limits(record: &Record, subject: &str) -> Vec<String> {
    let mut past = Vec::new();
    for (key, of, limit) in ASSERTED {
        let Some(figure) = record.get(key, subject) else { continue };
        let value = if *of == Of::P99 { figure.quantile(0.99) } else { figure.middle() };
        if value > *limit {
            past.push(format!(
                "{key}: {value:.1} {unit}, the limit is {limit} {unit}",
                unit = figure.unit.text()
            ));
        }
    }
    past
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Notes, Unit};

    #[test]
    fn a_target_is_a_ratio_in_one_run() {
        let mut record = Record::default();
        // A machine four times slower than the one the targets were set on: 400 µs are as good as 100 there.
        for (subject, micros) in [("steeple", 400.0), ("spire", 1400.0)] {
            Notes { record: &mut record, subject }.cpu("sign/x509-batch-50/server-cpu-each", micros, None);
        }
        Notes { record: &mut record, subject: "steeple" }.one("idle/agent-rss", Unit::Mebibytes, 13.0);
        let judged = judge(&record, "steeple", "spire");
        let verdicts: Vec<&Verdict> = judged.iter().filter_map(|(_, verdict)| verdict.as_ref()).collect();
        assert_eq!(verdicts.len(), 1, "what only one of them has is not judged");
        assert!(verdicts[0].met() && !verdicts[0].absolute);
        assert_eq!(past_limits(&record, "steeple"), ["idle/agent-rss: 13.0 MiB, the limit is 12 MiB"]);
    }
}
