//! `entry create`

use indicatif::{ProgressBar, ProgressStyle};
use steeple_cli::{Api, ClientCommand, Context as _, Failure, Io, Output, Session, printer};
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::spire::api::server::entry::v1::batch_create_entry_response::Result as ItemResult;
use steeple_proto::spire::api::server::entry::v1::{BatchCreateEntryRequest, BatchCreateEntryResponse};
use steeple_proto::spire::api::types;

use super::client;
use super::input::{self, Input};
use crate::commands::{args, output};

pub struct Create {
    input: Input,
    node: Flag<bool>,
}

/// Entries per call: keeps a long import within the message size any server takes, and shows its progress.
const BATCH: usize = 200;
/// The parent of a node alias.
const SERVER_PATH: &str = "/spire/server";

impl ClientCommand for Create {
    const NAME: &'static str = "entry create";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            input: Input::new(flags, "ID of the new entry (default: a random one)"),
            node: flags.bool("node", false, "The entry is an alias for agents that match its selectors"),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let path = self.input.data.get();
        let entries = if path.is_empty() {
            vec![self.entry(&mut session.io)?]
        } else {
            input::parse(&session.io.read(&path)?)?
        };
        let (answer, stopped) = create(session, entries).await;
        let printed =
            if stopped.is_some() && answer.results.is_empty() { Ok(()) } else { print(session, answer) };
        stopped.map_or(printed, Err)
    }
}

impl Create {
    fn entry(&self, io: &mut Io) -> Result<types::Entry, Failure> {
        let (input, node) = (&self.input, self.node.get());
        if input.selectors.get().is_empty() {
            return Err(Failure::new("at least one selector is required"));
        }
        if node && !input.federates_with.get().is_empty() {
            return Err(Failure::new("node entries can not federate"));
        }
        if input.parent_id.get().is_empty() && !node {
            return Err(Failure::new("a parent ID is required if the node flag is not set"));
        }
        if input.spiffe_id.get().is_empty() {
            return Err(Failure::new("a SPIFFE ID is required"));
        }
        input.check_ttls(io)?;
        let mut entry = input.entry()?;
        let trust_domain = entry.spiffe_id.as_ref().map(|id| id.trust_domain.clone()).unwrap_or_default();
        entry.parent_id = Some(if node {
            types::Spiffeid { trust_domain, path: SERVER_PATH.to_owned() }
        } else {
            args::spiffe_id(&input.parent_id.get())?
        });
        let disable_x509_svid_prefetch = input.disable_x509_svid_prefetch.get();
        let jwt_svid_include_jti = input.jwt_svid_include_jti.get();
        if disable_x509_svid_prefetch || jwt_svid_include_jti {
            entry.additional_attributes =
                Some(types::entry::AdditionalAttributes { disable_x509_svid_prefetch, jwt_svid_include_jti });
        }
        Ok(entry)
    }
}

/// Creates the entries, some at a time. Stops at the first call that fails as a whole; what was done until then is
/// answered, too.
async fn create(
    session: &Session,
    entries: Vec<types::Entry>,
) -> (BatchCreateEntryResponse, Option<Failure>) {
    let mut client = client(&session.channel);
    let mut all = BatchCreateEntryResponse::default();
    let total = entries.len();
    let progress = progress(&session.io, total);
    // SPIRE makes the call even for nothing.
    let batches = if entries.is_empty() { vec![&entries[..]] } else { entries.chunks(BATCH).collect() };
    for batch in batches {
        let request = BatchCreateEntryRequest { entries: batch.to_vec(), output_mask: None };
        let answer = match client.batch_create_entry(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if all.results.is_empty() => return (all, Some(status.into())),
            Err(status) => {
                let done = all.results.len();
                let stopped: Result<(), Failure> =
                    Err(status).context(format!("stopped after {done} of {total} entries"));
                return (all, stopped.err());
            }
        };
        progress.inc(batch.len() as u64);
        all.results.extend(answer.results.into_iter().zip(batch).map(|(mut result, asked)| {
            // The API answers no entry when it could not create one.
            if !is_ok(result.status.as_ref()) {
                result.entry = Some(asked.clone());
            }
            result
        }));
    }
    progress.finish_and_clear();
    (all, None)
}

fn progress(io: &Io, total: usize) -> ProgressBar {
    if !io.is_terminal() || total <= BATCH {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} entries, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn print(session: &mut Session, answer: BatchCreateEntryResponse) -> Result<(), Failure> {
    if session.output == Output::Json {
        let json = printer::message("spire.api.server.entry.v1.BatchCreateEntryResponse", &answer)?;
        return session.print_json(vec![json]);
    }
    let results = answer.results.into_iter().map(|ItemResult { status, entry }| (status, entry));
    print_results(&mut session.io, "create", results.collect())
}

/// What was done goes to stdout; what was not, to stderr with the reason, and makes the command fail.
pub(super) fn print_results(
    io: &mut Io,
    verb: &str,
    results: Vec<(Option<types::Status>, Option<types::Entry>)>,
) -> Result<(), Failure> {
    let (done, failed): (Vec<_>, Vec<_>) =
        results.into_iter().partition(|(status, _)| is_ok(status.as_ref()));
    let block = |entry: &Option<types::Entry>| entry.as_ref().map(output::entry).unwrap_or_default();
    let text: String = done.iter().map(|(_, entry)| block(entry)).collect();
    io.print(&text)?;
    for (status, entry) in &failed {
        let status = status.clone().unwrap_or_default();
        let (code, message) = (output::code(status.code), go_quote(&status.message));
        io.eprint(&format!(
            "Failed to {verb} the following entry (code: {code}, msg: {message}):\n{}",
            block(entry)
        ));
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("failed to {verb} one or more entries")))
    }
}

pub(super) fn is_ok(status: Option<&types::Status>) -> bool {
    status.is_none_or(|status| status.code == tonic::Code::Ok as i32)
}

#[cfg(test)]
mod tests;
