//! `federation create`, `federation update`

use std::fmt::Write as _;

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Session};
use steeple_config::{FlagSet, go_quote};
use steeple_proto::spire::api::server::trustdomain::v1::{
    BatchCreateFederationRelationshipRequest, BatchUpdateFederationRelationshipRequest,
};
use steeple_proto::spire::api::types::{FederationRelationship, Status};

use super::input::Input;
use super::{block, client};
use crate::commands::output;

pub struct Create(Input);

impl ClientCommand for Create {
    const NAME: &'static str = "federation create";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(Input::new(flags))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let asked = self.0.relationships(&mut session.io)?;
        let request = BatchCreateFederationRelationshipRequest {
            federation_relationships: asked.clone(),
            output_mask: None,
        };
        let answer = client(&session.channel).batch_create_federation_relationship(request).await;
        let answer = answer.context("request failed")?.into_inner();
        let name = "spire.api.server.trustdomain.v1.BatchCreateFederationRelationshipResponse";
        let mut failed = None;
        session.answer(name, &answer, |answer| {
            let results = answer.results.iter();
            let results = results.map(|r| (r.status.as_ref(), r.federation_relationship.as_ref()));
            let (text, errors) = texts("create", results.zip(&asked));
            failed = errors;
            Ok(text)
        })?;
        finish(session, "create", failed)
    }
}

pub struct Update(Input);

impl ClientCommand for Update {
    const NAME: &'static str = "federation update";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(Input::new(flags))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let asked = self.0.relationships(&mut session.io)?;
        let request = BatchUpdateFederationRelationshipRequest {
            federation_relationships: asked.clone(),
            ..Default::default()
        };
        let answer = client(&session.channel).batch_update_federation_relationship(request).await;
        let answer = answer.context("request failed")?.into_inner();
        let name = "spire.api.server.trustdomain.v1.BatchUpdateFederationRelationshipResponse";
        let mut failed = None;
        session.answer(name, &answer, |answer| {
            let results = answer.results.iter();
            let results = results.map(|r| (r.status.as_ref(), r.federation_relationship.as_ref()));
            let (text, errors) = texts("update", results.zip(&asked));
            failed = errors;
            Ok(text)
        })?;
        finish(session, "update", failed)
    }
}

/// What was done for stdout; what was not, with the reason, for stderr. The API answers no relationship where it
/// failed: what was asked for is shown. The empty line before a failure is on stdout, as SPIRE's.
fn texts<'a>(
    verb: &str,
    results: impl Iterator<
        Item = ((Option<&'a Status>, Option<&'a FederationRelationship>), &'a FederationRelationship),
    >,
) -> (String, Option<String>) {
    let (mut text, mut errors, mut failures) = (String::new(), String::new(), 0);
    for ((status, done), asked) in results {
        match status {
            Some(status) if status.code != 0 => {
                let (code, message) = (output::code(status.code), go_quote(&status.message));
                let _ = write!(
                    errors,
                    "Failed to {verb} the following federation relationship (code: {code}, msg: {message}):\n{}",
                    block(asked)
                );
                failures += 1;
            }
            _ => {
                let _ = write!(text, "\n{}", done.map(block).unwrap_or_default());
            }
        }
    }
    text.push_str(&"\n".repeat(failures));
    (text, (failures > 0).then_some(errors))
}

fn finish(session: &mut Session, verb: &str, failed: Option<String>) -> Result<(), Failure> {
    let Some(errors) = failed else { return Ok(()) };
    session.io.eprint(&errors);
    Err(Failure::new(format!("failed to {verb} one or more federation relationships")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_show_what_was_asked_for() {
        let relationship =
            |name: &str| FederationRelationship { trust_domain: name.into(), ..Default::default() };
        let (a, b) = (relationship("a"), relationship("b"));
        let status = Status { code: 6, message: "it is \"there\"".into() };
        let ok = Status::default();
        let results = [((Some(&status), None), &a), ((Some(&ok), Some(&b)), &b)];
        let (text, errors) = texts("create", results.into_iter());
        assert_eq!(text, "\nTrust domain              : b\nBundle endpoint URL       : \n\n");
        assert_eq!(
            errors.unwrap(),
            "Failed to create the following federation relationship (code: AlreadyExists, msg: \"it is \\\"there\\\"\"):\n\
             Trust domain              : a\nBundle endpoint URL       : \n"
        );
        assert_eq!(texts("create", std::iter::empty()), (String::new(), None));
    }
}
