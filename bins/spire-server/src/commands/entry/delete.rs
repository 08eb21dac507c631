//! `entry delete`

use std::fmt::Write as _;

use steeple_cli::gojson::{self, Object};
use steeple_cli::{Api, ClientCommand, Failure, Session};
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::spire::api::server::entry::v1::{BatchDeleteEntryRequest, BatchDeleteEntryResponse};

use super::client;
use super::create::is_ok;
use crate::commands::output;

pub struct Delete {
    entry_id: Flag<String>,
    file: Flag<String>,
}

impl ClientCommand for Delete {
    const NAME: &'static str = "entry delete";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            entry_id: flags.string("entryID", "", "ID of the entry to delete"),
            file: flags.string(
                "file",
                "",
                "JSON file {\"ids\": […]} with the entries to delete, - for stdin",
            ),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let (id, file) = (self.entry_id.get(), self.file.get());
        let ids = if !file.is_empty() {
            let value = gojson::parse(&session.io.read(&file)?)?;
            Object::top(&value, "entryv1.BatchDeleteEntryRequest")?.strings("ids")?
        } else if id.is_empty() {
            return Err(Failure::new("an entry ID is required"));
        } else {
            vec![id]
        };
        let answer =
            client(&session.channel).batch_delete_entry(BatchDeleteEntryRequest { ids }).await?.into_inner();
        let mut failed = String::new();
        session.answer("spire.api.server.entry.v1.BatchDeleteEntryResponse", &answer, |answer| {
            let (text, failures) = summary(answer);
            failed = failures;
            Ok(text)
        })?;
        if failed.is_empty() {
            return Ok(());
        }
        session.io.eprint(&failed);
        Err(Failure::new("failed to delete one or more entries"))
    }
}

/// What goes to stdout, and what to stderr. SPIRE ends stdout without a line break.
fn summary(answer: &BatchDeleteEntryResponse) -> (String, String) {
    let (done, failed): (Vec<_>, Vec<_>) =
        answer.results.iter().partition(|result| is_ok(result.status.as_ref()));
    let (mut text, mut errors) = (String::new(), String::new());
    for result in &done {
        let _ = writeln!(text, "Deleted entry with ID: {}", result.id);
    }
    if !done.is_empty() {
        text.push_str("\n\n");
    }
    for result in &failed {
        let status = result.status.clone().unwrap_or_default();
        let (id, code, message) = (&result.id, output::code(status.code), go_quote(&status.message));
        let _ = writeln!(errors, "Failed to delete entry with ID {id} (code: {code}, msg: {message})");
    }
    let (done, failed) = (done.len(), failed.len());
    let _ = match (done, failed) {
        (_, 0) => write!(text, "Deleted {done} entries successfully"),
        (0, _) => write!(text, "\n\nFailed to delete {failed} entries"),
        _ => write!(text, "\n\nDeleted {done} entries successfully, but failed to delete {failed} entries"),
    };
    (text, errors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use steeple_proto::spire::api::server::entry::v1::batch_delete_entry_response::Result as ItemResult;
    use steeple_proto::spire::api::types::Status;

    fn item(id: &str, code: i32) -> ItemResult {
        ItemResult { id: id.into(), status: Some(Status { code, message: "entry not found".into() }) }
    }

    #[test]
    fn summaries() {
        let of = |results| summary(&BatchDeleteEntryResponse { results });
        assert_eq!(
            of(vec![item("a", 0)]),
            ("Deleted entry with ID: a\n\n\nDeleted 1 entries successfully".into(), String::new())
        );
        let error = "Failed to delete entry with ID b (code: NotFound, msg: \"entry not found\")\n";
        assert_eq!(of(vec![item("b", 5)]), ("\n\nFailed to delete 1 entries".into(), error.into()));
        assert_eq!(
            of(vec![item("a", 0), item("b", 5)]),
            (
                "Deleted entry with ID: a\n\n\n\n\nDeleted 1 entries successfully, but failed to delete 1 entries".into(),
                error.into()
            )
        );
    }
}
