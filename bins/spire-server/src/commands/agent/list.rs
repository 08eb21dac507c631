//! `agent list`, `agent count`

use steeple_cli::{Api, ClientCommand, Failure, Session, go};
use steeple_config::FlagSet;
use steeple_proto::spire::api::server::agent::v1::{
    CountAgentsRequest, ListAgentsRequest, ListAgentsResponse,
};

use super::filter::Filter;
use super::{PAGE, client};
use crate::commands::output;

pub struct List {
    filter: Filter,
}

impl ClientCommand for List {
    const NAME: &'static str = "agent list";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self { filter: Filter::new(flags) }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = ListAgentsRequest { filter: Some(self.filter.for_list()?), ..Default::default() };
        let found = list(session, request).await?;
        session.answer("spire.api.server.agent.v1.ListAgentsResponse", &found, |found| {
            if found.agents.is_empty() {
                return Ok("No attested agents found\n".to_owned());
            }
            let count = go::plural(found.agents.len(), "attested agent", "attested agents");
            let mut text = format!("Found {count}:\n\n");
            text.extend(found.agents.iter().map(output::agent));
            Ok(text)
        })
    }
}

/// All agents a request asks for, page by page.
pub(super) async fn list(
    session: &Session,
    mut request: ListAgentsRequest,
) -> Result<ListAgentsResponse, tonic::Status> {
    let mut client = client(&session.channel);
    let mut all = ListAgentsResponse::default();
    request.page_size = PAGE;
    loop {
        let page = client.list_agents(request.clone()).await?.into_inner();
        all.agents.extend(page.agents);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

pub struct Count {
    filter: Filter,
}

impl ClientCommand for Count {
    const NAME: &'static str = "agent count";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self { filter: Filter::new(flags) }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = CountAgentsRequest { filter: Some(self.filter.for_count()?) };
        let counted = client(&session.channel).count_agents(request).await?.into_inner();
        session.answer("spire.api.server.agent.v1.CountAgentsResponse", &counted, |counted| {
            let count = usize::try_from(counted.count).unwrap_or_default();
            Ok(format!("{}\n", go::plural(count, "attested agent", "attested agents")))
        })
    }
}
