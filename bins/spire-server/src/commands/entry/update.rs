//! `entry update`

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Io, Output, Session, printer};
use steeple_config::FlagSet;
use steeple_proto::spire::api::server::entry::v1::{BatchUpdateEntryRequest, GetEntryRequest};
use steeple_proto::spire::api::types;

use super::client;
use super::create::{is_ok, print_results};
use super::input::{self, Input};
use crate::commands::args;

pub struct Update {
    input: Input,
}

impl ClientCommand for Update {
    const NAME: &'static str = "entry update";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self { input: Input::new(flags, "ID of the entry to update") }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let mut client = client(&session.channel);
        let path = self.input.data.get();
        let entries = if path.is_empty() {
            let mut entry = self.entry(&mut session.io)?;
            if self.gives_attributes() {
                // The API replaces these attributes as a whole: keep those that are not given.
                let request = GetEntryRequest { id: entry.id.clone(), output_mask: None };
                let existing = client
                    .get_entry(request)
                    .await
                    .context("failed to fetch existing entry to merge additional attributes")?;
                entry.additional_attributes = Some(self.merge(existing.into_inner().additional_attributes));
            }
            vec![entry]
        } else {
            input::parse(&session.io.read(&path)?)?
        };
        let request = BatchUpdateEntryRequest { entries: entries.clone(), ..Default::default() };
        let mut answer = client.batch_update_entry(request).await?.into_inner();
        for (result, asked) in answer.results.iter_mut().zip(entries) {
            // The API answers no entry when it could not update it.
            if !is_ok(result.status.as_ref()) {
                result.entry = Some(asked);
            }
        }
        if session.output == Output::Json {
            let json = printer::message("spire.api.server.entry.v1.BatchUpdateEntryResponse", &answer)?;
            return session.print_json(vec![json]);
        }
        let results = answer.results.into_iter().map(|result| (result.status, result.entry));
        print_results(&mut session.io, "update", results.collect())
    }
}

impl Update {
    fn entry(&self, io: &mut Io) -> Result<types::Entry, Failure> {
        let input = &self.input;
        if input.entry_id.get().is_empty() {
            return Err(Failure::new("entry ID is required"));
        }
        if input.selectors.get().is_empty() {
            return Err(Failure::new("at least one selector is required"));
        }
        if input.parent_id.get().is_empty() {
            return Err(Failure::new("a parent ID is required"));
        }
        if input.spiffe_id.get().is_empty() {
            return Err(Failure::new("a SPIFFE ID is required"));
        }
        input.check_ttls(io)?;
        let parent_id = args::spiffe_id(&input.parent_id.get())?;
        Ok(types::Entry { parent_id: Some(parent_id), ..input.entry()? })
    }

    fn gives_attributes(&self) -> bool {
        self.input.disable_x509_svid_prefetch.is_set() || self.input.jwt_svid_include_jti.is_set()
    }

    /// What is given replaces what is there. (SPIRE takes `-flag=false` for true here.)
    fn merge(
        &self,
        existing: Option<types::entry::AdditionalAttributes>,
    ) -> types::entry::AdditionalAttributes {
        let existing = existing.unwrap_or_default();
        let input = &self.input;
        types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: input
                .disable_x509_svid_prefetch
                .get_if_set()
                .unwrap_or(existing.disable_x509_svid_prefetch),
            jwt_svid_include_jti: input
                .jwt_svid_include_jti
                .get_if_set()
                .unwrap_or(existing.jwt_svid_include_jti),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_not_given_stay() {
        let mut flags = FlagSet::new(Update::NAME);
        let update = Update::flags(&mut flags);
        flags.parse(&["-disableX509SVIDPrefetch=false"]).unwrap();
        assert!(update.gives_attributes());
        let existing = types::entry::AdditionalAttributes {
            disable_x509_svid_prefetch: true,
            jwt_svid_include_jti: true,
        };
        let merged = update.merge(Some(existing));
        assert!(!merged.disable_x509_svid_prefetch && merged.jwt_svid_include_jti);
        assert_eq!(update.merge(None), types::entry::AdditionalAttributes::default());
    }
}
