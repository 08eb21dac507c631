//! `token generate`: join tokens.

use steeple_cli::{Api, ClientCommand, Failure, Session};
use steeple_config::{Flag, FlagSet};
use steeple_proto::spire::api::server::agent::v1::CreateJoinTokenRequest;
use steeple_proto::spire::api::server::agent::v1::agent_client::AgentClient;

use super::args;

pub struct Generate {
    ttl: Flag<i64>,
    spiffe_id: Flag<String>,
}

const DEFAULT_TTL: i64 = 600;

impl ClientCommand for Generate {
    const NAME: &'static str = "generate";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            ttl: flags.int("ttl", DEFAULT_TTL, "How long the token can be used, in seconds"),
            spiffe_id: flags.string("spiffeID", "", "Alias for the agent that uses the token"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let alias = self.spiffe_id.get();
        let agent_id = if alias.is_empty() { None } else { Some(args::spiffe_id(&alias)?) };
        let ttl = args::ttl("TTL", self.ttl.get())?;
        let request = CreateJoinTokenRequest { ttl, agent_id, token: String::new() };
        let token = AgentClient::new(session.channel.clone()).create_join_token(request).await?.into_inner();
        session.answer("spire.api.types.JoinToken", &token, |token| {
            let warning = if alias.is_empty() { "Warning: Missing SPIFFE ID.\n" } else { "" };
            Ok(format!("Token: {}\n{warning}", token.value))
        })
    }
}
