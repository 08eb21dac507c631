//! `agent show`, `agent ban`, `agent evict`: one agent by its SPIFFE ID.

use steeple_cli::{Api, ClientCommand, Failure, Session};
use steeple_config::{Flag, FlagSet};
use steeple_proto::spire::api::server::agent::v1::{BanAgentRequest, DeleteAgentRequest, GetAgentRequest};
use steeple_proto::spire::api::types;

use super::client;
use crate::commands::{args, output};

const EMPTY: &str = "google.protobuf.Empty";

/// The one flag of these commands.
struct AgentId(Flag<String>);

impl AgentId {
    fn new(flags: &mut FlagSet) -> Self {
        Self(flags.string("spiffeID", "", "SPIFFE ID of the agent"))
    }

    fn required(&self) -> Result<types::Spiffeid, Failure> {
        let id = self.0.get();
        if id.is_empty() { Err(Failure::new("a SPIFFE ID is required")) } else { args::spiffe_id(&id) }
    }
}

pub struct Show(AgentId);

impl ClientCommand for Show {
    const NAME: &'static str = "agent show";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(AgentId::new(flags))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = GetAgentRequest { id: Some(self.0.required()?), output_mask: None };
        let agent = client(&session.channel).get_agent(request).await?.into_inner();
        session.answer("spire.api.types.Agent", &agent, |agent| {
            let mut text = format!("Found an attested agent given its SPIFFE ID\n\n{}", output::agent(agent));
            for selector in &agent.selectors {
                text.push_str(&output::agent_line(
                    "Selectors",
                    &format!("{}:{}", selector.r#type, selector.value),
                ));
            }
            Ok(text)
        })
    }
}

pub struct Ban(AgentId);

impl ClientCommand for Ban {
    const NAME: &'static str = "agent ban";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(AgentId::new(flags))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = BanAgentRequest { id: Some(self.0.required()?) };
        client(&session.channel).ban_agent(request).await?;
        session.answer(EMPTY, &(), |()| Ok("Agent banned successfully\n".to_owned()))
    }
}

pub struct Evict(AgentId);

impl ClientCommand for Evict {
    const NAME: &'static str = "agent evict";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(AgentId::new(flags))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = DeleteAgentRequest { id: Some(self.0.required()?) };
        client(&session.channel).delete_agent(request).await?;
        session.answer(EMPTY, &(), |()| Ok("Agent evicted successfully\n".to_owned()))
    }
}
