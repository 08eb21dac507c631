//! Which entries match a workload, which nearly do, and what each of those lacks.

mod typo;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::entry::{Entry, Selector, SelectorSet, unique_hints};

pub use typo::nearest;

/// What to look at.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub workload: &'a SelectorSet,
    /// Selector types that this agent finds.
    pub attestors: &'a BTreeSet<&'a str>,
    /// Attestors that could not look.
    pub failed: &'a BTreeSet<&'a str>,
    pub depth: Depth,
}

/// How much of what does not match is told. What an entry asks for is not for everybody (ADR 0022).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// To the process itself: entries of which it has all selectors but one, and at least one.
    OneMissing,
    /// To root: also those that lack two, that are almost spelled right, or whose attestors did not speak.
    Near,
}

/// See [`look`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Served, by entry id.
    pub matched: Vec<Arc<Entry>>,
    /// They match, and an older entry with the same hint is served in their place.
    pub shadowed: Vec<Arc<Entry>>,
    /// They match and are for an SVID store.
    pub stored: Vec<Arc<Entry>>,
    /// The nearest first.
    pub near: Vec<NearMiss>,
}

/// An entry that nearly matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    pub entry: Arc<Entry>,
    /// What the workload would need besides what it has; never empty.
    pub missing: Vec<Selector>,
    pub cause: Cause,
}

/// Why the selectors are missing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// The workload has this one in place of the only one that is missing.
    Typo(Selector),
    /// Their attestor could not look.
    AttestorFailed(String),
    /// Their attestor is not one of this agent's.
    AttestorDisabled(String),
    Missing,
}

/// No more near misses than this are told.
pub const MOST_NEAR: usize = 10;
/// An entry that lacks more is not near.
const MOST_MISSING: usize = 2;

/// Goes through `entries`, each once.
pub fn look<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>, question: Question<'_>) -> Findings {
    let mut findings = Findings::default();
    for entry in entries {
        if entry.matches(question.workload) {
            let to = if entry.store_svid { &mut findings.stored } else { &mut findings.matched };
            to.push(entry.clone());
        } else if !entry.store_svid
            && !is_name_of_agent(entry)
            && let Some(near) = near_miss(entry, question)
        {
            findings.near.push(near);
        }
    }
    for list in [&mut findings.matched, &mut findings.stored] {
        list.sort_by(|a, b| a.id.cmp(&b.id));
    }
    let all = findings.matched.clone();
    unique_hints(&mut findings.matched);
    findings.shadowed =
        all.into_iter().filter(|entry| !findings.matched.iter().any(|kept| kept.id == entry.id)).collect();
    findings.near.sort_by_cached_key(NearMiss::rank);
    findings.near.truncate(MOST_NEAR);
    findings
}

/// A join token gives its agent another name by an entry that no workload has the selector of.
fn is_name_of_agent(entry: &Entry) -> bool {
    entry.selectors.iter().any(|selector| selector.kind() == "spiffe_id")
}

fn near_miss(entry: &Arc<Entry>, question: Question<'_>) -> Option<NearMiss> {
    let has = |selector: &&Selector| question.workload.iter().any(|found| found == *selector);
    let missing: Vec<Selector> = entry.selectors.iter().filter(|one| !has(one)).cloned().collect();
    let held = entry.selectors.len() - missing.len();
    let near = NearMiss { entry: entry.clone(), cause: cause(&missing, question), missing };
    let told = match question.depth {
        Depth::OneMissing => near.missing.len() == 1 && held > 0,
        Depth::Near => match near.cause {
            Cause::Typo(_) | Cause::AttestorFailed(_) | Cause::AttestorDisabled(_) => true,
            Cause::Missing => held > 0 && near.missing.len() <= MOST_MISSING,
        },
    };
    (told && !near.missing.is_empty()).then_some(near)
}

fn cause(missing: &[Selector], question: Question<'_>) -> Cause {
    let all_of = |kinds: &dyn Fn(&str) -> bool| missing.iter().all(|selector| kinds(selector.kind()));
    let Some(first) = missing.first() else { return Cause::Missing };
    if all_of(&|kind| question.failed.contains(kind)) {
        return Cause::AttestorFailed(first.kind().to_owned());
    }
    if all_of(&|kind| !question.attestors.contains(kind)) {
        return Cause::AttestorDisabled(first.kind().to_owned());
    }
    if let [one] = missing
        && let Some(found) = nearest(one.as_str(), question.workload.iter().map(Selector::as_str))
    {
        let found = question.workload.iter().find(|selector| selector.as_str() == found);
        return found.map_or(Cause::Missing, |found| Cause::Typo(found.clone()));
    }
    Cause::Missing
}

impl NearMiss {
    /// The smaller, the more telling: little missing before much, much held before little.
    fn rank(&self) -> (usize, usize, Cause, usize, Arc<str>) {
        let held = self.entry.selectors.len() - self.missing.len();
        let certainty = match self.cause {
            Cause::Typo(_) | Cause::AttestorFailed(_) => 0,
            _ if held > 0 => 1,
            // All entries for other attestors.
            _ => 2,
        };
        (certainty, self.missing.len(), self.cause.clone(), usize::MAX - held, self.entry.id.clone())
    }
}

#[cfg(test)]
mod tests;
