//! What a sync changed, for the log and the metrics, under SPIRE's names: scripts wait for these lines.

use std::sync::Arc;

use steeple_agent_core::view::Changes;
use steeple_agent_core::{Cache, Entry};
use steeple_runtime::metrics::CallCounter;
use tonic::Code;

/// Taken before the changes are put in force, told after.
#[derive(Debug, Default)]
pub(crate) struct Report {
    created: usize,
    updated: usize,
    removed: usize,
    /// SVIDs whose entry asks for something else now.
    outdated: usize,
    /// Only where they are logged.
    lines: Vec<Line>,
}

#[derive(Debug)]
enum Line {
    Entry { what: &'static str, entry: Arc<Entry>, before: Option<Arc<Entry>> },
    Bundle { what: &'static str, id: String },
}

/// X.509-SVIDs whose authority is tainted or gone: they are being replaced.
pub(crate) fn tell_tainted_svids(count: usize) {
    if count == 0 {
        return;
    }
    let call = CallCounter::start(&["cache_manager", "workload", "process_tainted_x509_svids"]);
    metrics::histogram!("cache_manager.tainted_x509_svids.workload").record(count as f64);
    tracing::info!(subsystem_name = "cache_manager", tainted_x509_svids = count, "Tainted X.509 SVIDs");
    call.done(Code::Ok);
}

/// JWT-SVIDs that went because their authority is tainted or gone.
pub(crate) fn tell_dropped_jwts(count: usize) {
    if count == 0 {
        return;
    }
    let call = CallCounter::start(&["cache_manager", "workload", "process_tainted_jwt_svids"]);
    metrics::histogram!("cache_manager.tainted_jwt_svids.workload").record(count as f64);
    // SPIRE's words.
    tracing::info!(
        subsystem_name = "cache_manager",
        tainted_jwt_svids = count,
        "JWT-SVIDs were removed from the JWT cache because they were issued by a tainted authority"
    );
    call.done(Code::Ok);
}

impl Report {
    pub fn of(changes: &Changes, cache: &Cache) -> Self {
        let mut report = Self::default();
        let logged = tracing::enabled!(tracing::Level::DEBUG);
        let mut lines = Vec::new();
        let mut note = |line: &dyn Fn() -> Line| {
            if logged {
                lines.push(line());
            }
        };
        for trust_domain in &changes.removed_bundles {
            note(&|| Line::bundle("Bundle removed", trust_domain.as_id_str()));
        }
        for bundle in &changes.bundles {
            let known = cache.has_bundle(&bundle.trust_domain);
            let what = if known { "Bundle updated" } else { "Bundle added" };
            note(&|| Line::bundle(what, bundle.trust_domain.as_id_str()));
        }
        for entry in changes.removed.iter().filter_map(|id| cache.entry(id)) {
            report.removed += 1;
            note(&|| Line::entry("Entry removed", entry, None));
        }
        for entry in changes.entries.iter().filter(|entry| !entry.store_svid) {
            let Some(before) = cache.entry(&entry.id) else {
                report.created += 1;
                note(&|| Line::entry("Entry created", entry, None));
                continue;
            };
            report.updated += 1;
            report.outdated += usize::from(!entry.same_certificate_as(before) && cache.has_svid(&entry.id));
            note(&|| Line::entry("Entry updated", entry, Some(before)));
        }
        report.lines = lines;
        report
    }

    pub fn tell(self) {
        for line in &self.lines {
            line.log();
        }
        metrics::counter!("lru_cache_entry_add").increment(self.created as u64);
        metrics::counter!("lru_cache_entry_update").increment(self.updated as u64);
        metrics::counter!("lru_cache_entry_remove").increment(self.removed as u64);
        metrics::gauge!("sync_entries_missing").set(self.created as f64);
        metrics::gauge!("sync_entries_stale").set(self.updated as f64);
        metrics::gauge!("sync_entries_dropped").set(self.removed as f64);
        if self.outdated > 0 {
            metrics::histogram!("cache_manager.outdated_svids").record(self.outdated as f64);
            tracing::debug!(
                subsystem_name = "cache_manager",
                outdated_svids = self.outdated,
                "Updating SVIDs with outdated attributes in cache"
            );
        }
    }
}

impl Line {
    fn entry(what: &'static str, entry: &Arc<Entry>, before: Option<&Arc<Entry>>) -> Self {
        Self::Entry { what, entry: entry.clone(), before: before.cloned() }
    }

    fn log(&self) {
        match self {
            Self::Bundle { what, id } => {
                tracing::debug!(subsystem_name = "cache_manager", trust_domain_id = id, "{what}");
            }
            Self::Entry { what, entry, before } => {
                let before = before.as_deref();
                let old = |entry: &Entry| (entry.selectors.clone(), entry.federates_with.clone());
                let (selectors, federated) = before.map(old).unwrap_or_default();
                let gone = *what == "Entry removed";
                let count = |number: usize| (number > 0 && !gone).then_some(number);
                tracing::debug!(
                    subsystem_name = "cache_manager",
                    entry = &*entry.id,
                    spiffe_id = %entry.spiffe_id,
                    selectors_added = count(missing(&entry.selectors, &selectors)),
                    selectors_removed = count(missing(&selectors, &entry.selectors)),
                    fed_add = count(missing(&entry.federates_with, &federated)),
                    fed_rem = count(missing(&federated, &entry.federates_with)),
                    "{what}"
                );
            }
        }
    }

    fn bundle(what: &'static str, id: &str) -> Self {
        Self::Bundle { what, id: id.to_owned() }
    }
}

/// How many of these the others lack.
fn missing<'a, T: PartialEq + 'a, L>(these: &'a L, others: &'a L) -> usize
where
    &'a L: IntoIterator<Item = &'a T>,
{
    these.into_iter().filter(|one| others.into_iter().all(|other| other != *one)).count()
}
