//! `entry show`

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Session, go};
use steeple_config::{Flag, FlagSet};
use steeple_proto::spire::api::server::entry::v1::{
    GetEntryRequest, ListEntriesRequest, ListEntriesResponse,
};

use super::filter::Filter;
use super::{client, sort};
use crate::commands::output;

pub struct Show {
    entry_id: Flag<String>,
    filter: Filter,
}

const PAGE: i32 = 500;

impl ClientCommand for Show {
    const NAME: &'static str = "entry show";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            entry_id: flags.string("entryID", "", "Only the entry with this ID"),
            filter: Filter::new(flags),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let mut found = ListEntriesResponse { entries: self.fetch(session).await?, ..Default::default() };
        sort::sort(&mut found.entries);
        session.answer("spire.api.server.entry.v1.ListEntriesResponse", &found, |found| {
            let mut text = format!("Found {}\n", go::plural(found.entries.len(), "entry", "entries"));
            text.extend(found.entries.iter().map(output::entry));
            Ok(text)
        })
    }
}

impl Show {
    async fn fetch(
        &self,
        session: &Session,
    ) -> Result<Vec<steeple_proto::spire::api::types::Entry>, Failure> {
        let mut client = client(&session.channel);
        let id = self.entry_id.get();
        if !id.is_empty() {
            let filter = &self.filter;
            let others = [filter.parent_id.get(), filter.spiffe_id.get()];
            if others.iter().any(|other| !other.is_empty()) || !filter.selectors.get().is_empty() {
                return Err(Failure::new("the -entryID flag can't be combined with others"));
            }
            let request = GetEntryRequest { id: id.clone(), ..Default::default() };
            let entry = client.get_entry(request).await.context(format!("error fetching entry ID {id}"))?;
            return Ok(vec![entry.into_inner()]);
        }
        let filter = self.filter.for_list()?;
        let (mut entries, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListEntriesRequest {
                filter: Some(filter.clone()),
                page_size: PAGE,
                page_token,
                ..Default::default()
            };
            let page = client.list_entries(request).await.context("error fetching entries")?.into_inner();
            entries.extend(page.entries);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(entries);
            }
        }
    }
}
