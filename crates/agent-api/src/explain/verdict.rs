//! From what is known to what is said: reasons in the order of how much they tell.

use std::sync::Arc;

use steeple_agent_core::entry::Entry;
use steeple_agent_core::explain::{Cause, NearMiss};
use steeple_agent_core::node::Denial;
use steeple_agent_core::{Millis, millis};
use steeple_proto::steeple::agent::v1 as pb;
use steeple_proto::steeple::server::v1::{EntryFinding, Reason as Told};
use steeple_runtime::reason::Reason;
use steeple_spiffe::Certificate;

use super::server::Answer;
use super::{About, Facts};
use crate::refusal::{of_cause, of_standing};

/// Reasons of this many near misses are among the verdict's.
const MOST_TOLD: usize = 3;
/// SPIRE's servers and ours date certificates back by this much, seconds.
const BACKDATED: i64 = 10;

pub(super) fn told(reason: Reason, particulars: impl Into<String>) -> Told {
    let particulars = particulars.into();
    let text = if particulars.is_empty() { reason.meaning().to_owned() } else { particulars };
    Told { code: reason.code().to_owned(), text, what_to_do: reason.advice().to_owned() }
}

pub(super) fn response(facts: &Facts<'_>) -> pb::WhyResponse {
    let matched: Vec<Matched> =
        facts.findings.matched.iter().map(|entry| Matched::of(entry, facts)).collect();
    let mut reasons = if matched.is_empty() { why_not(facts) } else { why(&matched) };
    for entry in &facts.findings.shadowed {
        reasons.push(told(
            Reason::HintTaken,
            format!(
                "Entry {} ({}) matches, but an older entry has the same hint {:?}.",
                entry.id, entry.spiffe_id, entry.hint
            ),
        ));
    }
    about_the_server(facts, &mut reasons);
    let mut seen = std::collections::HashSet::new();
    reasons.retain(|reason| seen.insert((reason.code.clone(), reason.text.clone())));
    pb::WhyResponse {
        issued: matched.iter().any(|matched| matched.issued),
        reasons,
        pid: facts.workload.pid,
        attestors: facts.workload.reports.iter().map(report).collect(),
        selectors: facts.workload.selectors.iter().map(ToString::to_string).collect(),
        matched: matched.into_iter().map(|matched| matched.proto).collect(),
        near_misses: facts.findings.near.iter().map(|near| near_miss(near, facts)).collect(),
        agent: Some(pb::AgentView {
            revision: facts.revision,
            log_id: facts.log_id.clone(),
            last_sync: facts.state.last_sync(),
            entries: i64::try_from(facts.entry_count).unwrap_or(i64::MAX),
            ..pb::AgentView::default()
        }),
        server: Some(server(facts)),
    }
}

fn report(report: &crate::attest::AttestorReport) -> pb::AttestorReport {
    let found = report.result.as_ref().map(|found| found.iter().map(ToString::to_string).collect());
    pb::AttestorReport {
        name: report.name.to_string(),
        micros: i64::try_from(report.duration.as_micros()).unwrap_or(i64::MAX),
        selectors: found.unwrap_or_default(),
        error: report.result.as_ref().err().map(ToString::to_string).unwrap_or_default(),
    }
}

/// A matching entry and how its SVID stands.
struct Matched {
    proto: pb::Match,
    issued: bool,
    holds: bool,
    expired: bool,
    error: Option<String>,
}

impl Matched {
    fn of(entry: &Arc<Entry>, facts: &Facts<'_>) -> Self {
        let held = facts.state.cache().svid_state(&entry.id);
        let svid = held.as_ref().and_then(|held| held.svid.clone());
        let svid = svid.filter(|svid| svid.not_after > facts.now);
        let error = held.as_ref().and_then(|held| held.error.as_deref().map(str::to_owned));
        let mut proto = pb::Match {
            entry_id: entry.id.to_string(),
            spiffe_id: entry.spiffe_id.to_string(),
            hint: entry.hint.clone(),
            entry_ttl: i64::from(entry.x509_svid_ttl),
            chain: chain(&entry.id, facts),
            ..pb::Match::default()
        };
        if let (Some(svid), Some(held)) = (&svid, &held) {
            proto.svid_issued_at = svid.not_before + BACKDATED;
            proto.svid_expires_at = svid.not_after;
            proto.rotates_at = rotates_at(held.due, svid.not_after);
            proto.authority_expires_at = authority_end(&svid.chain, &svid.authority_key_id, facts);
        }
        let asks_more = entry.x509_svid_ttl == 0
            || i64::from(entry.x509_svid_ttl) > proto.svid_expires_at - proto.svid_issued_at;
        if svid.is_some() && asks_more && proto.svid_expires_at == proto.authority_expires_at {
            let wanted = if entry.x509_svid_ttl == 0 {
                "the server's default".to_owned()
            } else {
                format!("{} s", entry.x509_svid_ttl)
            };
            let got = proto.svid_expires_at - proto.svid_issued_at;
            proto.reasons.push(told(
                Reason::TtlClamped,
                format!(
                    "{} lives {got} s instead of {wanted}: its authority ends at the same time.",
                    entry.spiffe_id
                ),
            ));
        }
        let expired = entry.expires_at != 0 && entry.expires_at <= facts.now;
        if expired {
            proto.reasons.push(told(Reason::EntryExpired, expired_text(entry)));
        }
        if entry.admin || entry.downstream {
            let flag = if entry.admin { "admin" } else { "downstream" };
            proto.reasons.push(told(
                Reason::DelegateWithheld,
                format!("Entry {} ({}) has `{flag}`: delegates never receive it.", entry.id, entry.spiffe_id),
            ));
        }
        for trust_domain in &entry.federates_with {
            if facts.state.view().bundle(trust_domain).is_none() {
                proto.reasons.push(told(
                    Reason::FederatedBundleMissing,
                    format!("Entry {} federates with {trust_domain}, whose bundle is not there.", entry.id),
                ));
            }
        }
        if let Some(error) = &error {
            proto
                .reasons
                .push(told(Reason::SigningFailed, format!("{} is not signed: {error}.", entry.spiffe_id)));
        }
        Self { expired, holds: svid.is_some(), issued: svid.is_some() || error.is_none(), proto, error }
    }
}

fn chain(entry_id: &str, facts: &Facts<'_>) -> Vec<String> {
    let Answer::Told(answer) = &facts.answer else { return Vec::new() };
    let known = answer.entries.iter().find(|entry| entry.entry_id == entry_id);
    known.map(|entry| entry.chain.clone()).unwrap_or_default()
}

fn expired_text(entry: &Entry) -> String {
    let id = &entry.id;
    let when = jiff::Timestamp::from_second(entry.expires_at).map(|at| at.to_string()).unwrap_or_default();
    format!("Entry {id} ({}) expired at {when}.", entry.spiffe_id)
}

/// Unix seconds; nothing is planned for after its end.
fn rotates_at(due: Millis, not_after: i64) -> i64 {
    due.min(millis(not_after)) / 1000
}

/// When the first of the authorities above an SVID ends.
fn authority_end(chain: &[u8], authority_key_id: &[u8], facts: &Facts<'_>) -> i64 {
    let intermediates = Certificate::many_from_der(chain).unwrap_or_default();
    let bundle = facts.state.cache().bundle().cloned();
    let root = bundle
        .iter()
        .flat_map(|bundle| &bundle.x509_authorities)
        .find(|authority| authority.certificate.subject_key_id().is_some_and(|id| id == authority_key_id));
    let ends = intermediates.iter().skip(1).chain(root.map(|root| &root.certificate));
    ends.map(Certificate::not_after).min().unwrap_or_default()
}

fn why(matched: &[Matched]) -> Vec<Told> {
    let held: Vec<&str> =
        matched.iter().filter(|one| one.holds).map(|one| one.proto.spiffe_id.as_str()).collect();
    let mut reasons = Vec::new();
    // It is served until the server prunes it.
    if matched.iter().all(|one| one.expired) {
        let own = matched.iter().flat_map(|one| &one.proto.reasons);
        reasons.extend(own.filter(|reason| reason.code == Reason::EntryExpired.code()).cloned());
    }
    if !held.is_empty() {
        reasons.push(told(Reason::Issued, format!("The agent holds {}.", held.join(", "))));
    } else if let Some(waiting) = matched.iter().find(|one| one.error.is_none()) {
        let id = &waiting.proto.spiffe_id;
        reasons.push(told(
            Reason::SigningPending,
            format!(
                "Entry {} matches; {id} is being signed, or will be at the first request.",
                waiting.proto.entry_id
            ),
        ));
    }
    reasons.extend(matched.iter().flat_map(|one| one.proto.reasons.iter().cloned()));
    reasons
}

fn why_not(facts: &Facts<'_>) -> Vec<Told> {
    let mut reasons = Vec::new();
    if let Some(gone) = &facts.workload.gone {
        return vec![told(Reason::CallerGone, format!("Process {}: {gone}.", facts.workload.pid))];
    }
    let stand = facts.state.stand();
    if let Some(stand) = &stand
        && let Some(reason) = of_standing(stand.standing)
    {
        let why = if facts.asked.by_root { stand.reason.as_str() } else { "" };
        let text = if why.is_empty() { String::new() } else { format!("{} {why}", reason.meaning()) };
        reasons.push(told(reason, text));
    } else if let Answer::Denied(denial, error) = &facts.answer {
        let reason = of_denial(*denial);
        let error = if facts.asked.by_root { error } else { "" };
        let text = if error.is_empty() { String::new() } else { format!("{} {error}", reason.meaning()) };
        reasons.push(told(reason, text));
    }
    if facts.workload.all_failed {
        let failed = facts
            .workload
            .reports
            .iter()
            .filter_map(|report| Some(format!("{}: {}", report.name, report.result.as_ref().err()?)));
        let failed: Vec<String> = failed.collect();
        reasons.push(told(
            Reason::AttestationFailed,
            format!("No attestor could look at process {}: {}.", facts.workload.pid, failed.join("; ")),
        ));
    }
    if let Some(id) = foreign(facts) {
        let own = &facts.state.trust_domain;
        reasons.push(told(
            Reason::ForeignTrustDomain,
            format!("{id} belongs to trust domain {}, this agent to {own}.", id.trust_domain()),
        ));
        return reasons;
    }
    for entry in &facts.findings.stored {
        reasons.push(told(
            Reason::EntryForStore,
            format!("Entry {} ({}) matches, but is for an SVID store.", entry.id, entry.spiffe_id),
        ));
    }
    reasons.extend(facts.expired.iter().map(|entry| told(Reason::EntryExpired, expired_text(entry))));
    let near = &facts.findings.near;
    let (nearest, farther): (Vec<&NearMiss>, _) = near.iter().partition(|near| near.missing.len() == 1);
    let reason_of = |near: &&NearMiss| near_miss(near, facts).reason;
    reasons.extend(nearest.iter().filter_map(reason_of).take(MOST_TOLD));
    reasons.extend(elsewhere(facts));
    reasons.extend(farther.iter().filter_map(reason_of).take(MOST_TOLD));
    reasons
}

fn foreign<'a>(facts: &'a Facts<'_>) -> Option<&'a steeple_spiffe::SpiffeId> {
    facts.asked.wanted.as_ref().filter(|id| id.trust_domain() != facts.state.trust_domain)
}

fn of_denial(denial: Denial) -> Reason {
    match denial {
        Denial::Banned => Reason::AgentBanned,
        Denial::Expired => Reason::AgentExpired,
        Denial::NotAttested | Denial::NotActive | Denial::MustReattest => Reason::AgentNotAttested,
    }
}

/// Entries that the server knows and this agent does not hold.
fn elsewhere(facts: &Facts<'_>) -> Vec<Told> {
    let Answer::Told(answer) = &facts.answer else { return Vec::new() };
    let unknown = unknown(facts);
    let explain = |entry: &&EntryFinding| {
        let EntryFinding { entry_id, spiffe_id, parent_id, .. } = *entry;
        if entry.reached {
            return told(
                Reason::ViewStale,
                format!(
                    "Entry {entry_id} ({spiffe_id}) is for this agent, which has not received it: the server is at \
                     revision {}, the agent at {}.",
                    answer.revision, facts.revision
                ),
            );
        }
        let identities =
            answer.agent.iter().flat_map(|agent| std::iter::once(&agent.spiffe_id).chain(&agent.aliases));
        let names: Vec<&str> = identities.map(String::as_str).collect();
        told(
            Reason::ParentNotReached,
            format!(
                "Entry {entry_id} ({spiffe_id}) is not for this agent: its parent {parent_id} does not lead here; the \
                 agent goes by {}.",
                names.join(", ")
            ),
        )
    };
    let (mut here, there): (Vec<&EntryFinding>, Vec<&EntryFinding>) =
        unknown.iter().partition(|entry| entry.reached);
    here.extend(there);
    here.iter().map(explain).take(MOST_TOLD).collect()
}

fn unknown(facts: &Facts<'_>) -> Vec<EntryFinding> {
    let Answer::Told(answer) = &facts.answer else { return Vec::new() };
    let view = facts.state.view();
    answer.entries.iter().filter(|entry| view.entry(&entry.entry_id).is_none()).cloned().collect()
}

/// What is wrong between agent and server; tells most when nothing else does.
fn about_the_server(facts: &Facts<'_>, reasons: &mut Vec<Told>) {
    let nothing_yet = reasons.is_empty();
    match &facts.answer {
        Answer::Failed(error) => {
            let error = if facts.asked.by_root {
                format!("{} {error}", Reason::ServerUnreachable.meaning())
            } else {
                String::new()
            };
            reasons.push(told(Reason::ServerUnreachable, error));
        }
        Answer::Told(answer) if answer.log_id == facts.log_id && answer.revision < facts.revision => {
            reasons.push(told(
                Reason::ServerStale,
                format!(
                    "The server is at revision {}, this agent has seen {}: it keeps its own view and receives nothing new.",
                    answer.revision, facts.revision
                ),
            ));
        }
        Answer::Told(_) | Answer::Denied(..) | Answer::NotAsked | Answer::Cannot => {}
    }
    if nothing_yet {
        let what = match &facts.asked.about {
            About::Process(pid, _) => format!("process {pid}"),
            About::Selectors(_) => "these selectors".to_owned(),
            About::Identity => "this identity".to_owned(),
        };
        reasons.push(told(
            Reason::NoEntry,
            format!(
                "None of the {} entries of this agent is for {what}, not even nearly.",
                facts.entry_count
            ),
        ));
        if let Answer::Cannot = facts.answer {
            reasons.push(told(Reason::ServerCannotExplain, ""));
        }
    }
}

fn near_miss(near: &NearMiss, facts: &Facts<'_>) -> pb::NearMiss {
    let entry = &near.entry;
    let missing: Vec<String> = near.missing.iter().map(ToString::to_string).collect();
    let named = format!("Entry {} ({})", entry.id, entry.spiffe_id);
    let list = missing.join(", ");
    let text = match &near.cause {
        Cause::Typo(found) => format!("{named} asks for {list}, the workload has {found}."),
        Cause::Missing => format!("{named} asks for {list}, which the workload lacks."),
        Cause::AttestorDisabled(attestor) => {
            format!("{named} asks for {list}, and this agent runs no attestor {attestor:?}.")
        }
        Cause::AttestorFailed(attestor) => {
            let failed = facts.workload.reports.iter().find(|report| *report.name == **attestor);
            let error = failed.and_then(|report| report.result.as_ref().err().cloned()).unwrap_or_default();
            format!("{named} asks for {list}, and attestor {attestor:?} failed: {error}.")
        }
    };
    let instead = match &near.cause {
        Cause::Typo(found) => found.to_string(),
        _ => String::new(),
    };
    pb::NearMiss {
        entry_id: entry.id.to_string(),
        spiffe_id: entry.spiffe_id.to_string(),
        missing_selectors: missing,
        instead,
        reason: Some(told(of_cause(&near.cause), text)),
    }
}

fn server(facts: &Facts<'_>) -> pb::ServerView {
    let told_error =
        |error: &str| if facts.asked.by_root { error.to_owned() } else { "it could not be asked".into() };
    match &facts.answer {
        Answer::Told(answer) => pb::ServerView {
            answered: true,
            revision: answer.revision,
            log_id: answer.log_id.clone(),
            elsewhere: unknown(facts),
            aliases: answer.agent.iter().flat_map(|agent| agent.aliases.clone()).collect(),
            ..pb::ServerView::default()
        },
        Answer::NotAsked => pb::ServerView { error: "not asked".into(), ..pb::ServerView::default() },
        Answer::Cannot => pb::ServerView {
            error: "the server does not explain entries to agents".into(),
            ..pb::ServerView::default()
        },
        Answer::Denied(_, error) | Answer::Failed(error) => {
            pb::ServerView { error: told_error(error), ..pb::ServerView::default() }
        }
    }
}
