//! `entry create`

use std::iter::Peekable;
use std::vec::IntoIter;

use indicatif::{ProgressBar, ProgressStyle};
use prost::Message as _;
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

/// Entries per call, and their bytes: well within the 4 MiB that servers take, and small enough to show progress.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 1 << 20;
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
        create(session, entries).await
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

/// Creates the entries, some at a time, and prints what each call answers: a long import needs no more memory than its
/// file. Stops at the first call that fails as a whole.
async fn create(session: &mut Session, entries: Vec<types::Entry>) -> Result<(), Failure> {
    let mut client = client(&session.channel);
    let total = entries.len();
    let progress = progress(&session.io, total);
    let mut printed = Printed::default();
    let mut done = 0;
    let mut batches = Batches(entries.into_iter().peekable());
    // SPIRE makes the call even for nothing.
    let mut next = Some(batches.next().unwrap_or_default());
    while let Some(batch) = next {
        let request = BatchCreateEntryRequest { entries: batch.clone(), output_mask: None };
        let answer = match client.batch_create_entry(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                progress.finish_and_clear();
                // What was done until then is told all the same.
                let _ = printed.end(session, done > 0);
                let at = batch.first().map(|entry| output::id(entry.spiffe_id.as_ref())).unwrap_or_default();
                return match done {
                    0 => Err(status.into()),
                    _ => Err(status).context(format!("stopped after {done} of {total} entries, at {at}")),
                };
            }
        };
        done += batch.len();
        progress.suspend(|| printed.batch(session, answer, batch))?;
        progress.set_position(done as u64);
        next = batches.next();
    }
    progress.finish_and_clear();
    printed.end(session, true)
}

/// Entries in portions that fit a message of any server.
struct Batches(Peekable<IntoIter<types::Entry>>);

impl Iterator for Batches {
    type Item = Vec<types::Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut size = 0;
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(entry) =
                self.0.next_if(|entry| size == 0 || size + entry.encoded_len() <= BATCH_BYTES)
        {
            size += entry.encoded_len();
            batch.push(entry);
        }
        (!batch.is_empty()).then_some(batch)
    }
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

/// The answer on stdout, as it grows.
#[derive(Default)]
struct Printed {
    /// JSON: something stands in the list.
    begun: bool,
    /// What stderr is told at the end.
    failed: String,
}

impl Printed {
    fn batch(
        &mut self,
        session: &mut Session,
        answer: BatchCreateEntryResponse,
        asked: Vec<types::Entry>,
    ) -> Result<(), Failure> {
        let mut text = String::new();
        for (ItemResult { status, entry }, asked) in answer.results.into_iter().zip(asked) {
            let ok = is_ok(status.as_ref());
            // The API answers no entry when it could not create one.
            let entry = if ok { entry } else { Some(asked) };
            if session.output == Output::Json {
                let result = ItemResult { status, entry };
                let json = printer::message(RESULT, &result)?;
                text.push_str(if self.begun { "," } else { JSON_BEGIN });
                self.begun = true;
                printer::write_json(&json, true, &mut text);
            } else if ok {
                text.push_str(&entry.as_ref().map(output::entry).unwrap_or_default());
            } else {
                self.failed.push_str(&failure_text("create", status, entry.as_ref()));
            }
        }
        session.io.print(&text)
    }

    /// `answered`: there is an answer, be it an empty one.
    fn end(self, session: &mut Session, answered: bool) -> Result<(), Failure> {
        if session.output == Output::Json && answered {
            let begin = if self.begun { "" } else { JSON_BEGIN };
            session.io.print(&format!("{begin}]}}\n"))?;
        }
        finish(&mut session.io, "create", &self.failed)
    }
}

const RESULT: &str = "spire.api.server.entry.v1.BatchCreateEntryResponse.Result";
const JSON_BEGIN: &str = "{\"results\":[";

/// What was done goes to stdout; what was not, to stderr with the reason, and makes the command fail.
pub(super) fn print_results(
    io: &mut Io,
    verb: &str,
    results: Vec<(Option<types::Status>, Option<types::Entry>)>,
) -> Result<(), Failure> {
    let (mut text, mut failed) = (String::new(), String::new());
    for (status, entry) in results {
        if is_ok(status.as_ref()) {
            text.push_str(&entry.as_ref().map(output::entry).unwrap_or_default());
        } else {
            failed.push_str(&failure_text(verb, status, entry.as_ref()));
        }
    }
    io.print(&text)?;
    finish(io, verb, &failed)
}

fn failure_text(verb: &str, status: Option<types::Status>, entry: Option<&types::Entry>) -> String {
    let status = status.unwrap_or_default();
    let (code, message) = (output::code(status.code), go_quote(&status.message));
    let block = entry.map(output::entry).unwrap_or_default();
    format!("Failed to {verb} the following entry (code: {code}, msg: {message}):\n{block}")
}

fn finish(io: &mut Io, verb: &str, failed: &str) -> Result<(), Failure> {
    if failed.is_empty() {
        return Ok(());
    }
    io.eprint(failed);
    Err(Failure::new(format!("failed to {verb} one or more entries")))
}

pub(super) fn is_ok(status: Option<&types::Status>) -> bool {
    status.is_none_or(|status| status.code == tonic::Code::Ok as i32)
}

#[cfg(test)]
mod tests;
