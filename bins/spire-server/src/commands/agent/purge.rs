//! `agent purge`

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Output, Session, go};
use steeple_config::{Flag, FlagSet, GoDuration};
use steeple_proto::spire::api::server::agent::v1::{
    DeleteAgentRequest, ListAgentsRequest, list_agents_request,
};
use steeple_proto::spire::api::types;
use steeple_runtime::clock::{Clock as _, SystemClock};

use super::client;
use super::list::list;
use crate::commands::output;

pub struct Purge {
    expired_for: Flag<GoDuration>,
    dry_run: Flag<bool>,
}

const THIRTY_DAYS: GoDuration = GoDuration::from_secs(30 * 24 * 60 * 60);
const SECOND: i128 = 1_000_000_000;

/// What became of one expired agent.
struct Expired {
    id: String,
    deleted: bool,
    error: String,
}

impl ClientCommand for Purge {
    const NAME: &'static str = "agent purge";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        let about = "Delete agents that can reattest and whose SVID ended longer ago than this";
        Self {
            expired_for: flags.duration("expiredFor", THIRTY_DAYS, about),
            dry_run: flags.bool("dryRun", false, "Only show which agents would go"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = ListAgentsRequest {
            filter: Some(list_agents_request::Filter { by_can_reattest: Some(true), ..Default::default() }),
            output_mask: Some(types::AgentMask { x509svid_expires_at: true, ..Default::default() }),
            ..Default::default()
        };
        let agents = list(session, request).await.context("failed to list agents")?.agents;
        let now = SystemClock.now_nanos();
        let longest = i128::from(self.expired_for.get().nanos());
        let mut client = client(&session.channel);
        let mut expired = Vec::new();
        for agent in agents {
            if now - i128::from(agent.x509svid_expires_at) * SECOND <= longest {
                continue;
            }
            let mut one = Expired { id: output::id(agent.id.as_ref()), deleted: false, error: String::new() };
            if !self.dry_run.get() {
                match client.delete_agent(DeleteAgentRequest { id: agent.id }).await {
                    Ok(_) => one.deleted = true,
                    Err(status) => one.error = Failure::from(status).to_string(),
                }
            }
            expired.push(one);
        }
        match session.output {
            Output::Json => session.print_json(vec![json(&expired)]),
            Output::Pretty => session.io.print(&pretty(&expired, self.dry_run.get())),
        }
    }
}

fn json(expired: &[Expired]) -> serde_json::Value {
    let agents = expired.iter().map(|one| {
        let mut agent = serde_json::json!({"agent_id": one.id, "deleted": one.deleted});
        if !one.error.is_empty() {
            agent["error"] = one.error.as_str().into();
        }
        agent
    });
    serde_json::json!({"expired_agents": agents.collect::<Vec<_>>()})
}

fn pretty(expired: &[Expired], dry_run: bool) -> String {
    if expired.is_empty() {
        return "No agents to purge.\n".to_owned();
    }
    let mut text = format!("Found {}\n\n", go::plural(expired.len(), "expired agent", "expired agents"));
    let mut list = |heading: &str, agents: Vec<&Expired>| {
        if agents.is_empty() {
            return;
        }
        text.push_str(heading);
        for one in agents {
            text.push_str(&output::agent_line("SPIFFE ID", &one.id));
            if !one.deleted && !dry_run {
                text.push_str(&output::agent_line("Error", &one.error));
            }
        }
    };
    if dry_run {
        list("\nAgents that can be purged:\n", expired.iter().collect());
    } else {
        let (gone, kept) = expired.iter().partition(|one| one.deleted);
        list("Agents purged:\n", gone);
        list("Agents not purged:\n", kept);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(id: &str, error: &str) -> Expired {
        Expired { id: id.into(), deleted: error.is_empty(), error: error.into() }
    }

    #[test]
    fn texts() {
        assert_eq!(pretty(&[], false), "No agents to purge.\n");
        let dry = Expired { deleted: false, ..expired("spiffe://td/a", "") };
        assert_eq!(
            pretty(&[dry], true),
            "Found 1 expired agent\n\n\nAgents that can be purged:\nSPIFFE ID         : spiffe://td/a\n"
        );
        assert_eq!(
            pretty(&[expired("spiffe://td/a", ""), expired("spiffe://td/b", "oh no")], false),
            "Found 2 expired agents\n\n\
             Agents purged:\nSPIFFE ID         : spiffe://td/a\n\
             Agents not purged:\nSPIFFE ID         : spiffe://td/b\nError             : oh no\n"
        );
    }

    #[test]
    fn as_json() {
        assert_eq!(json(&[]).to_string(), r#"{"expired_agents":[]}"#);
        assert_eq!(
            json(&[expired("a", ""), expired("b", "oh no")]).to_string(),
            r#"{"expired_agents":[{"agent_id":"a","deleted":true},{"agent_id":"b","deleted":false,"error":"oh no"}]}"#
        );
    }
}
