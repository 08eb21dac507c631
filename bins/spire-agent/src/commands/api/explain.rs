//! `api explain`: why a workload has an identity or not (Steeple's own).

use std::fmt::Write as _;

use steeple_cli::{Api, ClientCommand, Failure, Session, go};
use steeple_config::{Flag, FlagSet};
use steeple_proto::spire::api::types;
use steeple_proto::steeple::agent::v1::explain_client::ExplainClient;
use steeple_proto::steeple::agent::v1::{Match, WhyRequest, WhyResponse};
use steeple_proto::steeple::server::v1::Reason;
use steeple_runtime::clock::{Clock as _, SystemClock};

pub struct Explain {
    pid: Flag<i64>,
    selectors: Flag<Vec<String>>,
    spiffe_id: Flag<String>,
}

impl ClientCommand for Explain {
    const NAME: &'static str = "api explain";
    const API: Api = Api::Workload;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            pid: flags.int("pid", 0, "Process to explain, if not the caller; for root"),
            selectors: flags.strings(
                "selector",
                "Selector (type:value) of a workload to explain in place of a process; may be given again; for root",
            ),
            spiffe_id: flags.string("spiffeID", "", "Only what concerns this SPIFFE ID"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let pid = self.pid.get();
        let pid = i32::try_from(pid).map_err(|_| Failure::new(format!("no process has the number {pid}")))?;
        let selectors = self.selectors.get().iter().map(|text| selector(text)).collect::<Result<_, _>>()?;
        let request = WhyRequest { pid, selectors, spiffe_id: self.spiffe_id.get() };
        let mut client = ExplainClient::new(session.channel.clone())
            .max_decoding_message_size(steeple_cli::session::MAX_ANSWER);
        let request = session.workload_request(request);
        let answer = session.within(client.why(request)).await?.into_inner();
        let now = SystemClock.now();
        session.answer("steeple.agent.v1.WhyResponse", &answer, |answer| Ok(pretty(answer, now)))?;
        if answer.issued { Ok(()) } else { Err(Failure::new("no identity")) }
    }
}

fn selector(text: &str) -> Result<types::Selector, Failure> {
    match text.split_once(':') {
        Some((kind, value)) => Ok(types::Selector { r#type: kind.to_owned(), value: value.to_owned() }),
        None => Err(Failure::new(format!("selector \"{text}\" must be formatted as type:value"))),
    }
}

fn pretty(answer: &WhyResponse, now: i64) -> String {
    let mut text = String::new();
    for reason in &answer.reasons {
        push_reason(&mut text, "", reason);
    }
    attested(&mut text, answer);
    for one in &answer.matched {
        matched(&mut text, one, now);
    }
    for near in &answer.near_misses {
        let _ = writeln!(text, "\nNearly      {}  {}", near.entry_id, near.spiffe_id);
        for missing in &near.missing_selectors {
            let _ = writeln!(text, "  missing   {missing}");
        }
        if !near.instead.is_empty() {
            let _ = writeln!(text, "  has       {}", near.instead);
        }
    }
    surroundings(&mut text, answer, now);
    text
}

fn push_reason(text: &mut String, indent: &str, reason: &Reason) {
    let _ = writeln!(text, "{indent}{}: {}", reason.code, reason.text);
    if !reason.what_to_do.is_empty() {
        let _ = writeln!(text, "{indent}  {}", reason.what_to_do);
    }
}

fn attested(text: &mut String, answer: &WhyResponse) {
    if answer.pid != 0 {
        let _ = writeln!(text, "\nProcess     {}", answer.pid);
    }
    for attestor in &answer.attestors {
        let found = if attestor.error.is_empty() {
            go::plural(attestor.selectors.len(), "selector", "selectors")
        } else {
            format!("failed: {}", attestor.error)
        };
        let took = go::nanos(i128::from(attestor.micros) * 1000);
        let _ = writeln!(text, "Attestor    {} ({took}): {found}", attestor.name);
    }
    for selector in &answer.selectors {
        let _ = writeln!(text, "Selector    {selector}");
    }
}

fn matched(text: &mut String, one: &Match, now: i64) {
    let _ = writeln!(text, "\nMatches     {}  {}", one.entry_id, one.spiffe_id);
    if !one.chain.is_empty() {
        let _ = writeln!(text, "  chain     {}", one.chain.join(" <- "));
    }
    if one.svid_expires_at != 0 {
        let _ = writeln!(text, "  issued    {}", go::rfc3339_utc(one.svid_issued_at));
        let _ = writeln!(text, "  expires   {}", when(one.svid_expires_at, now));
        let _ = writeln!(text, "  rotates   {}", when(one.rotates_at, now));
        let _ = writeln!(text, "  authority {}", when(one.authority_expires_at, now));
    }
    let asked =
        if one.entry_ttl == 0 { "the server's default".to_owned() } else { go::seconds(one.entry_ttl) };
    let _ = writeln!(text, "  TTL       {asked}");
}

fn surroundings(text: &mut String, answer: &WhyResponse, now: i64) {
    if let Some(agent) = &answer.agent {
        let synced = if agent.last_sync == 0 { "never".to_owned() } else { when(agent.last_sync, now) };
        let _ = writeln!(text, "\nAgent       {}", agent.spiffe_id);
        let _ = writeln!(
            text,
            "  revision  {} ({} entries, last word from the server {synced})",
            agent.revision, agent.entries
        );
        let _ = writeln!(text, "  attestors {}", agent.attestors.join(", "));
    }
    let Some(server) = &answer.server else { return };
    for alias in &server.aliases {
        let _ = writeln!(text, "  alias     {alias}");
    }
    if server.answered {
        let _ = writeln!(text, "Server      revision {}", server.revision);
    } else {
        let _ = writeln!(text, "Server      {}", server.error);
    }
    for entry in &server.elsewhere {
        let _ =
            writeln!(text, "Elsewhere   {}  {} under {}", entry.entry_id, entry.spiffe_id, entry.parent_id);
    }
}

/// A moment and how far away it is.
fn when(at: i64, now: i64) -> String {
    let distance = go::seconds((at - now).abs());
    let relative = if at > now { format!("in {distance}") } else { format!("{distance} ago") };
    format!("{} ({relative})", go::rfc3339_utc(at))
}

#[cfg(test)]
mod tests;
