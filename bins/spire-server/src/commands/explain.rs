//! `explain`: who gets the SVIDs of an entry, or why nobody does (Steeple's own).

use std::fmt::Write as _;

use steeple_cli::{Api, ClientCommand, Failure, Session, go};
use steeple_config::{Flag, FlagSet};
use steeple_proto::steeple::server::v1::explain_client::ExplainClient;
use steeple_proto::steeple::server::v1::{
    AgentFinding, EntryFinding, Reason, RegistrationsRequest, RegistrationsResponse,
};

use super::args;

pub struct Explain {
    entry_id: Flag<String>,
    spiffe_id: Flag<String>,
    agent_id: Flag<String>,
    selectors: Flag<Vec<String>>,
}

/// The verdict of an entry that is served.
const ISSUED: &str = "ISSUED";

impl ClientCommand for Explain {
    const NAME: &'static str = "explain";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            entry_id: flags.string("entryID", "", "Entry to explain"),
            spiffe_id: flags.string("spiffeID", "", "SPIFFE ID whose entries to explain"),
            agent_id: flags.string("agentID", "", "SPIFFE ID of the agent that should serve it"),
            selectors: flags
                .strings("selector", "Selector (type:value) that the workload has; may be given again"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = RegistrationsRequest {
            entry_id: self.entry_id.get(),
            spiffe_id: self.spiffe_id.get(),
            agent_id: self.agent_id.get(),
            selectors: args::selectors(&self.selectors.get())?,
        };
        if request == RegistrationsRequest::default() {
            return Err(Failure::new("an entry ID, a SPIFFE ID, an agent ID or selectors are required"));
        }
        let mut client = ExplainClient::new(session.channel.clone())
            .max_decoding_message_size(steeple_cli::session::MAX_ANSWER);
        let answer = client.registrations(request).await?.into_inner();
        session.answer("steeple.server.v1.RegistrationsResponse", &answer, |answer| Ok(pretty(answer)))?;
        match answer.reasons.first() {
            Some(reason) if reason.code != ISSUED => Err(Failure::new("no identity")),
            _ => Ok(()),
        }
    }
}

fn pretty(answer: &RegistrationsResponse) -> String {
    let mut text = String::new();
    for reason in &answer.reasons {
        push_reason(&mut text, "", reason);
    }
    let _ = writeln!(text, "{}Revision    {}", if text.is_empty() { "" } else { "\n" }, answer.revision);
    if let Some(found) = &answer.agent {
        agent(&mut text, found);
    }
    for found in &answer.entries {
        entry(&mut text, found);
    }
    text
}

fn push_reason(text: &mut String, indent: &str, reason: &Reason) {
    let _ = writeln!(text, "{indent}{}: {}", reason.code, reason.text);
    if !reason.what_to_do.is_empty() {
        let _ = writeln!(text, "{indent}  {}", reason.what_to_do);
    }
}

fn agent(text: &mut String, found: &AgentFinding) {
    let _ = writeln!(text, "\nAgent       {}", found.spiffe_id);
    if !found.known {
        return;
    }
    let _ = writeln!(text, "  attested  {}, version {:?}", found.attestation_type, found.version);
    let until = if found.banned { "banned".to_owned() } else { go::rfc3339_utc(found.svid_expires_at) };
    let _ = writeln!(text, "  SVID      {until}");
    for alias in &found.aliases {
        let _ = writeln!(text, "  alias     {alias}");
    }
    let _ = writeln!(text, "  entries   {}", found.entry_count);
}

fn entry(text: &mut String, found: &EntryFinding) {
    let _ = writeln!(text, "\nEntry       {}  {}", found.entry_id, found.spiffe_id);
    let _ = writeln!(text, "  parent    {}", found.parent_id);
    for selector in &found.selectors {
        let lacks = if found.missing_selectors.contains(selector) { "  (missing)" } else { "" };
        let _ = writeln!(text, "  selector  {selector}{lacks}");
    }
    if !found.chain.is_empty() {
        let _ = writeln!(text, "  chain     {}", found.chain.join(" <- "));
    }
    for agent in &found.agents {
        let _ = writeln!(text, "  agent     {agent}");
    }
    let more = usize::try_from(found.agent_count).unwrap_or(0).saturating_sub(found.agents.len());
    if more > 0 {
        let _ = writeln!(text, "  agent     and {more} more");
    }
    if let Some(lifetime) = &found.lifetime {
        let asked = if lifetime.entry_ttl == 0 { lifetime.default_ttl } else { lifetime.entry_ttl };
        let (ttl, asked) = (go::seconds(lifetime.ttl), go::seconds(asked));
        let ends = go::rfc3339_utc(lifetime.authority_expires_at);
        let _ = writeln!(text, "  TTL       {ttl} of {asked}; the authority ends at {ends}");
    }
    if found.expires_at != 0 {
        let _ = writeln!(text, "  expires   {}", go::rfc3339_utc(found.expires_at));
    }
    for reason in &found.reasons {
        let _ = writeln!(text, "  {}: {}", reason.code, reason.text);
    }
}

#[cfg(test)]
mod tests {
    use steeple_proto::steeple::server::v1::Lifetime;

    use super::*;

    #[test]
    fn text() {
        let reason =
            Reason { code: "PARENT_NOT_REACHED".into(), text: "No way.".into(), what_to_do: "Do.".into() };
        let answer = RegistrationsResponse {
            reasons: vec![reason.clone()],
            revision: 4,
            agent: Some(AgentFinding {
                spiffe_id: "spiffe://td/a".into(),
                known: true,
                banned: true,
                attestation_type: "join_token".into(),
                version: "1".into(),
                aliases: vec!["spiffe://td/node".into()],
                entry_count: 3,
                ..AgentFinding::default()
            }),
            entries: vec![EntryFinding {
                entry_id: "e".into(),
                spiffe_id: "spiffe://td/w".into(),
                parent_id: "spiffe://td/p".into(),
                selectors: vec!["unix:uid:1".into(), "unix:gid:2".into()],
                missing_selectors: vec!["unix:gid:2".into()],
                chain: vec!["spiffe://td/p".into(), "spiffe://td/a".into()],
                agents: vec!["spiffe://td/a".into()],
                agent_count: 2,
                lifetime: Some(Lifetime {
                    default_ttl: 3600,
                    ttl: 60,
                    authority_expires_at: 60,
                    ..Lifetime::default()
                }),
                reasons: vec![reason],
                ..EntryFinding::default()
            }],
            ..RegistrationsResponse::default()
        };
        assert_eq!(
            pretty(&answer),
            "PARENT_NOT_REACHED: No way.\n\
             \x20 Do.\n\
             \n\
             Revision    4\n\
             \n\
             Agent       spiffe://td/a\n\
             \x20 attested  join_token, version \"1\"\n\
             \x20 SVID      banned\n\
             \x20 alias     spiffe://td/node\n\
             \x20 entries   3\n\
             \n\
             Entry       e  spiffe://td/w\n\
             \x20 parent    spiffe://td/p\n\
             \x20 selector  unix:uid:1\n\
             \x20 selector  unix:gid:2  (missing)\n\
             \x20 chain     spiffe://td/p <- spiffe://td/a\n\
             \x20 agent     spiffe://td/a\n\
             \x20 agent     and 1 more\n\
             \x20 TTL       1m0s of 1h0m0s; the authority ends at 1970-01-01T00:01:00Z\n\
             \x20 PARENT_NOT_REACHED: No way.\n"
        );
    }
}
