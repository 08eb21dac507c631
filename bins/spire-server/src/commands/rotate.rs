//! `entry rotate`, `agent rotate`: new SVIDs at once, without waiting for half their life (Steeple's own).

use std::fmt::Write as _;

use steeple_cli::{Api, ClientCommand, Failure, Session};
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::steeple::server::v1::rotation_client::RotationClient;
use steeple_proto::steeple::server::v1::{RotateAgentsRequest, RotateEntriesRequest};
use steeple_spiffe::SpiffeId;

use super::output;

pub struct Entry(Flag<Vec<String>>);

impl ClientCommand for Entry {
    const NAME: &'static str = "entry rotate";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(flags.strings("entryID", "ID of an entry whose SVIDs to issue again; may be given again"))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let ids = self.0.get();
        if ids.is_empty() {
            return Err(Failure::new("an entry ID is required"));
        }
        let mut client = RotationClient::new(session.channel.clone());
        let answer = client.rotate_entries(RotateEntriesRequest { ids }).await?.into_inner();
        let mut failed = String::new();
        session.answer("steeple.server.v1.RotateEntriesResponse", &answer, |answer| {
            let results = answer.results.iter().map(|r| (r.code, r.message.as_str(), r.id.as_str()));
            let (text, failures) = texts("entry with ID", results);
            failed = failures;
            Ok(text)
        })?;
        finish(session, "entries", &failed)
    }
}

pub struct Agent(Flag<Vec<String>>);

impl ClientCommand for Agent {
    const NAME: &'static str = "agent rotate";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        let about = "SPIFFE ID of an agent that renews its SVID and every SVID it holds; may be given again";
        Self(flags.strings("spiffeID", about))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let ids = self.0.get();
        if ids.is_empty() {
            return Err(Failure::new("a SPIFFE ID is required"));
        }
        for id in &ids {
            id.parse::<SpiffeId>()?;
        }
        let mut client = RotationClient::new(session.channel.clone());
        let answer = client.rotate_agents(RotateAgentsRequest { ids }).await?.into_inner();
        let mut failed = String::new();
        session.answer("steeple.server.v1.RotateAgentsResponse", &answer, |answer| {
            let results = answer.results.iter().map(|r| (r.code, r.message.as_str(), r.id.as_str()));
            let (text, failures) = texts("agent", results);
            failed = failures;
            Ok(text)
        })?;
        finish(session, "agents", &failed)
    }
}

/// What was asked of agents for stdout, what was not for stderr.
fn texts<'a>(what: &str, results: impl Iterator<Item = (i32, &'a str, &'a str)>) -> (String, String) {
    let (mut text, mut errors) = (String::new(), String::new());
    for (code, message, id) in results {
        let _ = if code == 0 {
            writeln!(text, "Rotating {what}: {id}")
        } else {
            let (code, message) = (output::code(code), go_quote(message));
            writeln!(errors, "Failed to rotate {what} {id} (code: {code}, msg: {message})")
        };
    }
    (text, errors)
}

fn finish(session: &mut Session, what: &str, failed: &str) -> Result<(), Failure> {
    if failed.is_empty() {
        return Ok(());
    }
    session.io.eprint(failed);
    Err(Failure::new(format!("failed to rotate one or more {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_on_its_line() {
        let results = [(0, "", "a"), (5, "entry not found", "b")];
        let (text, errors) = texts("entry with ID", results.into_iter());
        assert_eq!(text, "Rotating entry with ID: a\n");
        assert_eq!(errors, "Failed to rotate entry with ID b (code: NotFound, msg: \"entry not found\")\n");
    }
}
