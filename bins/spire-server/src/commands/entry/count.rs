//! `entry count`

use steeple_cli::{Api, ClientCommand, Failure, Session, go};
use steeple_config::FlagSet;
use steeple_proto::spire::api::server::entry::v1::CountEntriesRequest;

use super::client;
use super::filter::Filter;

pub struct Count {
    filter: Filter,
}

impl ClientCommand for Count {
    const NAME: &'static str = "entry count";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self { filter: Filter::new(flags) }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = CountEntriesRequest { filter: Some(self.filter.for_count()?) };
        let counted = client(&session.channel).count_entries(request).await?.into_inner();
        session.answer("spire.api.server.entry.v1.CountEntriesResponse", &counted, |counted| {
            let count = usize::try_from(counted.count).unwrap_or_default();
            Ok(format!("{}\n", go::plural(count, "registration entry", "registration entries")))
        })
    }
}
