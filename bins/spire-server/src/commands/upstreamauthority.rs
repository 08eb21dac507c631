//! `upstreamauthority taint|revoke`: X.509 authorities above the server's own.

use steeple_cli::{Api, ClientCommand, Context as _, Failure, Session};
use steeple_config::{Flag, FlagSet};
use steeple_proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use steeple_proto::spire::api::server::localauthority::v1::{
    RevokeX509UpstreamAuthorityRequest, TaintX509UpstreamAuthorityRequest,
};

/// The one flag of both.
struct KeyId(Flag<String>);

impl KeyId {
    fn new(flags: &mut FlagSet, verb: &str) -> Self {
        let about = format!("Subject Key Identifier of the upstream X.509 authority to {verb}");
        Self(flags.string("subjectKeyID", "", &about))
    }

    fn required(&self) -> Result<String, Failure> {
        let id = self.0.get();
        if id.is_empty() {
            return Err(Failure::new("the Subject Key ID of the X.509 upstream authority is required"));
        }
        Ok(id)
    }
}

pub struct Taint(KeyId);

impl ClientCommand for Taint {
    const NAME: &'static str = "upstreamauthority taint";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(KeyId::new(flags, "taint"))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = TaintX509UpstreamAuthorityRequest { subject_key_id: self.0.required()? };
        let done =
            LocalAuthorityClient::new(session.channel.clone()).taint_x509_upstream_authority(request).await;
        let done = done.context("could not taint X.509 upstream authority")?.into_inner();
        session.answer(
            "spire.api.server.localauthority.v1.TaintX509UpstreamAuthorityResponse",
            &done,
            |done| Ok(text("Tainted", &done.upstream_authority_subject_key_id)),
        )
    }
}

pub struct Revoke(KeyId);

impl ClientCommand for Revoke {
    const NAME: &'static str = "upstreamauthority revoke";
    const API: Api = Api::Server;

    fn flags(flags: &mut FlagSet) -> Self {
        Self(KeyId::new(flags, "revoke"))
    }

    async fn run(&self, session: &mut Session) -> Result<(), Failure> {
        let request = RevokeX509UpstreamAuthorityRequest { subject_key_id: self.0.required()? };
        let done =
            LocalAuthorityClient::new(session.channel.clone()).revoke_x509_upstream_authority(request).await;
        let done = done.context("could not revoke X.509 upstream authority")?.into_inner();
        session.answer(
            "spire.api.server.localauthority.v1.RevokeX509UpstreamAuthorityResponse",
            &done,
            |done| Ok(text("Revoked", &done.upstream_authority_subject_key_id)),
        )
    }
}

fn text(done: &str, id: &str) -> String {
    format!("{done} X.509 upstream authority:\n  Subject Key ID: {id}\n")
}
