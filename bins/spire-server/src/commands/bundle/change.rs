//! `bundle set`, `bundle delete`: bundles of other trust domains.

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Session};
use steeple_config::{Flag, FlagSet, go_quote};
use steeple_proto::spire::api::server::bundle::v1::batch_delete_federated_bundle_request::Mode;
use steeple_proto::spire::api::server::bundle::v1::{
    BatchDeleteFederatedBundleRequest, BatchSetFederatedBundleRequest,
};

use super::client;
use super::form::Form;

pub struct Set {
    id: Flag<String>,
    path: Flag<String>,
    format: Flag<String>,
}

impl ClientCommand for Set {
    const NAME: &'static str = "bundle set";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self {
            id: flags.string("id", "", "Trust domain of the bundle"),
            path: flags.string("path", "", "File with the bundle (default: stdin)"),
            format: Form::flag(flags),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let (id, path) = (self.id.get(), self.path.get());
        if id.is_empty() {
            return Err(Failure::new("id flag is required"));
        }
        let form = Form::parse(&self.format.get())?;
        let data = if path.is_empty() { session.io.read_stdin() } else { steeple_cli::files::read(&path) };
        let bundle = form.read(&id, &data.context("unable to load bundle data")?)?;
        let request = BatchSetFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
        let answer = client(&session.channel)
            .batch_set_federated_bundle(request)
            .await
            .context("failed to set federated bundle")?
            .into_inner();
        session.answer("spire.api.server.bundle.v1.BatchSetFederatedBundleResponse", &answer, |answer| {
            match answer.results.first().and_then(|result| result.status.as_ref()) {
                Some(status) if status.code != 0 => {
                    Err(Failure::new(format!("failed to set federated bundle: {}", status.message)))
                }
                _ => Ok("bundle set.\n".to_owned()),
            }
        })
    }
}

pub struct Delete {
    id: Flag<String>,
    mode: Flag<String>,
}

impl ClientCommand for Delete {
    const NAME: &'static str = "bundle delete";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        let about = "What becomes of entries that federate with it: restrict (refuse), dissociate or delete";
        Self {
            id: flags.string("id", "", "Trust domain of the bundle"),
            mode: flags.string("mode", "restrict", about),
        }
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let id = self.id.get();
        if id.is_empty() {
            return Err(Failure::new("id is required"));
        }
        let mode = parse_mode(&self.mode.get())?;
        let request = BatchDeleteFederatedBundleRequest { trust_domains: vec![id], mode: mode as i32 };
        let answer = client(&session.channel)
            .batch_delete_federated_bundle(request)
            .await
            .context("failed to delete federated bundle")?
            .into_inner();
        session.answer("spire.api.server.bundle.v1.BatchDeleteFederatedBundleResponse", &answer, |answer| {
            match answer
                .results
                .first()
                .and_then(|result| Some((&result.trust_domain, result.status.as_ref()?)))
            {
                Some((trust_domain, status)) if status.code != 0 => {
                    let trust_domain = go_quote(trust_domain);
                    let why = &status.message;
                    Err(Failure::new(format!("failed to delete federated bundle {trust_domain}: {why}")))
                }
                _ => Ok("bundle deleted.\n".to_owned()),
            }
        })
    }
}

fn parse_mode(text: &str) -> Result<Mode, Failure> {
    match text {
        "" | "restrict" => Ok(Mode::Restrict),
        "dissociate" => Ok(Mode::Dissociate),
        "delete" => Ok(Mode::Delete),
        other => Err(Failure::new(format!("unsupported mode {}", go_quote(other)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(parse_mode(""), Ok(Mode::Restrict));
        assert_eq!(parse_mode("dissociate"), Ok(Mode::Dissociate));
        assert_eq!(parse_mode("delete"), Ok(Mode::Delete));
        assert_eq!(parse_mode("nope").unwrap_err().to_string(), "unsupported mode \"nope\"");
    }
}
